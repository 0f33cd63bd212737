"""Packaging: wheel and source distribution install into a fresh environment."""

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
# Learns two categories of stripes and recognizes them, with the required packages alone.
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


def module_names(names):
    return {name for name in names if name.startswith("lifelong_cvae/") and name.endswith(".py")}


def copy_tracked_files(folder, *patterns):
    """Copies the files under version control that match git patterns, and returns their names."""
    command = ["git", "ls-files", "-z", *patterns]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    names = [name for name in output.decode().split("\0")[:-1] if (ROOT / name).is_file()]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return names


def source_modules():
    return {str(path.relative_to(ROOT)) for path in (ROOT / "lifelong_cvae").rglob("*.py")}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """A wheel and a source distribution of the files under version control."""
    folder = tmp_path_factory.mktemp("build")
    copy_tracked_files(folder / "copy")
    command = [sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(folder / "copy")]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    (source,) = (folder / "dist").glob("*.tar.gz")
    return wheel, source


@pytest.mark.slow
def test_wheel_holds_modules_and_data_files_only(distributions):
    wheel, _ = distributions
    with zipfile.ZipFile(wheel) as file:
        names = [name for name in file.namelist() if ".dist-info/" not in name]
        metadata = next(name for name in file.namelist() if name.endswith("METADATA"))
        text = file.read(metadata).decode()
    assert module_names(names) == source_modules()
    data_files = {"lifelong_cvae/py.typed"}
    for folder in ("lifelong_cvae/runs/templates", "lifelong_cvae/webapp/static"):
        data_files |= {str(file.relative_to(ROOT)) for file in (ROOT / folder).iterdir()}
    assert set(names) - source_modules() == data_files
    assert f"\nVersion: {lifelong.__version__}\n" in text


@pytest.mark.slow
def test_source_distribution_holds_launchers_tests_and_documents(distributions):
    _, source = distributions
    with tarfile.open(source) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert module_names(names) == source_modules()
    for name in ("README.md", "BUILD.md", "CHANGELOG.md", "CITATION.cff", "experiments/learn.py", "tests/conftest.py"):
        assert name in names


@pytest.mark.slow
@pytest.mark.parametrize("kind", [0, 1], ids=["wheel", "source"])
def test_distribution_installs_into_fresh_environment_and_learns(distributions, tmp_path, kind):
    venv.create(tmp_path / "fresh", with_pip=True)
    python = tmp_path / "fresh/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(distributions[kind])], check=True)
    (tmp_path / "program.py").write_text(PROGRAM)
    process = subprocess.run(
        [python, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == lifelong.__version__


def test_version_is_written_in_one_file():
    assert re.fullmatch(r"\d+\.\d+\.\d+", lifelong.__version__)
    files = [*ROOT.glob("*.cf[fg]"), *ROOT.glob("*.toml"), ROOT / "README.md", *ROOT.glob("lifelong_cvae/*.py")]
    version = re.compile(rf"(?<![\d.]){re.escape(lifelong.__version__)}(?![\d.])")
    files_with_version = [file.name for file in files if version.search(file.read_text())]
    assert files_with_version == ["version.py"]


def test_wheel_holds_exactly_the_tracked_files(tmp_path):
    package_files = copy_tracked_files(tmp_path, "lifelong_cvae")
    copy_tracked_files(tmp_path, "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == set(package_files)


def test_imports_of_package_are_declared():
    """Imports at the top of a file are required packages, or in the extras `live` and `sklearn`.

    Imports inside functions may be in any extra, so they are not checked.
    """
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    extras = settings["options.extras_require"]
    required = (settings["options"]["install_requires"], extras["live"], extras["sklearn"])
    requirements = [re.split(r"[<>=]", line)[0] for lines in required for line in lines.split()]
    modules = {
        "absl-py": "absl",
        "orbax-checkpoint": "orbax",
        "pillow": "PIL",
        "scikit-learn": "sklearn",
        "tensorflow-datasets": "tensorflow_datasets",
    }
    declared = {modules.get(name, name) for name in requirements}
    imported = set()
    for file in ROOT.glob("lifelong_cvae/**/*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
    assert imported - set(sys.stdlib_module_names) - {"lifelong_cvae"} <= declared
