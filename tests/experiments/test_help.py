"""Help of the launchers, and the processes that the tests run them in."""

import re

import pytest

from tests.experiments.conftest import run_in_new_process

DATA_OPTIONS = {
    "image_size": None,
    "max_value": None,
    "grayscale": "false",
    "tfds_data_dir": None,
    "tfds_manual_dir": None,
}
# Launcher to its flags and their defaults.
FLAGS = {
    "learn": {
        "workdir": None,
        "dataset": "mnist5k",
        **DATA_OPTIONS,
        "seed": "0",
        "preset": "default",
        "set": "[]",
        "categories": None,
        "order_seed": None,
        "categories_per_task": "1",
        "lookahead": "1",
        "validation_fraction": "0.0",
        "images_per_category": None,
        "full_categories": "0",
        "evaluate_on": "test",
        "recognizer": None,
        "recogniser": None,
        "resume": "false",
        "keep": "last",
        "checkpoint_every": "60.0",
        "figures": "true",
        "tensorboard": None,
        "report": None,
        "coordinator": None,
        "num_processes": None,
        "process_id": None,
        "mesh": None,
    },
    "report": {"workdir": None, "dataset": None},
    "serve": {"workdir": None, "seed": "0", "port": "8000", "taught": "true"},
    "imagine": {"workdir": None, "seed": "0", "per_category": "10", "categories": None, "cycles": "0", "output": None},
    "evaluate": {
        "workdir": None,
        "seed": "0",
        "samples": "10000",
        "cycles": "0",
        "judges": "runs/judges",
        "unknown": None,
        "dataset": None,
    },
    "compare": {
        "workdir": None,
        "dataset": "mnist5k",
        **DATA_OPTIONS,
        "study": "strategies",
        "strategies": None,
        "seeds": "1,2,3",
        "categories_per_task": "1",
        "set": "[]",
        "validation_fraction": "0.0",
        "evaluate_on": "test",
        "samples": "10000",
        "judges": "runs/judges",
        "figures": "true",
    },
    "results": {"document": "RESULTS.md", "check": "false"},
    "benchmark": {
        "dataset": "mnist5k",
        **DATA_OPTIONS,
        "preset": "default",
        "set": "[]",
        "seed": "0",
        "validation_fraction": "0.0",
        "evaluate_on": "test",
        "what": "playback",
        "precision": "default",
        "output": "runs/benchmark.json",
    },
    "recognize": {
        "workdir": None,
        "seed": "0",
        "images": None,
        "recognizer": None,
        "recogniser": None,
        "candidates": None,
        "reject": "0.01",
        "output": None,
    },
}


@pytest.mark.parametrize("name", FLAGS)
def test_help_lists_every_flag_with_its_default(launch, name):
    ended = launch(name, "--help")
    assert ended.code == 0
    assert ended.err == ""
    assert f"python -m experiments.{name}" in ended.out
    assert "checkout" in ended.out
    defaults = {}
    for entry in re.split(r"^  --(?:\[no\])?", ended.out, flags=re.MULTILINE)[1:]:
        default = re.search(r"\(default: '(.*)'\)", entry)
        defaults[entry.partition(":")[0]] = default and default[1]
    assert defaults == {**FLAGS[name], "compilation_cache": None}


def test_launch_equals_new_process(launch, idx_folder, tmp_path):
    flags = (f"--workdir={tmp_path / 'new'}", f"--dataset=idx:{idx_folder}", "--categories=3,7")
    ended = launch("learn", *flags)
    assert ended == run_in_new_process("learn", *flags)
    assert ended.code == 2
    assert ended.err == "error: unknown category: expected one of 0, 1, 3, got '7'\n"
