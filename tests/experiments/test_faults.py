"""Runs that are killed, at any moment and by any signal: they go on to the end that they would have come to.

The whole harness is `pytest -m slow -n 0 -s tests/experiments/test_faults.py`.
"""

import re
import signal
import time

import numpy as np
import pytest

from lifelong_cvae.runs.workdir import load_state, lock_workdir
from tests.conftest import SMALL, assert_runs_equal
from tests.experiments.conftest import write_digits

# The mixed part learns and memory is played back, so that a teacher is at stake; every chunk is saved.
SETTINGS = {**SMALL, "mixed_mode": "playback", "prior_components": "2", "min_steps": "40"}
FLAGS = [
    "--nofigures",
    "--noreport",
    "--checkpoint_every=0",
    *(f"--set={key}={value}" for key, value in SETTINGS.items()),
]


class Learning:
    """A run of some categories that can be killed, and what it comes to if it is not."""

    def __init__(self, launch, folder, *flags):
        self.launch, self.flags, self.whole = launch, [*FLAGS, *flags], folder / "whole"
        self.learn(self.whole)  # compiles
        start = time.monotonic()
        self.learn(folder / "timed")
        self.seconds = time.monotonic() - start

    def learn(self, workdir, kill=None, expected=0):
        """Begins a run, or goes on with it where it has begun."""
        begun = (workdir / "config.json").exists()
        flags = ["--resume", "--nofigures", "--noreport"] if begun else self.flags
        ended = self.launch("learn", f"--workdir={workdir}", *flags, kill=kill)
        assert ended.code in (expected, 0), ended
        assert "Traceback" not in ended.err
        return ended

    def survives(self, workdir, after):
        """Killed after so many seconds, then gone on with: the same parameters and figures."""
        ended = self.learn(workdir, kill=(signal.SIGKILL, after), expected=-signal.SIGKILL)
        self.learn(workdir)
        assert_runs_equal(self.whole, workdir)
        assert {path.name for path in workdir.iterdir()} == {path.name for path in self.whole.iterdir()}
        return ended.code


@pytest.fixture(scope="module")
def two(launch, data, tmp_path_factory):
    return Learning(launch, tmp_path_factory.mktemp("two"), f"--dataset=idx:{data}", "--categories=3,1")


@pytest.mark.parametrize("trial", range(3))
def test_a_run_that_is_killed_at_random_goes_on_as_if_it_had_not(two, tmp_path, trial):
    after = np.random.default_rng(trial).uniform(0.1, two.seconds)
    two.survives(tmp_path / "run", after)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_comes_to_the_same_end(two, tmp_path):
    workdir = tmp_path / "run"
    numbers = np.random.default_rng(0)
    killed = 0
    while killed < 4:
        # Twice as far each time, so that it gets somewhere.
        after = numbers.uniform(0.1, two.seconds) * (1 + killed)
        killed += 1
        two.learn(workdir, kill=(signal.SIGKILL, after), expected=-signal.SIGKILL)
    two.learn(workdir)
    assert_runs_equal(two.whole, workdir)


def test_a_run_that_is_asked_to_stop_saves_says_so_and_goes_on(two, tmp_path):
    for part in (0.5, 0.35, 0.65, 0.25, 0.75):  # on a busy machine it may have ended, or not begun
        workdir = tmp_path / str(part)
        sent = (signal.SIGTERM, part * two.seconds)
        ended = two.launch("learn", f"--workdir={workdir}", *two.flags, kill=sent)
        if ended.code == 128 + signal.SIGTERM:
            break
    assert ended.code == 128 + signal.SIGTERM, ended
    assert re.fullmatch(r"stopped [^\n]+ --resume goes on\n", ended.err)
    assert (workdir / "within_task").exists() or (workdir / "checkpoints").exists()
    two.learn(workdir)
    assert_runs_equal(two.whole, workdir)


def test_a_second_run_in_a_folder_is_refused_and_the_lock_dies_with_its_owner(two, tmp_path):
    workdir = tmp_path / "run"
    two.learn(workdir, kill=(signal.SIGKILL, 0.6 * two.seconds), expected=-signal.SIGKILL)
    with lock_workdir(workdir):
        before = sorted(path.name for path in workdir.rglob("*"))
        ended = two.launch("learn", f"--workdir={workdir}", "--resume")
        assert ended.code == 2
        assert re.fullmatch(r"error: [^\n]+ is writing there, wait for its end\n", ended.err)
        assert sorted(path.name for path in workdir.rglob("*")) == before


@pytest.fixture(scope="module")
def ten(launch, mnist5k, tmp_path_factory):
    """Few images and short tasks: there are a hundred runs."""
    folder = tmp_path_factory.mktemp("ten")
    write_digits(folder / "data", mnist5k, "0123456789")
    return Learning(launch, folder, f"--dataset=idx:{folder / 'data'}", "--set=min_steps=20")


@pytest.mark.slow
def test_100_kills_of_a_run_of_ten_categories_are_survived(ten, tmp_path):
    codes = []
    for trial in range(100):
        after = np.random.default_rng(trial).uniform(0.1, ten.seconds)
        codes.append(ten.survives(tmp_path / str(trial), after))
    killed = codes.count(-signal.SIGKILL)
    print(f"{killed} of 100 runs were killed within {ten.seconds:.1f} s, all ended with the same parameters")
    assert killed >= 90
    assert load_state(ten.whole).names == tuple("0123456789")
