"""What is packed: a wheel and a source distribution, which install into a fresh environment."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import lifelong_cvae as lifelong

ROOT = Path(__file__).parents[1]
# Learns two categories of stripes and recognizes them, with what `pip install` of the wheel alone brings.
PROGRAM = """
import sys
import jax, numpy as np
import lifelong_cvae as lifelong
assert "site-packages" in lifelong.__file__, lifelong.__file__
stripes = np.zeros((40, 8, 8), np.uint8)
stripes[:, ::2] = np.random.default_rng(0).integers(150, 255, (40, 4, 8))
images = {"lying": stripes, "standing": stripes.swapaxes(1, 2)}
config = lifelong.Config().with_settings({"min_steps": 60, "steps_per_call": 20, "random_features": 0,
                                          "recognizer": "elbo"})
rng = jax.random.key(0)
state = lifelong.init(config, (8, 8), rng=rng)
for state, _ in lifelong.learn_stream(state, images.items(), rng=rng):
    pass
names, _ = lifelong.recognize(state, stripes.swapaxes(1, 2))
assert (names == "standing").all(), names
print(lifelong.__version__)
"""


def modules_of(names):
    return {name for name in names if name.startswith("lifelong_cvae/") and name.endswith(".py")}


def here():
    return {str(path.relative_to(ROOT)) for path in (ROOT / "lifelong_cvae").rglob("*.py")}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and a source distribution of the files that are under version control here."""
    folder = tmp_path_factory.mktemp("build")
    copy = folder / "copy"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0")[:-1]:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(copy)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    (source,) = (folder / "dist").glob("*.tar.gz")
    return wheel, source


@pytest.mark.slow
def test_the_wheel_holds_the_library_and_no_more(built):
    wheel, _ = built
    with zipfile.ZipFile(wheel) as file:
        names = [name for name in file.namelist() if ".dist-info/" not in name]
        metadata = next(name for name in file.namelist() if name.endswith("METADATA"))
        text = file.read(metadata).decode()
    assert modules_of(names) == here()
    beside = {"lifelong_cvae/py.typed"}
    for folder in ("lifelong_cvae/runs/templates", "lifelong_cvae/webapp/static"):
        beside |= {str(file.relative_to(ROOT)) for file in (ROOT / folder).iterdir()}
    assert set(names) - here() == beside
    assert f"\nVersion: {lifelong.__version__}\n" in text


@pytest.mark.slow
def test_the_source_distribution_holds_launchers_tests_and_documents_too(built):
    _, source = built
    with tarfile.open(source) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert modules_of(names) == here()
    for name in (
        "README.md",
        "BUILD.md",
        "CHANGELOG.md",
        "CITATION.cff",
        "experiments/learn.py",
        "tests/conftest.py",
    ):
        assert name in names


@pytest.mark.slow
@pytest.mark.parametrize("kind", [0, 1], ids=["wheel", "source"])
def test_it_installs_into_a_fresh_environment_and_learns(built, tmp_path, kind):
    venv.create(tmp_path / "fresh", with_pip=True)
    python = tmp_path / "fresh/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(built[kind])], check=True)
    (tmp_path / "program.py").write_text(PROGRAM)
    ended = subprocess.run(
        [python, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == lifelong.__version__


def test_the_version_stands_in_one_place():
    assert re.fullmatch(r"\d+\.\d+\.\d+", lifelong.__version__)
    files = [
        *ROOT.glob("*.cf[fg]"),
        *ROOT.glob("*.toml"),
        ROOT / "README.md",
        *ROOT.glob("lifelong_cvae/*.py"),
    ]
    version = re.compile(rf"(?<![\d.]){re.escape(lifelong.__version__)}(?![\d.])")
    holding = [file.name for file in files if version.search(file.read_text())]
    assert holding == ["version.py"]


def test_wheel_holds_the_files_of_the_tree(tmp_path):
    tracked = subprocess.run(["git", "ls-files", "lifelong_cvae"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [file for file in tracked.stdout.splitlines() if (ROOT / file).is_file()]
    for file in [*files, "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == set(files)


def test_every_import_of_the_library_is_declared():
    """Those at the top of a file are required, or of the live page or the benchmarks.

    Those in a function may be of any extra.
    """
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    extras = settings["options.extras_require"]
    required = (settings["options"]["install_requires"], extras["live"], extras["benchmark"])
    requirements = [re.split(r"[<>=]", line)[0] for lines in required for line in lines.split()]
    modules = {
        "absl-py": "absl",
        "orbax-checkpoint": "orbax",
        "pillow": "PIL",
        "tensorflow-datasets": "tensorflow_datasets",
    }
    declared = {modules.get(name, name) for name in requirements}
    needed = set()
    for file in ROOT.glob("lifelong_cvae/**/*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import):
                needed |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                needed.add(node.module.partition(".")[0])
    assert needed - set(sys.stdlib_module_names) - {"lifelong_cvae"} <= declared
