"""Launchers where people start them: other terminals, homes, folders and devices."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import launcher
from experiments.signals import StopRequest
from lifelong_cvae import InputError, load, save
from lifelong_cvae.runs.workdir import load_state
from tests.conftest import assert_trees_equal
from tests.experiments.conftest import ROOT, SETTINGS, environment


def test_learn_resolves_home_and_relative_paths(launch, idx_folder, learned_run, tmp_path):
    shutil.copytree(idx_folder, tmp_path / "data")
    ended = launch(
        *("learn", "--workdir=~/run", "--dataset=idx:data", "--categories=3,1", *SETTINGS),
        env={"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )
    assert ended.code == 0, ended
    assert json.loads((tmp_path / "run/config.json").read_text("utf-8"))["dataset"] == f"idx:{tmp_path}/data"
    assert_trees_equal(load_state(tmp_path / "run").params, load_state(learned_run).params)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", launcher.GPU_FLAG),
        ("--xla_cpu_x=1", f"--xla_cpu_x=1 {launcher.GPU_FLAG}"),
        ("--xla_gpu_enable_triton_gemm=true", "--xla_gpu_enable_triton_gemm=true"),
    ],
)
def test_shorten_gpu_compilation_keeps_flags_of_the_user(monkeypatch, given, expected):
    monkeypatch.setenv("XLA_FLAGS", given)
    launcher._shorten_gpu_compilation()
    assert os.environ["XLA_FLAGS"] == expected


@pytest.mark.parametrize("name", ["learn", "imagine", "report"])
def test_launchers_refuse_addresses_as_workdir(launch, name):
    flags = {"learn": [], "imagine": ["--output=x.npz"], "report": []}[name]
    ended = launch(name, "--workdir=gs://bucket/run", *flags)
    assert ended.code == 2
    assert ended.err == "error: --workdir: expected a path on this machine, got the address gs://bucket/run\n"


def test_save_and_load_refuse_addresses(learner):
    for call in (lambda: save(learner, "gs://bucket/x"), lambda: load("s3://bucket/x")):
        with pytest.raises(InputError, match="folder: expected a path on this machine, got the address"):
            call()


def test_report_reads_images_that_have_moved(launch, idx_folder, learned_run, tmp_path):
    shutil.copytree(learned_run, tmp_path / "run")
    shutil.copytree(idx_folder, tmp_path / "moved")
    ended = launch("report", f"--workdir={tmp_path / 'run'}", f"--dataset=idx:{tmp_path / 'moved'}")
    assert (ended.code, ended.err) == (0, "")
    (tmp_path / "moved" / "t10k-labels-idx1-ubyte").unlink()
    ended = launch("report", f"--workdir={tmp_path / 'run'}", f"--dataset=idx:{tmp_path / 'moved'}")
    assert ended.code == 2
    assert re.fullmatch(r"error: [^\n]+; if the images have moved, name their place by --dataset\n", ended.err)


def test_launcher_names_a_missing_device_in_one_line(learned_run):
    script = (
        "import sys; from experiments import imagine, launcher; sys.argv[0] = 'imagine'; launcher.run(imagine.main)"
    )
    flags = [f"--workdir={learned_run}", "--output=unused.npz"]
    ended = subprocess.run(
        [sys.executable, "-c", script, *flags],
        cwd=ROOT,
        env={**environment(), "JAX_PLATFORMS": "typo"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert re.fullmatch(r"error: JAX_PLATFORMS=typo: expected devices of this machine, got none [^\n]+\n", ended.stderr)


def test_launcher_reports_an_unexpected_error_in_one_line_and_keeps_its_text(tmp_path):
    script = """
from experiments import launcher
def main():
    print("caf\\u00e9 \\u732b")
    raise KeyError("some\\nthing")
launcher.run(main)
"""
    env = {**environment(), "TMPDIR": str(tmp_path), "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, "caf\\xe9 \\u732b\n")
    line = re.fullmatch(r"error: unexpected KeyError: 'some\\nthing'; the full text is in (\S+)\n", ended.stderr)
    assert line, ended.stderr
    assert "Traceback" in Path(line[1]).read_text("utf-8")


@pytest.fixture
def handlers():
    """The handlers of the signals, restored afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_request_is_set_once_and_restores_the_default(handlers, number):
    stop = StopRequest()
    stop.wait()
    assert not stop()
    os.kill(os.getpid(), number)
    assert stop()
    assert stop.exit_code == 128 + number
    assert {signal.getsignal(other) for other in handlers} == {signal.SIG_DFL}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("handlers")
def test_stop_request_ignores_signals_after_the_end(number):
    stop = StopRequest()
    stop.wait()
    stop.end()
    os.kill(os.getpid(), number)
    assert not stop()
