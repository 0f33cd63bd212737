"""Runs that are killed at random times and resumed end with the same files as uninterrupted ones.

`pytest -m slow -n 0 -s tests/experiments/test_faults.py` kills a run of ten categories 100 times.
"""

import re
import signal
import time

import numpy as np
import pytest

from lifelong_cvae.runs.lock import lock_workdir
from lifelong_cvae.runs.workdir import load_state
from tests.conftest import SMALL, assert_runs_equal
from tests.experiments.idx import write_digits
from tests.vectors.test_vectors import CATEGORIES, gaussians

# The mixed part is trained with memory playback, so that checkpoints depend on a teacher; every chunk is saved.
SETTINGS = {**SMALL, "mixed_mode": "playback", "prior_components": "2", "min_steps": "40"}
FLAGS = [
    "--nofigures",
    "--noreport",
    "--checkpoint_every=0",
    *(f"--set={key}={value}" for key, value in SETTINGS.items()),
]


class KillableRun:
    """A run that can be killed, with an uninterrupted run of the same flags to compare with.

    Attributes:
        launch: fixture that runs a launcher.
        flags: flags of `learn`.
        uninterrupted: run directory of a run that was not killed.
        seconds: duration of such a run after everything has been compiled.
    """

    def __init__(self, launch, folder, *flags):
        self.launch, self.flags, self.uninterrupted = launch, [*FLAGS, *flags], folder / "uninterrupted"
        self.learn(self.uninterrupted)  # compiles
        start = time.monotonic()
        self.learn(folder / "timed")
        self.seconds = time.monotonic() - start

    def learn(self, workdir, kill=None, expected_code=0):
        """Starts a run, or resumes it if it has been started."""
        started = (workdir / "config.json").exists()
        flags = ["--resume", "--nofigures", "--noreport"] if started else self.flags
        ended = self.launch("learn", f"--workdir={workdir}", *flags, kill=kill)
        assert ended.code in (expected_code, 0), ended
        assert "Traceback" not in ended.err
        return ended

    def kill_and_resume(self, workdir, seconds):
        """Kills a run after `seconds`, resumes it and compares it. Returns the exit code of the killed process."""
        ended = self.learn(workdir, kill=(signal.SIGKILL, seconds), expected_code=-signal.SIGKILL)
        self.learn(workdir)
        assert_runs_equal(self.uninterrupted, workdir)
        assert {path.name for path in workdir.iterdir()} == {path.name for path in self.uninterrupted.iterdir()}
        return ended.code


@pytest.fixture(scope="module")
def two_categories(launch, idx_folder, tmp_path_factory):
    return KillableRun(launch, tmp_path_factory.mktemp("two"), f"--dataset=idx:{idx_folder}", "--categories=3,1")


@pytest.fixture(scope="module")
def ten_categories(launch, mnist5k, tmp_path_factory):
    """A run of few images and short tasks, which is started a hundred times."""
    folder = tmp_path_factory.mktemp("ten")
    (folder / "data").mkdir()
    write_digits(folder / "data", mnist5k, "0123456789")
    return KillableRun(launch, folder, f"--dataset=idx:{folder / 'data'}", "--set=min_steps=20")


@pytest.fixture(scope="module")
def vector_categories(launch, tmp_path_factory):
    """A run on vectors of three categories."""
    folder, arrays = tmp_path_factory.mktemp("vectors"), {}
    for split, seed in (("train", 2), ("test", 3)):
        arrays[f"{split}_images"] = np.concatenate(list(gaussians(60, seed).values()))
        arrays[f"{split}_labels"] = np.repeat(CATEGORIES, 60)
    np.savez(folder / "vectors.npz", **arrays)
    return KillableRun(launch, folder, f"--dataset=npz:{folder / 'vectors.npz'}", "--set=noise_scale=own")


@pytest.fixture(scope="module")
def pixel_categories(launch, idx_folder, tmp_path_factory):
    """A run with pixel models."""
    flags = [f"--set={key}" for key in ("pixel_widths=8", "sample_style=pixels", "bound=pixels")]
    folder = tmp_path_factory.mktemp("pixels")
    return KillableRun(launch, folder, f"--dataset=idx:{idx_folder}", "--categories=3,1", *flags)


@pytest.mark.slow
@pytest.mark.parametrize("part", [0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("kind", ["vector_categories", "pixel_categories"])
def test_learn_of_other_models_resumes_after_a_kill(kind, tmp_path, part, request):
    run = request.getfixturevalue(kind)
    run.kill_and_resume(tmp_path / "run", part * run.seconds)


@pytest.mark.parametrize("trial", range(1))
def test_learn_resumes_after_a_kill(two_categories, tmp_path, trial):
    seconds = np.random.default_rng(trial).uniform(0.1, two_categories.seconds)
    two_categories.kill_and_resume(tmp_path / "run", seconds)


@pytest.mark.slow
def test_learn_resumes_after_repeated_kills(two_categories, tmp_path):
    workdir, numbers = tmp_path / "run", np.random.default_rng(0)
    for trial in range(1, 5):
        # Later kills come later, so that the run progresses.
        seconds = numbers.uniform(0.1, two_categories.seconds) * trial
        two_categories.learn(workdir, kill=(signal.SIGKILL, seconds), expected_code=-signal.SIGKILL)
    two_categories.learn(workdir)
    assert_runs_equal(two_categories.uninterrupted, workdir)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGINT])
def test_learn_saves_and_stops_on_a_signal(two_categories, tmp_path, number):
    for part in (0.5, 0.35, 0.65, 0.25, 0.75):  # on a busy machine the run may have ended, or not have started
        workdir = tmp_path / str(part)
        kill = (number, part * two_categories.seconds)
        ended = two_categories.launch("learn", f"--workdir={workdir}", *two_categories.flags, kill=kill)
        if ended.code == 128 + number and (workdir / "metrics.jsonl").exists():
            break
    assert ended.code == 128 + number, ended
    command = re.escape(f"python -m experiments.learn --workdir={workdir} --resume")
    assert re.fullmatch(rf"stopped [^\n]+: resume with {command}\n", ended.err)
    assert (workdir / "within_task").exists() or (workdir / "checkpoints").exists()
    two_categories.learn(workdir)
    assert_runs_equal(two_categories.uninterrupted, workdir)


def test_learn_refuses_a_locked_workdir_and_a_kill_releases_the_lock(two_categories, tmp_path):
    workdir = tmp_path / "run"
    kill = (signal.SIGKILL, 0.6 * two_categories.seconds)
    two_categories.learn(workdir, kill=kill, expected_code=-signal.SIGKILL)
    with lock_workdir(workdir):
        before = sorted(path.name for path in workdir.rglob("*"))
        ended = two_categories.launch("learn", f"--workdir={workdir}", "--resume")
        assert ended.code == 2
        assert re.fullmatch(r"error: [^\n]+ is writing there, wait for its end\n", ended.err)
        assert sorted(path.name for path in workdir.rglob("*")) == before


@pytest.mark.slow
def test_learn_resumes_after_each_of_100_kills(ten_categories, tmp_path):
    codes = []
    for trial in range(100):
        seconds = np.random.default_rng(trial).uniform(0.1, ten_categories.seconds)
        codes.append(ten_categories.kill_and_resume(tmp_path / str(trial), seconds))
    killed = codes.count(-signal.SIGKILL)
    print(f"{killed} of 100 runs were killed within {ten_categories.seconds:.1f} s, all ended with the same parameters")
    assert killed >= 90
    assert load_state(ten_categories.uninterrupted).names == tuple("0123456789")


@pytest.mark.slow
def test_learn_resumes_after_each_of_100_interrupts(two_categories, tmp_path):
    """Ctrl-C at a random time after the first printed line."""
    codes = []
    for trial in range(100):
        workdir = tmp_path / str(trial)
        seconds = np.random.default_rng(trial).uniform(0, two_categories.seconds)
        kill = (signal.SIGINT, seconds, "printed")
        ended = two_categories.launch("learn", f"--workdir={workdir}", *two_categories.flags, kill=kill)
        codes.append(ended.code)
        if ended.code:
            command = re.escape(f"python -m experiments.learn --workdir={workdir} --resume")
            assert re.fullmatch(rf"stopped [^\n]+: resume with {command}\n", ended.err), ended
        else:
            assert ended.err == ""
        two_categories.learn(workdir)
        assert_runs_equal(two_categories.uninterrupted, workdir)
    stopped = codes.count(128 + signal.SIGINT)
    print(f"{stopped} of 100 runs were interrupted, {codes.count(0)} had ended, all resumed to the same parameters")
    assert stopped + codes.count(0) == 100
    assert stopped >= 50
