"""All figures of a GPU or TPU by one command, the most important first.

Every part is a process of its own, since a process reserves most of an accelerator's memory. Figures are written after
each part, so a machine that is taken away leaves what it has measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from experiments.benchmarks.config import BenchmarkConfig
from experiments.benchmarks.twin_runs import ROOT
from lifelong_cvae.files import read_json, read_lines

# Seconds after which the running part is stopped.
LIMIT = 540
LOOKAHEAD = 16


class Part(NamedTuple):
    """A command to time.

    Attributes:
        name: name of its figures.
        command: arguments of Python.
        read: function from the seconds of the command to the figures that it has written.
        environment: environment variables to add.
    """

    name: str
    command: list[str]
    read: Callable[[float], dict[str, Any]]
    environment: Mapping[str, str] = MappingProxyType({})


def accelerator(benchmark_config: BenchmarkConfig) -> dict[str, Any]:
    """Measures whole runs, a thousand categories in one task, and other benchmarks, within nine minutes.

    Returns:
        `rows`, one per whole run; the figures of each other benchmark under its name; `errors` of parts that failed or
        did not end in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        return run_parts(parts(Path(folder), benchmark_config), benchmark_config.save)


def parts(folder: Path, benchmark_config: BenchmarkConfig) -> list[Part]:
    """Returns all parts in the order in which they run. They write into `folder`."""
    given = {"dataset": "mnist5k", "preset": "default", "set": [], **benchmark_config.flags}
    shared = [f"--{name}={given[name]}" for name in ("dataset", "preset")]
    shared += [f"--seed={benchmark_config.seed}", f"--compilation_cache={folder / 'compiled'}"]
    shared += [f"--set={setting}" for setting in given["set"]]

    def learn(name: str, *flags: str, precision: str = "") -> Part:
        workdir = folder / name.replace(" ", "_")
        command = ["-m", "experiments.learn", f"--workdir={workdir}", *shared, *flags]
        environment = {"JAX_DEFAULT_MATMUL_PRECISION": precision} if precision else {}
        return Part(name, command, partial(_read_run, workdir), environment)

    def benchmark(what: str) -> Part:
        file = folder / f"{what}.json"
        command = ["-m", "experiments.benchmark", f"--what={what}", f"--output={file}", *shared]
        return Part(what, command, lambda _: read_json(file))

    lookahead = f"--lookahead={LOOKAHEAD}"
    return [
        learn("learn, nothing compiled"),
        learn("learn, compiled before"),
        benchmark("thousand"),
        learn("learn side by side, partly compiled", lookahead),
        learn("learn side by side, compiled before", lookahead),
        benchmark("roofline"),
        benchmark("together"),
        benchmark("agreement"),
        benchmark("twins"),
        learn("learn, products in float32", precision="float32"),
        learn("learn, networks in bfloat16", "--set=compute_dtype=bfloat16"),
    ]


def run_parts(parts: list[Part], save: Callable[[dict[str, Any]], None], *, limit: float = LIMIT) -> dict[str, Any]:
    """Runs parts one after another, and prints their progress.

    Args:
        parts: what to run.
        save: called with the figures after each part.
        limit: seconds for all of them. A part that is running then is stopped, and later ones do not start.
    """
    figures: dict[str, Any] = {"rows": [], "errors": {}}
    start = time.monotonic()
    for index, part in enumerate(parts):
        left = limit - (time.monotonic() - start)
        if left <= 0:
            figures["errors"][part.name] = "not started: no time was left"
            continue
        print(f"{index + 1}/{len(parts)} {part.name}, {left:.0f} seconds left", file=sys.stderr, flush=True)
        try:
            values = part.read(_run(part, left))
        except subprocess.TimeoutExpired:
            figures["errors"][part.name] = f"did not end within {left:.0f} seconds"
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines()
            figures["errors"][part.name] = lines[-1] if lines else f"exit code {error.returncode}"
        else:
            if "what" in values:  # a benchmark
                figures[part.name] = values
            else:
                figures["rows"].append({"what": part.name, **values})
        save(figures)
    return figures


def _run(part: Part, limit: float) -> float:
    """Runs the command of a part, and returns its seconds."""
    start = time.monotonic()
    subprocess.run(
        [sys.executable, *part.command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, **part.environment},
        timeout=limit,
    )
    return time.monotonic() - start


def _read_run(workdir: Path, seconds: float) -> dict[str, Any]:
    """Returns the figures of a whole run, whose command took `seconds`."""
    result = read_json(workdir / "result.json")
    learning = [task["seconds"] for task in read_lines(workdir / "metrics.jsonl")]
    return {
        "whole command, s": seconds,
        "run, s": result["seconds_total"],
        "learning, s": sum(learning),
        "slowest task, s": max(learning),
        "accuracy, %": 100 * result["accuracy"],
        "by ELBO, %": 100 * result["accuracy_elbo"],
    }
