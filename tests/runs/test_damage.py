"""Every file of a checkpoint, damaged in every way by itself: never a wrong answer, never a traceback."""

import shutil

import numpy as np
import pytest

from lifelong_cvae.errors import InputError, Stopped
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.runs.workdir import load_state
from tests.conftest import SMALL_FEATURES, assert_runs_equal, assert_trees_equal, run_quietly

pytestmark = [
    pytest.mark.slow,
    # After an error Orbax closes its event loop while reads are under way.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
FLIPS = 10


@pytest.fixture(scope="module")
def run_config(small_config):
    config = small_config.with_settings({**SMALL_FEATURES, "mixed_mode": "playback"})
    return RunConfig("mnist5k", (("3",), ("1",)), config=config)


@pytest.fixture(scope="module")
def learned(tmp_path_factory, run_config, mnist5k):
    workdir = tmp_path_factory.mktemp("damage") / "learned"
    run_quietly(workdir, run_config, mnist5k)
    return workdir


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, run_config, mnist5k):
    """A run that was stopped in the middle of its second task."""
    workdir, calls = tmp_path_factory.mktemp("damage") / "stopped", iter(range(100))
    with pytest.raises(Stopped):
        run_quietly(workdir, run_config, mnist5k, should_stop=lambda: next(calls) == 5)
    assert (workdir / "within_task" / "2").is_dir()
    return workdir


def damages(content, numbers):
    """What a file can become, by name; None: it is gone."""
    yield "deleted", None
    yield "emptied", b""
    yield "cut", content[: len(content) // 2]
    for _ in range(FLIPS if content else 0):
        flipped = bytearray(content)
        flipped[numbers.integers(len(content))] ^= 1 << int(numbers.integers(8))
        yield "a bit flipped", bytes(flipped)


def damaged_copies(workdir, folder, tmp_path):
    """Copies of a run, each with one file of a folder damaged in one way, and which."""
    numbers = np.random.default_rng(0)
    for file in sorted(path for path in (workdir / folder).rglob("*") if path.is_file()):
        for damage, content in damages(file.read_bytes(), numbers):
            copy = tmp_path / "copy"
            shutil.copytree(workdir, copy)
            there = copy / file.relative_to(workdir)
            there.unlink() if content is None else there.write_bytes(content)
            yield copy, f"{file.relative_to(workdir)} {damage}"
            shutil.rmtree(copy)


def loaded(workdir):
    """The state of a run, or the message that says why there is none."""
    try:
        return load_state(workdir), ""
    except InputError as error:
        return None, str(error)


def test_a_damaged_checkpoint_is_told_or_answers_as_it_did(learned, tmp_path):
    whole, outcomes = load_state(learned), []
    for copy, damage in damaged_copies(learned, "checkpoints/2", tmp_path):
        state, message = loaded(copy)
        if state is None:
            assert "\n" not in message, damage
            assert "checkpoint 2" in message, damage
            assert "resume from the newest undamaged checkpoint with" in message, damage
        else:
            assert state.names == whole.names, damage
            assert_trees_equal(state.params, whole.params)
        outcomes.append("told" if state is None else "harmless")
    print(f"{len(outcomes)} damages: {outcomes.count('told')} told, {outcomes.count('harmless')} harmless")
    # Orbax keeps more than it reads: without consequence are those files alone.
    assert outcomes.count("told") > len(outcomes) / 4


@pytest.mark.parametrize("folder", ["checkpoints/1", "within_task/2"])
def test_a_run_goes_on_from_a_damaged_checkpoint_to_the_same_end(
    learned, stopped, run_config, mnist5k, tmp_path, folder
):
    count = 0
    for copy, damage in damaged_copies(stopped, folder, tmp_path):
        run_quietly(copy, run_config, mnist5k, resume=True)
        assert_runs_equal(copy, learned)
        count += 1
        assert damage
    print(f"{count} damages of {folder}: every run ended with the same parameters and figures")
