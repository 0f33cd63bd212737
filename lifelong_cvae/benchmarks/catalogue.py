"""Which benchmarks there are; running one of them, and writing what it found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lifelong_cvae import records
from lifelong_cvae.benchmarks import (
    accuracy,
    agreement,
    growth,
    memory,
    playback,
    roofline,
    together,
    twin_runs,
    twins,
)
from lifelong_cvae.benchmarks.setting import Setting
from lifelong_cvae.errors import InputError

# Name to a function that gives figures by name; `rows`, where there are some, are dicts of the same keys, and
# make a table.
BENCHMARKS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "roofline": roofline.roofline,
    "playback": playback.step,
    "together": together.together,
    "accuracy": accuracy.time_to_accuracy,
    "agreement": agreement.agreement,
    "memory": memory.over_categories,
    "growth": growth.growth,
    "twins": twins.speed,
    "twins_ten_categories": twin_runs.ten_categories,
}


def benchmark(what: str, file: Path, setting: Setting) -> dict[str, Any]:
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
        "date": records.today(),
        "versions": records.versions(),
        "device": records.device(),
    }
    records.write_json(file, values)
    return values
