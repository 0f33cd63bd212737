"""Report of a run: its HTML holds the run's images, numbers and names, and nothing external."""

import base64
import io
import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from lifelong_cvae import InputError
from lifelong_cvae.data import from_arrays
from lifelong_cvae.errors import Stopped
from lifelong_cvae.files import append_line
from lifelong_cvae.runs import html_report, runner
from lifelong_cvae.runs import workdir as workdir_module
from lifelong_cvae.runs.config import RunConfig
from tests.conftest import lines_of, one_line

HOSTILE_NAME = '</table><script src="x">&'
QUIET = {"tensorboard": False, "log_fn": lambda line: None}


class Page(HTMLParser):
    """Elements of a page: (tag, attributes, text directly within)."""

    def __init__(self, html):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])
        if tag not in ("meta", "link", "img", "input"):
            self._open.append(self.elements[-1])

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if self._open:
            self._open[-1][2] += data

    def find(self, tag, **attributes):
        """Elements with a tag and attribute values."""
        return [
            element
            for element in self.elements
            if element[0] == tag and all(element[1].get(key) == value for key, value in attributes.items())
        ]

    def texts(self, tag, **attributes):
        return [text for _, _, text in self.find(tag, **attributes)]


@pytest.fixture(scope="module")
def source(digits):
    """Two categories, one of them with a hostile name."""
    images = np.concatenate([digits[name][:30] for name in "13"])
    labels = np.repeat(["1", HOSTILE_NAME], 30)
    return from_arrays("mine", train_images=images, train_labels=labels, test_images=images, test_labels=labels)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, small_config, source):
    workdir = tmp_path_factory.mktemp("run") / "run"
    config = small_config.with_settings({"latent_size": "5"})
    run_config = RunConfig(dataset="mine", tasks=((HOSTILE_NAME,), ("1",)), config=config)
    runner.run(workdir, run_config, source, runner.RunOptions(**QUIET))
    return workdir


@pytest.fixture(scope="module")
def html(finished_run):
    return (finished_run / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_report_has_no_external_resources(html, page):
    for tag, attributes, _ in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
    assert not re.search(r"https?:|@import|url\(|fetch\(|import\(", html)


def test_report_escapes_names(page):
    assert len(page.find("script")) == 1
    assert "src" not in page.find("script")[0][1]
    assert HOSTILE_NAME in page.texts("th", scope="row")


def test_report_pictures_are_readable_and_have_alt_text(page):
    pictures = page.find("img")
    assert len(pictures) >= 3 + 2 * 2 * 6
    for _, attributes, _ in pictures:
        assert attributes["alt"]
        with Image.open(io.BytesIO(base64.b64decode(attributes["src"].split(",")[1]))) as picture:
            assert picture.height == 30


def test_report_shows_accuracy_matrix(finished_run, page):
    cells = [
        text for tag, attributes, text in page.elements if tag == "td" and "--share" in attributes.get("style", "")
    ]
    lines = lines_of(finished_run)
    # One matrix, since the run recognizes by the ELBO alone.
    assert cells == [f"{100 * value:.1f}" for line in lines for value in line["accuracy_per_category"].values()]
    assert page.texts("td", **{"class": "all"}) == [f"{100 * line['accuracy']:.1f}" for line in lines]


def test_report_has_slider_over_tasks(page):
    assert [attributes["data-label"] for _, attributes, _ in page.find("table", **{"class": "imagined"})] == [
        f"1: {HOSTILE_NAME}",
        "2: 1",
    ]
    (slider,) = page.find("input", type="range")
    assert (slider[1]["min"], slider[1]["max"]) == ("0", "1")


def test_report_shows_changed_settings_versions_and_commands(finished_run, html, page):
    assert "5" in page.texts("mark")
    assert json.loads((finished_run / "config.json").read_text("utf-8"))["versions"]["jax"] in html
    commands = page.texts("code")
    assert f"python -m experiments.imagine --workdir={finished_run} --output=imagined.png" in commands
    assert not any("--resume" in command for command in commands)  # all categories are learned


def test_report_of_stopped_run_shows_command_to_resume(tmp_path, small_config, source, monkeypatch):
    workdir = tmp_path / "run"
    run_config = RunConfig(dataset="mine", tasks=(("1",), (HOSTILE_NAME,)), config=small_config)
    stops = iter([False, False, True])  # after both chunks of the first task, and after the task
    options = runner.RunOptions(**QUIET, draw=False, should_stop=lambda: next(stops))
    with pytest.raises(Stopped):
        runner.run(workdir, run_config, source, options)
    # As after a process that died between a line of metrics and its checkpoint.
    append_line(workdir / "metrics.jsonl", {**lines_of(workdir)[0], "task": 2})
    monkeypatch.setattr(workdir_module, "open_source", lambda name, options: source)
    page = Page(html_report.report_run(workdir).read_text("utf-8"))
    assert "not finished: task 1 of 2" in "".join(page.texts("b"))
    assert f"python -m experiments.learn --workdir={workdir} --resume" in page.texts("code")
    assert not page.find("input")
    assert any("the run saved no figures" in text for text in page.texts("p"))


def test_report_run_rejects_folder_without_run(tmp_path):
    with pytest.raises(InputError) as error:
        html_report.report_run(tmp_path)
    one_line(error, "config.json", "no such file")


def test_run_without_jinja2_writes_no_report(tmp_path, small_config, source, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    run_config = RunConfig(dataset="mine", tasks=(("1",),), config=small_config)
    runner.run(tmp_path / "run", run_config, source, runner.RunOptions(**QUIET, draw=False))
    assert not (tmp_path / "run/report.html").exists()


def test_select_evenly_keeps_first_and_last():
    assert html_report._select_evenly(range(5), 40) == [0, 1, 2, 3, 4]
    assert html_report._select_evenly(range(100), 4) == [0, 33, 66, 99]
