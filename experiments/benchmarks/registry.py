"""Which benchmarks there are; running one of them, and writing what it found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.benchmarks import accuracy, agreement, growth, memory, replay, roofline, together, twin_runs, twins
from experiments.benchmarks.config import BenchmarkConfig
from lifelong_cvae.errors import InputError
from lifelong_cvae.files import device_description, package_versions, utc_date, write_json

# Name to a function that gives figures by name; `rows`, where there are some, are dicts of the same keys, and
# make a table.
BENCHMARKS: dict[str, Callable[[BenchmarkConfig], dict[str, Any]]] = {
    "roofline": roofline.roofline,
    "playback": replay.step,
    "together": together.together,
    "accuracy": accuracy.time_to_accuracy,
    "agreement": agreement.agreement,
    "memory": memory.over_categories,
    "growth": growth.growth,
    "twins": twins.speed,
    "twins_ten_categories": twin_runs.ten_categories,
}


def benchmark(what: str, file: Path, setting: BenchmarkConfig) -> dict[str, Any]:
    """Runs one of `BENCHMARKS` and writes its figures as JSON, with what measured them.

    Raises:
        InputError: the folder of the file does not exist.
    """
    if not file.parent.is_dir():
        raise InputError(f"{file.parent}: no such folder to write into")
    figures = BENCHMARKS[what](setting)
    values = {
        "what": what,
        "seed": setting.seed,
        "options": setting.recorded,
        **figures,
        "date": utc_date(),
        "versions": package_versions(),
        "device": device_description(),
    }
    write_json(file, values)
    return values
