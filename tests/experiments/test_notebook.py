"""The notebook: runs from top to bottom, and is committed without what it showed."""

import os
import re
from pathlib import Path

import nbclient
import nbformat
import pytest

from tests.conftest import COMPILED, SMALL, SMALL_FEATURES

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "experiments/lifelong_cvae_colab.ipynb"
REDUCED = {**SMALL, **SMALL_FEATURES, "min_steps": "100", "batch_size": "64", "steps_per_call": "50"}


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(FILE, as_version=4)


@pytest.fixture(scope="module")
def executed(notebook, tmp_path_factory):
    """The notebook after it has run with two digits and small networks."""
    reduced = nbformat.from_dict(notebook)
    (parameters,) = [cell for cell in reduced.cells if "parameters" in cell.metadata.get("tags", ())]
    parameters.source = f'CATEGORIES = "31"\nSETTINGS = {REDUCED}'
    set_up = {
        "JAX_COMPILATION_CACHE_DIR": COMPILED,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    client = nbclient.NotebookClient(
        reduced, timeout=300, resources={"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
    )
    client.execute(env={**os.environ, **set_up})
    return {cell.id: cell for cell in reduced.cells}


def pictures(cell):
    return [output for output in cell.outputs if "image/png" in output.get("data", {})]


def texts(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def test_each_digit_is_followed_by_a_picture_and_how_many_are_recognised(executed):
    cell = executed["learn"]
    assert len(pictures(cell)) == 2
    first, second = re.findall(r"so far ([\d.]+)% are recognized", texts(cell))
    assert float(first) == 100
    assert float(second) > 90


@pytest.mark.parametrize(("name", "count"), [("draw", 1), ("circle", 1), ("recognize", 1), ("folder", 2)])
def test_pictures_are_shown(executed, name, count):
    assert len(pictures(executed[name])) == count


def test_an_image_of_a_file_is_recognised(executed):
    """The example is a three."""
    first = re.search(r"(\d): ([\d.]+)%", texts(executed["recognize"]))
    assert first[1] == "3"
    assert float(first[2]) > 50


def test_a_folder_is_learned(executed):
    shares = re.search(r"([\d.]+)% of the test images are recognized", texts(executed["folder"]))
    assert float(shares[1]) > 80


def test_what_is_kept_is_there_again(executed):
    assert texts(executed["keep"]) == "learned so far: 3, 1\n"


def test_nothing_that_was_shown_is_committed(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    identifiers = [cell.id for cell in notebook.cells]
    assert len(set(identifiers)) == len(identifiers)
