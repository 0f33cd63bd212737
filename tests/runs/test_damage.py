"""Every file of a checkpoint, damaged in several ways: the result is an error or the same state.

`pytest -m slow -n 0 -s tests/runs/test_damage.py` prints the number of damages of each outcome.
"""

import shutil

import numpy as np
import pytest

from lifelong_cvae.errors import InputError, Stopped
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.runs.workdir import load_state
from tests.conftest import SMALL_FEATURES, assert_runs_equal, assert_trees_equal, run_quietly

pytestmark = [
    pytest.mark.slow,
    # After an error, Orbax closes its event loop while reads are running.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
FLIPS = 10


@pytest.fixture(scope="module")
def run_config(small_config):
    config = small_config.with_settings({**SMALL_FEATURES, "mixed_mode": "playback"})
    return RunConfig("mnist5k", (("3",), ("1",)), config=config)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, run_config, mnist5k):
    workdir = tmp_path_factory.mktemp("damage") / "finished"
    run_quietly(workdir, run_config, mnist5k)
    return workdir


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory, run_config, mnist5k):
    """A run that was stopped during its second task."""
    workdir, calls = tmp_path_factory.mktemp("damage") / "stopped", iter(range(100))
    with pytest.raises(Stopped):
        run_quietly(workdir, run_config, mnist5k, should_stop=lambda: next(calls) == 5)
    assert (workdir / "within_task" / "2").is_dir()
    return workdir


def damaged_contents(content, numbers):
    """Yields pairs of a description and the damaged content of a file, None if the file is deleted."""
    yield "deleted", None
    yield "emptied", b""
    yield "cut", content[: len(content) // 2]
    for _ in range(FLIPS if content else 0):
        flipped = bytearray(content)
        flipped[numbers.integers(len(content))] ^= 1 << int(numbers.integers(8))
        yield "a bit flipped", bytes(flipped)


def damaged_copies(workdir, folder, tmp_path):
    """Yields copies of a run with one damaged file in `folder`, and the description of the damage."""
    numbers = np.random.default_rng(0)
    for file in sorted(path for path in (workdir / folder).rglob("*") if path.is_file()):
        for damage, content in damaged_contents(file.read_bytes(), numbers):
            copy = shutil.copytree(workdir, tmp_path / "copy")
            copied_file = copy / file.relative_to(workdir)
            copied_file.unlink() if content is None else copied_file.write_bytes(content)
            yield copy, f"{file.relative_to(workdir)} {damage}"
            shutil.rmtree(copy)


def state_or_message(workdir):
    """Returns the state of a run and no message, or None and the message of the error."""
    try:
        return load_state(workdir), ""
    except InputError as error:
        return None, str(error)


def test_load_state_reports_damage_or_returns_the_same_state(finished_run, tmp_path):
    expected, outcomes = load_state(finished_run), []
    for copy, damage in damaged_copies(finished_run, "checkpoints/2", tmp_path):
        state, message = state_or_message(copy)
        if state is None:
            assert "\n" not in message, damage
            assert "checkpoint 2" in message, damage
            assert "resume from the newest undamaged checkpoint with" in message, damage
        else:
            assert state.names == expected.names, damage
            assert_trees_equal(state.params, expected.params)
        outcomes.append("reported" if state is None else "harmless")
    print(f"{len(outcomes)} damages: {outcomes.count('reported')} reported, {outcomes.count('harmless')} harmless")
    # Orbax writes more files than it reads; only damage of unread files is harmless.
    assert outcomes.count("reported") > len(outcomes) / 4


@pytest.mark.parametrize("folder", ["checkpoints/1", "within_task/2"])
def test_run_resumes_from_damage_with_the_same_result(finished_run, stopped_run, run_config, mnist5k, tmp_path, folder):
    count = 0
    for copy, damage in damaged_copies(stopped_run, folder, tmp_path):
        run_quietly(copy, run_config, mnist5k, resume=True)
        assert_runs_equal(copy, finished_run)
        count += 1
        assert damage
    print(f"{count} damages of {folder}: every run ended with the same parameters and figures")
