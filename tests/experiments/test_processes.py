"""Several processes that learn together.

`pytest -m external -n 0 -s tests/experiments/test_processes.py` starts two processes with two devices each.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from lifelong_cvae.runs.config import read_run_config
from tests.conftest import SMALL, lines_of, result_of
from tests.experiments.conftest import ROOT, Ended, environment

# Memory playback sends every kind of array through a mesh; the batches are large enough for a reliable accuracy.
SETTINGS = {**SMALL, "mixed_mode": "playback", "min_steps": "60", "steps_per_call": "20", "batch_size": "64"}
QUIET = ("--nofigures", "--noreport", "--notensorboard")
FLAGS = [*QUIET, "--categories=3,1,0", *(f"--set={key}={value}" for key, value in SETTINGS.items())]
RESUME = ("--resume", *QUIET)
LOST = "error: another process of this run was lost; restart all of them with --resume\n"
# Message of JAX, which aborts a process whose peer sends no heartbeat.
ABORTED = "JAX distributed service detected fatal errors"
# Lines that the collectives of JAX print to stdout when they connect.
GLOO_LINE = re.compile(r"^\[Gloo\] Rank \d+ is connected to \d+ peer ranks\. [^\n]*\n", re.MULTILINE)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--process_id=1"], "--process_id=1: expected --coordinator=HOST:PORT with it, got None"),
        (
            ["--coordinator=auto", "--num_processes=2"],
            "--num_processes=2: expected --coordinator=HOST:PORT with it, got auto",
        ),
        (["--coordinator=here"], "--coordinator: expected HOST:PORT or auto, got here"),
        (
            ["--coordinator=a:1", "--process_id=0"],
            "--coordinator=a:1: expected --num_processes and --process_id with it",
        ),
        (
            ["--coordinator=a:1", "--num_processes=2", "--process_id=2"],
            "--process_id: expected a number below --num_processes=2, got 2",
        ),
        (["--coordinator=a:1", "--num_processes=0"], "--num_processes=0"),
        (["--mesh=4"], "--mesh: expected numbers of devices such as 4x1, got 4"),
        (["--mesh=999x1"], "got 999 x 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_learn_refuses_flags_that_do_not_fit_together(launch, tmp_path, flags, words):
    ended = launch("learn", f"--workdir={tmp_path / 'new'}", *flags)
    assert ended.code == 2, ended
    assert re.fullmatch(r"error: [^\n]+\n", ended.err)
    assert words in ended.err
    assert not (tmp_path / "new").exists()


def test_learn_refuses_taken_port(launch, tmp_path):
    with socket.create_server(("", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        flags = (f"--coordinator={address}", "--num_processes=2", "--process_id=0")
        ended = launch("learn", f"--workdir={tmp_path / 'new'}", *flags)
    assert ended.code == 2, ended
    assert re.fullmatch(rf"error: --coordinator: expected a free port, got {address} [^\n]+\n", ended.err)


class TwoProcesses:
    """Two processes that learn together; they are killed on exit."""

    def __init__(self, workdir, cache, *flags, devices=2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = ["--num_processes=2", f"--coordinator=127.0.0.1:{port}", f"--workdir={workdir}", *flags]
        self.files = [[tempfile.TemporaryFile("w+") for _ in range(2)] for _ in range(2)]  # noqa: SIM115
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "experiments.learn", f"--process_id={index}", *common],
                cwd=ROOT,
                env=environment_with_devices(devices, cache),
                stdout=out,
                stderr=err,
            )
            for index, (out, err) in enumerate(self.files)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process, files in zip(self.processes, self.files, strict=True):
            process.kill()
            process.wait()
            for file in files:
                file.close()

    def wait(self, index, timeout=600):
        """Waits for one of the processes and returns its exit code and output, without lines of Gloo."""
        code = self.processes[index].wait(timeout)
        texts = []
        for file in self.files[index]:
            file.seek(0)
            texts.append(file.read())
        out, err = texts
        return Ended(code, GLOO_LINE.sub("", out), err)


def environment_with_devices(count, cache):
    """Environment variables of a process with `count` virtual devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return {
        **environment(),
        "XLA_FLAGS": flags.strip(),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    }


def learn_in_one_process(workdir, cache, *flags, devices=1):
    """Runs `learn` in a single process."""
    process = subprocess.run(
        [sys.executable, "-m", "experiments.learn", f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env=environment_with_devices(devices, cache),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")


def wait_for(condition):
    """Polls until a condition is true, for ten minutes at most."""
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder for compiled programs."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def run_of_one(tmp_path_factory, cache):
    """The run directory of one process with one device."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    learn_in_one_process(workdir, cache, *FLAGS)
    return workdir


@pytest.fixture(scope="module")
def run_of_two(tmp_path_factory, cache):
    """The run directory of the same run in two processes with two devices each, and the ended processes."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    with TwoProcesses(workdir, cache, *FLAGS) as processes:
        return workdir, [processes.wait(index) for index in (0, 1)]


@pytest.mark.external
def test_learn_in_two_processes_equals_one(run_of_one, run_of_two):
    workdir, ended = run_of_two
    assert [process.code for process in ended] == [0, 0], ended
    assert re.search(r"^accuracy [\d.]+ % on the test images of 3 categories", ended[0].out, re.MULTILINE)
    assert ended[1].out == ""
    assert {path.name for path in workdir.iterdir()} == {path.name for path in run_of_one.iterdir()}
    accuracies = [[line["accuracy"] for line in lines_of(run)] for run in (run_of_one, workdir)]
    print(f"accuracy of one device {accuracies[0]}, of two processes with two devices {accuracies[1]}")
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.001)
    assert "4 x cpu" in json.loads((workdir / "config.json").read_text())["device"]


@pytest.mark.external
def test_learn_resumes_on_other_devices(run_of_two, cache):
    workdir, _ = run_of_two
    learn_in_one_process(workdir, cache, *RESUME, "--categories=3,1,0,4")
    learn_in_one_process(workdir, cache, *RESUME, "--categories=3,1,0,4,7", "--mesh=2x2", devices=4)
    flags = (*RESUME, "--categories=3,1,0,4,7,6", "--mesh=1x2")
    with TwoProcesses(workdir, cache, *flags, devices=1) as processes:
        assert [processes.wait(index).code for index in (0, 1)] == [0, 0]
    assert result_of(workdir)["categories"] == list("310476")
    assert read_run_config(workdir).tasks == tuple((name,) for name in "310476")


@pytest.mark.external
@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_learn_ends_if_another_process_is_lost(run_of_one, tmp_path, cache, lost, number):
    workdir = tmp_path / "run"
    flags = [*FLAGS, "--set=min_steps=60", "--set=steps_per_call=5", "--checkpoint_every=0"]
    with TwoProcesses(workdir, cache, *flags) as processes:
        wait_for(lambda: (workdir / "checkpoints/1").exists() and (workdir / "within_task/2").exists())
        processes.processes[lost].send_signal(number)
        start = time.monotonic()
        ended = processes.wait(1 - lost)
        seconds = time.monotonic() - start
    print(f"process {lost} lost by {number.name}: the other ended after {seconds:.1f} s")
    assert (ended.code == 1 and LOST in ended.err) or (ended.code == -signal.SIGABRT and ABORTED in ended.err), ended
    learn_in_one_process(workdir, cache, *RESUME)
    assert result_of(workdir)["accuracy"] == pytest.approx(result_of(run_of_one)["accuracy"], abs=0.05)


@pytest.mark.external
def test_learn_stops_all_processes_if_one_is_asked(tmp_path, cache):
    workdir = tmp_path / "run"
    with TwoProcesses(workdir, cache, *FLAGS, "--set=steps_per_call=5", "--checkpoint_every=0") as processes:
        wait_for(lambda: (workdir / "within_task/1").exists())
        processes.processes[1].send_signal(signal.SIGTERM)
        for index in (0, 1):
            ended = processes.wait(index)
            assert ended.code == 128 + signal.SIGTERM, ended
            assert re.fullmatch(r"stopped [^\n]+: resume with python [^\n]+ --resume\n", ended.err)
    with contextlib.suppress(FileNotFoundError):
        assert not list((workdir / "checkpoints").glob("3"))


@pytest.mark.external
def test_learn_reports_bad_input_in_all_processes(tmp_path, cache):
    with TwoProcesses(tmp_path, cache, "--nofigures", "--categories=0,x") as processes:
        for index in (0, 1):
            ended = processes.wait(index)
            assert (ended.code, ended.out) == (2, "")
            assert re.fullmatch(r"error: unknown category: [^\n]+ got 'x'\n", ended.err)
    (tmp_path / "notes.txt").write_text("mine")
    with TwoProcesses(tmp_path, cache, *FLAGS) as processes:
        for index in (0, 1):
            ended = processes.wait(index)
            assert ended.code == 2
            assert re.fullmatch(r"error: [^\n]+: expected a new or empty directory[^\n]+\n", ended.err)
