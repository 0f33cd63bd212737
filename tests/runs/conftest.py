"""Runs that several files of tests read, and helpers for data sources and checkpoints."""

import dataclasses
import json
import shutil

import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.runs.config import RunConfig
from tests.build_once import build_once
from tests.conftest import SMALL_FEATURES, run_quietly

FIVE = ("3", "1", "4", "0", "5")
THREE = FIVE[:3]


@pytest.fixture(scope="session")
def config_with_features(small_config):
    """Settings of both recognizers, small."""
    return small_config.with_settings(SMALL_FEATURES)


@pytest.fixture(scope="session")
def make_run_config(config_with_features):
    """Function that makes a run configuration of the embedded digits.

    An entry of `names` is a task: the name of a category, or a tuple of names.
    """

    def make(names, **changes):
        tasks = tuple((name,) if isinstance(name, str) else tuple(name) for name in names)
        return RunConfig(**{"dataset": "mnist5k", "tasks": tasks, "config": config_with_features, **changes})

    return make


@pytest.fixture(scope="session")
def five_tasks(tmp_path_factory, make_run_config, mnist5k):
    """A folder with `run`, an uninterrupted run of five tasks with all checkpoints, and `log.json`, its log lines."""

    def learn(folder):
        lines = []
        run_quietly(folder / "run", make_run_config(FIVE), mnist5k, keep_all=True, log_fn=lines.append)
        (folder / "log.json").write_text(json.dumps(lines), "utf-8")

    return build_once(tmp_path_factory, "five_tasks", learn)


@pytest.fixture(scope="session")
def run_of_five(five_tasks):
    """The run directory of an uninterrupted run of five tasks."""
    return five_tasks / "run"


@pytest.fixture(scope="session")
def log_of_five(five_tasks):
    """The log lines of `run_of_five`."""
    return json.loads((five_tasks / "log.json").read_text("utf-8"))


@pytest.fixture(scope="session")
def run_of_three(tmp_path_factory, make_run_config, mnist5k):
    """The run directory of an uninterrupted run of the first three of these tasks."""

    def learn(folder):
        run_quietly(folder / "run", make_run_config(THREE), mnist5k)

    return build_once(tmp_path_factory, "three_tasks", learn) / "run"


@pytest.fixture
def run_copy(run_of_three, tmp_path):
    """A copy of the run of three tasks."""
    return shutil.copytree(run_of_three, tmp_path / "copy")


@pytest.fixture(scope="session")
def playback_run(tmp_path_factory, config_with_features, mnist5k):
    """The run directory of two tasks with three digits; memory is played back in the second one."""
    config = config_with_features.with_settings({"mixed_mode": "playback"})
    run_config = RunConfig("mnist5k", (("3",), ("1", "0")), images_per_category=40, config=config)

    def learn(folder):
        run_quietly(folder / "run", run_config, mnist5k)

    return build_once(tmp_path_factory, "playback", learn) / "run"


def recorded_source(source):
    """Returns the source, and a list that each read appends its (split, category) to."""
    reads = []

    def read(split, category):
        reads.append((split, category))
        return source.read(split, category)

    return dataclasses.replace(source, read=read), reads


def accuracies_of(state, source, recognizer=None):
    """Returns the accuracy of each category on its test images, from the predictions of single images."""
    accuracies = {}
    ready = lifelong.make_recognizer(state, recognizer)
    for name in state.names:
        predictions, _ = lifelong.recognize(ready, source.read("test", name))
        accuracies[name] = sum(prediction == name for prediction in predictions.tolist()) / len(predictions)
    return accuracies


def flip_bit(checkpoint):
    """Flips a bit in the middle of the largest file of a checkpoint."""
    largest = max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 4
    largest.write_bytes(content)
