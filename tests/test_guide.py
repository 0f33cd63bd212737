"""The guide: all code blocks of its pages and of the README run, and the site builds without a warning."""

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
from lifelong_cvae import deprecated
from lifelong_cvae.presets import PRESETS
from lifelong_cvae.runs import runner
from lifelong_cvae.runs.config import RunConfig
from tests.conftest import SMALL, SMALL_FEATURES
from tests.experiments.conftest import launch  # noqa: F401

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Blocks that are not run: trees of files, output, commands that need several machines.
TEXT = {"text"}
# Readers see the real preset, which takes too long for a test.
QUICK = {**SMALL, **SMALL_FEATURES, "min_steps": "10", "steps_per_call": "5", "mixed_mode": "none"}
# Commands that .ci/run executes, or that take long and are tested in tests/experiments.
TESTED_ELSEWHERE = (
    "python3 -m venv",
    ".venv/bin/pip ",
    ".venv/bin/pytest",
    "mkdocs serve",
    "experiments.evaluate",
    "experiments.compare",
    "--what=agreement",
    "experiments.serve",
)
RENAMED = (ROOT / "docs/guide/renamed.md").read_text("utf-8")
TABLES = {name: table for name, table in vars(deprecated).items() if name.isupper() and isinstance(table, dict)}


def code_blocks(page):
    """Pairs of kind and content."""
    return BLOCK.findall(page.read_text("utf-8"))


@pytest.fixture(scope="module")
def guide_files(tmp_path_factory, mnist5k):
    """A folder with the files that the guide uses."""
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
def working_folder(guide_files, tmp_path, monkeypatch):
    """A copy of these files, as the current folder."""
    shutil.copytree(guide_files, tmp_path / "guide")
    monkeypatch.chdir(tmp_path / "guide")
    return tmp_path / "guide"


def run_command(launch, command, folder):  # noqa: F811
    """Runs a shell line that starts a launcher."""
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
    process = launch(name, *flags, cwd=folder, env=variables)
    assert process.code == 0, f"{command}\n{process.err}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_blocks_run(page, working_folder, mnist5k, monkeypatch):
    config = lifelong.Config().with_settings(QUICK)
    monkeypatch.setitem(PRESETS, "default", config)
    monkeypatch.setitem(PRESETS, "vectors", config)
    names = {"__name__": "__main__"}
    for kind, content in code_blocks(page):
        assert kind in ("python", "sh", *TEXT), f"{page.name}: expected a block of python, sh or text, got {kind!r}"
        if "runs/digits" in content and kind == "python" and not Path("runs").exists():
            # The run of the page's first command.
            run_config = RunConfig("mnist5k", (("3",), ("1",)), images_per_category=20, config=config)
            options = runner.RunOptions(draw=False, tensorboard=False, write_report=False, log_fn=lambda _: None)
            runner.run(Path("runs/digits"), run_config, mnist5k, options)
        if kind == "python":
            exec(compile(content, page.name, "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_run(page, working_folder, launch):  # noqa: F811
    lines = "\n".join(content for kind, content in code_blocks(page) if kind == "sh")
    for command in lines.replace(" && ", "\n").splitlines():
        if command.strip() and not any(part in command for part in TESTED_ELSEWHERE):
            run_command(launch, command, working_folder)


@pytest.mark.parametrize("table", ["PUBLIC_NAMES", "SETTINGS", "VALUES", "PARAMETER_KEYS", "RESULT_KEYS", "FLAGS"])
def test_renamed_page_knows_the_tables(table):
    assert table in TABLES


@pytest.mark.parametrize("table", TABLES)
def test_renamed_page_has_each_pair_in_one_row(table):
    """Each row has the name of 0.1 in the first column and that of 0.2 in the second."""
    rows = [line.split("|")[1:3] for line in RENAMED.splitlines() if line.startswith("| `")]
    for key, value in TABLES[table].items():
        # Keys of result files are listed from new to old, and values of settings with their setting.
        old, new = (value, key) if table == "RESULT_KEYS" else (key, value)
        old, new = (f"={old[1]}`", f"`{old[0]}={new}`") if table == "VALUES" else (old, new)
        pattern = {"FLAGS": "`--{}`", "PUBLIC_NAMES": "`lifelong.{}`", "VALUES": "{}"}.get(table, "`{}`")
        assert any(pattern.format(old) in left and pattern.format(new) in right for left, right in rows), (old, new)


@pytest.fixture(scope="module")
def built_site(tmp_path_factory):
    """The folder of the site, and the finished process that built it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return folder, process


def test_site_builds_without_warning(built_site):
    _, process = built_site
    assert process.returncode == 0, process.stderr
    assert not re.search("warning|error", process.stdout + process.stderr, re.IGNORECASE), process.stderr


def test_reference_has_every_public_name(built_site):
    folder, _ = built_site
    text = (folder / "reference/library/index.html").read_text("utf-8")
    for name in set(lifelong.__all__) - {"__version__"}:
        module = getattr(lifelong, name).__module__
        assert f'id="{module}.{name}"' in text, name


def test_pages_load_nothing_from_other_sites(built_site):
    folder, _ = built_site
    for page in folder.rglob("*.html"):
        requested = re.findall(
            r'<(?:script|img|link|iframe)[^>]*?(?:src|href)="?(https?:[^" >]+)', page.read_text("utf-8")
        )
        assert requested == [], page
