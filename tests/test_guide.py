"""The guide: every block of code in it and in the README runs, and the site is built without a warning."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lifelong_cvae as lifelong
from lifelong_cvae.presets import PRESETS
from lifelong_cvae.runs import runner
from lifelong_cvae.runs.config import RunConfig
from tests.conftest import SMALL, SMALL_FEATURES
from tests.experiments.conftest import launch  # noqa: F401

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Shown, and not to be run: trees of files, parts of a pytree, how an environment is set up.
SHOWN = {"text"}
# What the reader sees is the preset as it is; a test has no time for it.
QUICK = {**SMALL, **SMALL_FEATURES, "min_steps": "10", "steps_per_call": "5", "mixed_mode": "none"}
# How an environment is set up, which .ci/run does; and commands that take long, which tests/experiments runs.
ELSEWHERE = (
    "python3 -m venv",
    ".venv/bin/pip ",
    ".venv/bin/pytest",
    "mkdocs serve",
    "experiments.evaluate",
    "experiments.compare",
    "--what=agreement",
    "experiments.serve",
)


def blocks(page):
    return BLOCK.findall(page.read_text("utf-8"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory, mnist5k):
    """The files that the guide speaks of."""
    folder = tmp_path_factory.mktemp("guide")
    for name, digit in [("cat", "0"), ("dog", "1"), ("horse", "7")]:
        (folder / "photos" / name).mkdir(parents=True)
        for index, image in enumerate(mnist5k.read("train", digit)[:20]):
            file = folder / f"photos/{name}/{index}.{'jpg' if index % 2 else 'png'}"
            Image.fromarray(image[..., 0]).resize((30, 40)).convert("RGB").save(file)
    images = np.concatenate([mnist5k.read("train", name)[:30, ..., 0] for name in "01"])
    np.savez(folder / "digits.npz", images=images, labels=np.repeat([0, 1], 30))
    return folder


@pytest.fixture
def here(photos, tmp_path, monkeypatch):
    """A folder of one's own with these files, to be in."""
    shutil.copytree(photos, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def run_command(launch, command, here):  # noqa: F811
    """Runs a launcher as it stands in a line of a shell."""
    words, variables = shlex.split(command), {}
    while "=" in words[0]:
        key, _, value = words.pop(0).partition("=")
        variables[key] = value
    assert words[0] in ("python", ".venv/bin/python"), command
    assert words[1] == "-m", command
    package, name = words[2].split(".")
    assert package == "experiments", command
    flags = words[3:]
    if name == "learn" and "--resume" not in flags:
        given = {flag.split("=")[1] for flag in flags if flag.startswith("--set=")}
        flags += [f"--set={key}={value}" for key, value in QUICK.items() if key not in given]
        flags += ["--notensorboard", "--images_per_category=20"]
    if name == "learn":
        flags += ["--nofigures", "--noreport"]
    ended = launch(name, *flags, cwd=here, env=variables)
    assert ended.code == 0, f"{command}\n{ended.err}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_python_runs(page, here, mnist5k, monkeypatch):
    config = lifelong.Config().with_settings(QUICK)
    monkeypatch.setitem(PRESETS, "default", config)
    names = {"__name__": "__main__"}
    for kind, content in blocks(page):
        assert kind in ("python", "sh", *SHOWN), f"{page.name}: a block of {kind!r}, which nobody runs"
        if "runs/digits" in content and kind == "python" and not Path("runs").exists():
            run_config = RunConfig("mnist5k", (("3",), ("1",)), config=config)  # what a command before it has learned
            runner.run(
                Path("runs/digits"),
                run_config,
                mnist5k,
                draw=False,
                tensorboard=False,
                write_report=False,
                log_fn=lambda _: None,
            )
        if kind == "python":
            exec(compile(content, page.name, "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_runs(page, here, launch):  # noqa: F811
    lines = "\n".join(content for kind, content in blocks(page) if kind == "sh")
    for command in lines.replace(" && ", "\n").splitlines():
        if command.strip() and not any(part in command for part in ELSEWHERE):
            run_command(launch, command, here)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, and what was said while it was built."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    told = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=told, capture_output=True, text=True, check=False)
    return folder, ended


def test_the_site_is_built_without_a_warning(site):
    _, ended = site
    assert ended.returncode == 0, ended.stderr
    assert not re.search("warning|error", ended.stdout + ended.stderr, re.IGNORECASE), ended.stderr


def test_the_reference_has_every_public_name(site):
    folder, _ = site
    text = (folder / "reference/library/index.html").read_text("utf-8")
    for name in set(lifelong.__all__) - {"__version__"}:
        module = getattr(lifelong, name).__module__
        assert f'id="{module}.{name}"' in text, name


def test_pages_request_nothing_from_elsewhere(site):
    folder, _ = site
    for page in folder.rglob("*.html"):
        requested = re.findall(
            r'<(?:script|img|link|iframe)[^>]*?(?:src|href)="?(https?:[^" >]+)', page.read_text("utf-8")
        )
        assert requested == [], page
