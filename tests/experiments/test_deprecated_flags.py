"""Flags and launchers under their names of version 0.1."""

import shutil

import numpy as np
import pytest

from lifelong_cvae import deprecated
from tests.conftest import result_of
from tests.experiments.conftest import Ended
from tests.experiments.test_help import FLAGS

# Flags of version 0.2 to a value that the learned run accepts, and to one that it refuses by the name of the setting.
VALUES = {"recognizer": "elbo"}
REFUSED_VALUES = {"recognizer": "combined"}


def assert_logged_once(process, old, new):
    """Asserts that a launcher succeeded and that its stderr is the log line of one old name."""
    assert (process.code, process.out) == (0, "")
    (line,) = process.err.splitlines()
    assert line.endswith(f"{old} is deprecated and will be removed in version 0.3: use {new}")


@pytest.fixture
def recognize_flags(learned_run, mixed_digits, tmp_path):
    """Flags of `recognize` without its output."""
    np.savez(tmp_path / "digits.npz", images=mixed_digits)
    return f"--workdir={learned_run}", f"--images={tmp_path / 'digits.npz'}"


def test_every_deprecated_flag_has_a_launcher_and_a_tested_value():
    assert VALUES.keys() == REFUSED_VALUES.keys() == set(deprecated.FLAGS.values())
    for old, new in deprecated.FLAGS.items():
        launchers = {name for name, flags in FLAGS.items() if new in flags}
        assert launchers == {"learn", "recognize"} == {name for name, flags in FLAGS.items() if old in flags}


@pytest.mark.parametrize(("old", "new"), deprecated.FLAGS.items())
def test_recognize_accepts_deprecated_flags(launch, recognize_flags, tmp_path, old, new):
    expected, file = tmp_path / "expected.csv", tmp_path / "predictions.csv"
    flags = (*recognize_flags, f"--{new}={VALUES[new]}", f"--output={expected}")
    assert launch("recognize", *flags) == Ended(0, "", "")
    process = launch("recognize", *recognize_flags, f"--{old}={VALUES[new]}", f"--output={file}")
    assert_logged_once(process, f"--{old}", f"--{new}")
    assert file.read_bytes() == expected.read_bytes()
    refusals = [
        launch("recognize", *recognize_flags, f"--{name}={REFUSED_VALUES[new]}", f"--output={file}")
        for name in (new, old)
    ]
    assert [process.code for process in refusals] == [2, 2]
    assert refusals[0].err.splitlines() == refusals[1].err.splitlines()[1:]


@pytest.mark.parametrize(("old", "new"), deprecated.FLAGS.items())
def test_learn_accepts_deprecated_flags(launch, learned_run, tmp_path, old, new):
    workdir = shutil.copytree(learned_run, tmp_path / "run")
    flags = (f"--workdir={workdir}", "--resume", "--nofigures", "--noreport", "--notensorboard")
    process = launch("learn", *flags, f"--{old}={VALUES[new]}")
    assert_logged_once(Ended(process.code, "", process.err), f"--{old}", f"--{new}")
    assert result_of(workdir)[new] == VALUES[new]
    process = launch("learn", *flags, f"--{old}={REFUSED_VALUES[new]}")
    assert process.code == 2
    assert process.err.splitlines()[-1].startswith(f"error: setting {new}={REFUSED_VALUES[new]}: expected")


def test_recognise_equals_recognize(launch, recognize_flags, tmp_path):
    expected, file = tmp_path / "expected.csv", tmp_path / "predictions.csv"
    assert launch("recognize", *recognize_flags, f"--output={expected}") == Ended(0, "", "")
    process = launch("recognise", *recognize_flags, f"--output={file}")
    assert_logged_once(process, "experiments.recognise", "experiments.recognize")
    assert file.read_bytes() == expected.read_bytes()
