"""Every file call of a run fails once: the run goes on, or ends in one line and resumes to the same result.

    python -m pytest -m slow -n 0 -s tests/failing_files

A library that is loaded before the C library (`shim.c`) fails one call, or all from one on, below the run directory.
Calls are grouped by their name, the role of their file and the task that is being learned; the first call of each
group fails, then random ones. The number of runs may be limited by the variable FAILING_RUNS.
"""

import errno
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SMALL, assert_runs_equal
from tests.experiments.conftest import launch_server
from tests.experiments.idx import write_digits

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the library that fails calls is for Linux"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
]
SETTINGS = {**SMALL, "mixed_mode": "playback", "prior_components": "2", "min_steps": "20", "steps_per_call": "10"}
FLAGS = ["--checkpoint_every=0", "--categories=3,1", *(f"--set={key}={value}" for key, value in SETTINGS.items())]
RANDOM_RUNS = 200


@pytest.fixture(scope="module")
def launch_failing(tmp_path_factory):
    """Function that runs a launcher in which file calls fail as the environment says."""
    folder = tmp_path_factory.mktemp("failing")
    library = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl", "-lpthread"], check=True)
    with launch_server(folder, LD_PRELOAD=str(library)) as call:
        yield call


@pytest.fixture(scope="module")
def data(tmp_path_factory, mnist5k):
    folder = tmp_path_factory.mktemp("data")
    write_digits(folder, mnist5k, "13")
    return f"--dataset=idx:{folder}"


def role(path):
    """The path of a file without what differs between runs: numbers, and random names."""
    return re.sub(r"[0-9a-f]{16,}", "HASH", re.sub(r"(?<![a-z])[0-9]+(?![a-z])", "N", path))


def call_groups(log, workdir):
    """Number of the first call of each group, from 1, in the order of a run; and the number of calls."""
    groups, task = {}, 0
    lines = log.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        name, path = line.split(" ", 1)
        path = os.path.relpath(path, workdir)
        groups.setdefault((name, role(path), task), number)
        task += path == "metrics.jsonl" and name == "fsync"
    return groups, len(lines)


def trials(groups, calls):
    """Calls that fail, the error, and whether all later ones fail too."""
    chosen = [
        (number, code, all_later)
        for number, (code, all_later) in itertools.product(
            groups.values(), itertools.product((errno.EIO, errno.ENOSPC), (False, True))
        )
    ]
    numbers = np.random.default_rng(0)
    for _ in range(RANDOM_RUNS):
        code = (errno.EIO, errno.ENOSPC)[numbers.integers(2)]
        chosen.append((int(numbers.integers(1, calls + 1)), code, bool(numbers.integers(2))))
    limit = int(os.environ.get("FAILING_RUNS", len(chosen)))
    return [chosen[index] for index in np.unique(np.linspace(0, len(chosen) - 1, limit).round().astype(int))]


def fault_of(launch_failing, data, undisturbed, workdir, number, code, all_later):
    """What is wrong with a run in which a call fails; None if nothing is."""
    failing = {"FAIL_BELOW": str(workdir), "FAIL_AT": str(number), "FAIL_ERRNO": str(code)}
    failing |= {"FAIL_ALL": "1"} if all_later else {}
    ended = launch_failing("learn", f"--workdir={workdir}", data, *FLAGS, env=failing)
    lines = ended.err.splitlines()
    warnings = [line for line in lines if "could not be deleted" in line]
    if ended.code != 0 and len(lines) - len(warnings) != 1:
        return f"exit {ended.code}, {len(lines)} lines: {ended.err[-500:]}"
    if ended.code == 0 and len(lines) != len(warnings):
        return f"exit 0 with output: {ended.err[-500:]}"
    started = (workdir / "config.json").exists()
    again = launch_failing("learn", f"--workdir={workdir}", *(["--resume"] if started else [data, *FLAGS]))
    if again.code != 0:
        return f"{ended.err!r}, then not resumed: exit {again.code}: {again.err[-500:]}"
    try:
        assert_runs_equal(undisturbed, workdir)
    except AssertionError as error:
        return f"{ended.err!r}, then another result: {str(error)[:300]}"
    return None


def test_learn_survives_each_failing_file_call(launch_failing, data, tmp_path):
    undisturbed, log = tmp_path / "undisturbed", tmp_path / "calls"
    env = {"FAIL_BELOW": str(undisturbed), "FAIL_LOG": str(log)}
    ended = launch_failing("learn", f"--workdir={undisturbed}", data, *FLAGS, env=env)
    assert ended.code == 0, ended
    groups, calls = call_groups(log, undisturbed)
    print(f"{calls} calls in {len(groups)} groups")
    faults, chosen = [], trials(groups, calls)
    for index, trial in enumerate(chosen):
        fault = fault_of(launch_failing, data, undisturbed, tmp_path / str(index), *trial)
        if fault:
            faults.append(f"call {trial}: {fault}")
            print(faults[-1], flush=True)
        shutil.rmtree(tmp_path / str(index), ignore_errors=True)
    print(f"{len(chosen)} runs with failing calls, {len(faults)} faults")
    assert not faults
