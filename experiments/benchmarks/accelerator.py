"""All figures of a GPU or TPU by one command, the most important first.

Every part is a process of its own, since a process reserves most of an accelerator's memory. Figures are written after
each part, so a machine that is taken away leaves what it has measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from experiments.benchmarks.config import BenchmarkConfig

ROOT = Path(__file__).parents[2]
# Seconds after which the running part is stopped.
LIMIT = 540
LOOKAHEAD = 16


class Part(NamedTuple):
    """A command to time.

    Attributes:
        name: name of its figures.
        command: arguments of Python.
        read: function without arguments that returns the figures that the command has written.
        environment: environment variables to add.
    """

    name: str
    command: list[str]
    read: Callable[[], dict[str, Any]]
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
    dataset, seed = benchmark_config.flags.get("dataset", "mnist5k"), benchmark_config.seed
    shared = [f"--dataset={dataset}", f"--seed={seed}", f"--compilation_cache={folder / 'compiled'}"]

    def learn(name: str, *flags: str, precision: str = "") -> Part:
        workdir = folder / name.replace(" ", "_")
        command = ["-m", "experiments.learn", f"--workdir={workdir}", *shared, *flags]
        environment = {"JAX_DEFAULT_MATMUL_PRECISION": precision} if precision else {}
        return Part(name, command, lambda: _read_run(workdir), environment)

    def benchmark(what: str) -> Part:
        file = folder / f"{what}.json"
        command = ["-m", "experiments.benchmark", f"--what={what}", f"--output={file}", *shared]
        return Part(what, command, lambda: json.loads(file.read_text("utf-8")))

    lookahead = f"--lookahead={LOOKAHEAD}"
    return [
        learn("learn, nothing compiled"),
        learn("learn, compiled before"),
        benchmark("thousand"),
        learn("learn side by side, partly compiled", lookahead),
        learn("learn side by side, compiled before", lookahead),
        benchmark("roofline"),
        benchmark("agreement"),
        learn("learn, products in float32", precision="float32"),
        learn("learn, networks in bfloat16", "--set=compute_dtype=bfloat16"),
        benchmark("together"),
        benchmark("twins"),
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
            seconds = _run(part, left)
            values = part.read()
        except subprocess.TimeoutExpired:
            figures["errors"][part.name] = f"did not end within {left:.0f} seconds"
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines()
            figures["errors"][part.name] = lines[-1] if lines else f"exit code {error.returncode}"
        else:
            if "whole command, s" in values:
                figures["rows"].append({"what": part.name, **values, "whole command, s": seconds})
            else:
                figures[part.name] = values
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


def _read_run(workdir: Path) -> dict[str, Any]:
    """Returns the figures of a whole run, with a place for the seconds of the command."""
    result = json.loads((workdir / "result.json").read_text("utf-8"))
    tasks = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text("utf-8").splitlines()]
    seconds = [task["seconds"] for task in tasks]
    return {
        "whole command, s": None,
        "run, s": result["seconds_total"],
        "learning, s": sum(seconds),
        "slowest task, s": max(seconds),
        "accuracy, %": 100 * result["accuracy"],
        "by ELBO, %": 100 * result["accuracy_elbo"],
    }
