"""The notebook runs from top to bottom, and is committed without outputs."""

import importlib.util
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import nbclient
import nbformat
import pytest

from tests.conftest import CACHE_VARIABLES, SMALL, SMALL_FEATURES

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "experiments/lifelong_cvae_colab.ipynb"
SMALL_SETTINGS = {**SMALL, **SMALL_FEATURES, "min_steps": "100", "batch_size": "64", "steps_per_call": "50"}


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(FILE, as_version=4)


@pytest.fixture(scope="module")
def executed_cells(notebook, tmp_path_factory):
    """Cells by id after the notebook has run with two digits and small networks."""
    small_notebook = nbformat.from_dict(notebook)
    (parameters,) = [cell for cell in small_notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    parameters.source = f'CATEGORIES = "31"\nSETTINGS = {SMALL_SETTINGS}'
    environment = {**CACHE_VARIABLES, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    workdir = tmp_path_factory.mktemp("notebook")
    client = nbclient.NotebookClient(small_notebook, timeout=300, resources={"metadata": {"path": str(workdir)}})
    client.execute(env={**os.environ, **environment})
    return {cell.id: cell for cell in small_notebook.cells}


def images_in(cell):
    return [output for output in cell.outputs if "image/png" in output.get("data", {})]


def printed_text(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def test_learn_cell_shows_images_and_accuracy_after_each_digit(executed_cells):
    cell = executed_cells["learn"]
    assert len(images_in(cell)) == 2
    first, second = re.findall(r"so far ([\d.]+)% are recognized", printed_text(cell))
    assert float(first) == 100
    assert float(second) > 90


@pytest.mark.parametrize(("name", "count"), [("draw", 1), ("circle", 1), ("recognize", 1), ("folder", 2)])
def test_cell_shows_images(executed_cells, name, count):
    assert len(images_in(executed_cells[name])) == count


def test_recognize_cell_names_the_example(executed_cells):
    """The example is a three."""
    likeliest = re.search(r"(\d): ([\d.]+)%", printed_text(executed_cells["recognize"]))
    assert likeliest[1] == "3"
    assert float(likeliest[2]) > 50


def test_folder_cell_learns_a_folder(executed_cells):
    accuracy = re.search(r"([\d.]+)% of the test images are recognized", printed_text(executed_cells["folder"]))
    assert float(accuracy[1]) > 80


def test_keep_cell_loads_the_saved_state(executed_cells):
    assert printed_text(executed_cells["keep"]) == "learned so far: 3, 1\n"


@pytest.mark.parametrize(
    ("found", "stops"),
    [
        (["gpu NVIDIA A100", "cpu cpu"], True),
        (["tpu TPU v5", "none"], True),
        (["gpu NVIDIA A100", "gpu NVIDIA A100"], False),
        (["cpu cpu", "cpu cpu"], False),
        (["none", "cpu cpu"], False),
    ],
)
def test_setup_cell_stops_if_installing_loses_the_device(notebook, monkeypatch, capsys, found, stops):
    source = next(cell.source for cell in notebook.cells if "%pip" in cell.source)
    source = source.replace('%pip install --quiet "{package}"', "installed.append(package)")
    results, installed = iter(found), []
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=next(results).replace("none", "")))
    if stops:
        with pytest.raises(SystemExit, match=f"expected devices {found[0]}, got {found[1]}"):
            exec(source, {"installed": installed})
    else:
        exec(source, {"installed": installed})
    assert installed == [f"{ROOT}[demo]"]
    assert f"before installing: {found[0]}\ndevices after installing: {found[1]}" in capsys.readouterr().out


def test_committed_notebook_has_no_outputs(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    identifiers = [cell.id for cell in notebook.cells]
    assert len(set(identifiers)) == len(identifiers)
