"""Every file call of a run fails once: the run goes on, or ends in one line and resumes to the same result.

    python -m pytest -m slow -n 2 --dist load tests/failing_files

takes about an hour on two cores. A library that is loaded before the C library (`shim.c`) fails one call, or all from
one on, below the run directory. Calls are grouped by their name, the role of their file and the task that is being
learned; the first call of each group fails, then random ones. A run without figures has most groups; a run with figures
and report has the others. The number of runs may be limited by the variable FAILING_RUNS.
"""

import errno
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

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
SETTINGS = {**SMALL, "mixed_mode": "none", "prior_components": "2"}
FLAGS = ["--checkpoint_every=0", "--categories=3,1", *(f"--set={key}={value}" for key, value in SETTINGS.items())]
# Kind of run to its flags.
KINDS = {"plain": ["--nofigures", "--noreport", "--notensorboard"], "drawn": []}
RANDOM_RUNS = 200
SHARDS = 2


class Trial(NamedTuple):
    """A call that fails."""

    kind: str
    number: int  # from 1
    code: int
    all_later: bool  # whether all later calls fail too


@pytest.fixture(scope="module")
def launch_failing(tmp_path_factory):
    """Function that runs a launcher in which file calls fail as the environment says."""
    folder = tmp_path_factory.mktemp("failing")
    library = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl", "-lpthread"], check=True)
    with launch_server(folder, LD_PRELOAD=str(library), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0") as call:
        yield call


@pytest.fixture(scope="module")
def data(tmp_path_factory, mnist5k):
    folder = tmp_path_factory.mktemp("data")
    write_digits(folder, mnist5k, "13")
    return f"--dataset=idx:{folder}"


def role(path):
    """The path of a file without what differs between runs: numbers, and random names."""
    return re.sub(r"[0-9]+", "N", re.sub(r"\b[0-9a-f]{32}\b", "HASH", path))


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
    """All trials, or as many of them as FAILING_RUNS says, evenly spaced.

    Args:
        groups: kind of run to the first call of each group.
        calls: number of calls of a plain run.
    """
    failures = list(itertools.product((errno.EIO, errno.ENOSPC), (False, True)))
    chosen = [Trial("plain", number, *failure) for number in groups["plain"].values() for failure in failures]
    other = [number for group, number in groups["drawn"].items() if group not in groups["plain"]]
    chosen += [Trial("drawn", number, *failure) for number in other for failure in failures]
    numbers = np.random.default_rng(0)
    for _ in range(RANDOM_RUNS):
        chosen.append(Trial("plain", int(numbers.integers(1, calls + 1)), *failures[numbers.integers(len(failures))]))
    limit = int(os.environ.get("FAILING_RUNS", len(chosen)))
    return [chosen[index] for index in np.unique(np.linspace(0, len(chosen) - 1, limit).round().astype(int))]


def fault_of(launch_failing, data, undisturbed, workdir, trial):
    """What is wrong with a run in which a call fails; None if nothing is."""
    failing = {"FAIL_BELOW": str(workdir), "FAIL_AT": str(trial.number), "FAIL_ERRNO": str(trial.code)}
    failing |= {"FAIL_ALL": "1"} if trial.all_later else {}
    flags = [f"--workdir={workdir}", *KINDS[trial.kind]]
    ended = launch_failing("learn", *flags, data, *FLAGS, env=failing)
    lines = [line for line in ended.err.splitlines() if "could not be deleted" not in line]  # a warning
    if len(lines) != (ended.code != 0):
        return f"exit {ended.code}, {len(lines)} lines: {ended.err[-500:]}"
    started = (workdir / "config.json").exists()
    again = launch_failing("learn", *flags, *(["--resume"] if started else [data, *FLAGS]))
    if again.code != 0:
        return f"{ended.err!r}, then not resumed: exit {again.code}: {again.err[-500:]}"
    try:
        assert_runs_equal(undisturbed, workdir)
    except AssertionError as error:
        return f"{ended.err!r}, then another result: {str(error)[:300]}"
    return None


@pytest.mark.parametrize("shard", range(SHARDS))
def test_learn_survives_each_failing_file_call(launch_failing, data, tmp_path, shard):
    groups, calls = {}, {}
    for kind, flags in KINDS.items():
        log = tmp_path / f"{kind}_calls"
        env = {"FAIL_BELOW": str(tmp_path / kind), "FAIL_LOG": str(log)}
        ended = launch_failing("learn", f"--workdir={tmp_path / kind}", *flags, data, *FLAGS, env=env)
        assert ended.code == 0, ended
        groups[kind], calls[kind] = call_groups(log, tmp_path / kind)
    print(f"calls {calls}, groups {dict((kind, len(found)) for kind, found in groups.items())}")
    faults, chosen = [], trials(groups, calls["plain"])[shard::SHARDS]
    for index, trial in enumerate(chosen):
        fault = fault_of(launch_failing, data, tmp_path / trial.kind, tmp_path / str(index), trial)
        if fault:
            faults.append(f"{trial}: {fault}")
            print(faults[-1], flush=True)
        shutil.rmtree(tmp_path / str(index), ignore_errors=True)
    print(f"{len(chosen)} runs with failing calls, {len(faults)} faults")
    assert not faults
