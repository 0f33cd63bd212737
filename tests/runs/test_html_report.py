"""The report of a run."""

import base64
import io
import json
import re
import sys
from html.parser import HTMLParser

import jax
import numpy as np
import pytest
from PIL import Image

from lifelong_cvae import InputError, plotting
from lifelong_cvae.data import from_arrays
from lifelong_cvae.errors import Stopped
from lifelong_cvae.files import append_line
from lifelong_cvae.runs import html_report, runner
from lifelong_cvae.runs.config import RunConfig
from tests.conftest import lines_of, one_line

HOSTILE = '</table><script src="x">&'
QUIET = {"draw": True, "tensorboard": False, "log_fn": lambda line: None}


class Page(HTMLParser):
    """The elements of a page: (tag, attributes, text directly within)."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(text)

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

    def all(self, tag, **attributes):
        return [
            element
            for element in self.elements
            if element[0] == tag and all(element[1].get(key) == value for key, value in attributes.items())
        ]


@pytest.fixture(scope="module")
def source(digits):
    """Two categories, one of a hostile name."""
    images = np.concatenate([digits[name][:30] for name in "13"])
    labels = np.repeat(["1", HOSTILE], 30)
    return from_arrays("mine", train_images=images, train_labels=labels, test_images=images, test_labels=labels)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_config, source):
    workdir = tmp_path_factory.mktemp("run") / "run"
    config = small_config.with_settings({"latent_size": "5"})
    run_config = RunConfig(dataset="mine", tasks=((HOSTILE,), ("1",)), config=config)
    runner.run(workdir, run_config, source, **QUIET)
    return workdir


@pytest.fixture(scope="module")
def text(finished):
    return (finished / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_it_asks_nobody_for_anything(text, page):
    for tag, attributes, _ in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
    assert not re.search(r"https?:|@import|url\(|fetch\(|import\(", text)


def test_names_are_texts_and_nothing_else(page):
    assert len(page.all("script")) == 1
    assert "src" not in page.all("script")[0][1]
    assert HOSTILE in [text for _, _, text in page.all("th", scope="row")]


def test_every_picture_can_be_read_and_says_what_it_is(page):
    pictures = page.all("img")
    assert len(pictures) >= 3 + 2 * 2 * 6
    for _, attributes, _ in pictures:
        assert attributes["alt"]
        with Image.open(io.BytesIO(base64.b64decode(attributes["src"].split(",")[1]))) as picture:
            assert picture.height == 30


def test_the_matrix_holds_what_was_measured(finished, page):
    cells = [
        text for tag, attributes, text in page.elements if tag == "td" and "--share" in attributes.get("style", "")
    ]
    expected = [f"{100 * value:.1f}" for line in lines_of(finished) for value in line["accuracy_per_category"].values()]
    assert cells == expected  # of elbo alone: no other recognizer


def test_a_slider_goes_through_what_was_drawn_after_each_task(page):
    assert [table[1]["data-label"] for table in page.all("table") if table[1].get("class") == "drawn"] == [
        f"1: {HOSTILE}",
        "2: 1",
    ]
    (slider,) = page.all("input", type="range")
    assert (slider[1]["min"], slider[1]["max"]) == ("0", "1")


def test_it_tells_settings_that_differ_versions_and_commands(finished, text, page):
    assert "5" in [text for _, _, text in page.all("mark")]
    assert json.loads((finished / "config.json").read_text("utf-8"))["versions"]["jax"] in text
    commands = [text for _, _, text in page.all("code")]
    assert f"python -m experiments.imagine --workdir={finished} --output=imagined.png" in commands
    assert not any("--resume" in command for command in commands)  # all categories are learned


def test_a_run_that_was_stopped_says_so_and_how_it_goes_on(tmp_path, small_config, source, monkeypatch):
    run_config = RunConfig(dataset="mine", tasks=(("1",), (HOSTILE,)), config=small_config)
    stops = iter([False, False, True])  # the chunks of the first task, and its end
    with pytest.raises(Stopped):
        runner.run(tmp_path / "run", run_config, source, **{**QUIET, "draw": False}, should_stop=lambda: next(stops))
    line = lines_of(tmp_path / "run")[0]
    append_line(tmp_path / "run/metrics.jsonl", {**line, "task": 2})  # it died before the checkpoint
    monkeypatch.setattr(html_report, "open_source", lambda name, options: source)
    page = Page(html_report.report_run(tmp_path / "run").read_text("utf-8"))
    assert "not finished: task 1 of 2" in "".join(text for _, _, text in page.all("b"))
    assert f"python -m experiments.learn --workdir={tmp_path / 'run'} --resume" in [
        text for _, _, text in page.all("code")
    ]
    assert not page.all("input")
    assert any("drew no figures" in text for _, _, text in page.all("p"))


def test_where_nothing_was_learned_it_is_refused(tmp_path):
    with pytest.raises(InputError) as error:
        html_report.report_run(tmp_path)
    one_line(error, "config.json", "no such file")


def test_without_jinja2_learning_goes_without_a_report(tmp_path, small_config, source, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    run_config = RunConfig(dataset="mine", tasks=(("1",),), config=small_config)
    runner.run(tmp_path / "run", run_config, source, **{**QUIET, "draw": False})
    assert not (tmp_path / "run/report.html").exists()


def test_of_many_values_some_are_chosen_evenly():
    assert html_report._evenly(range(5), 40) == [0, 1, 2, 3, 4]
    assert html_report._evenly(range(100), 4) == [0, 33, 66, 99]


def test_images_are_shown_as_they_are():
    images = np.asarray(jax.random.randint(jax.random.key(0), (3, 4, 5, 3), 0, 256), np.uint8)
    with Image.open(io.BytesIO(base64.b64decode(plotting.png_data_url(images).split(",")[1]))) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (6, 21, 3)
    for index, image in enumerate(images):
        np.testing.assert_array_equal(pixels[1:5, 7 * index + 1 : 7 * index + 6], image)
