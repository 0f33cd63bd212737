"""The benchmarks by name; runs one of them and writes its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.benchmarks import (
    accelerator,
    accuracy,
    agreement,
    growth,
    large,
    memory,
    replay,
    roofline,
    thousand,
    thousand_vectors,
    together,
    twin_runs,
    twins,
    vectors,
)
from experiments.benchmarks.config import BenchmarkConfig
from lifelong_cvae.files import device_description, package_versions, utc_date, write_json

# Each benchmark returns figures by name. If there are any, `rows` are dicts with the columns of a table, and `versions`
# are those of further packages.
BENCHMARKS: dict[str, Callable[[BenchmarkConfig], dict[str, Any]]] = {
    "roofline": roofline.roofline,
    "playback": replay.step,
    "together": together.together,
    "accuracy": accuracy.time_to_accuracy,
    "agreement": agreement.agreement,
    "memory": memory.over_categories,
    "growth": growth.growth,
    "large": large.large,
    "thousand": thousand.thousand,
    "accelerator": accelerator.accelerator,
    "vectors": vectors.vectors,
    "thousand_vectors": thousand_vectors.thousand_vectors,
    "twins": twins.speed,
    "twins_ten_categories": twin_runs.ten_categories,
}


def run_benchmark(name: str, file: Path, benchmark_config: BenchmarkConfig) -> dict[str, Any]:
    """Runs one of `BENCHMARKS`, and writes its figures as JSON with the flags, date, versions and device.

    Args:
        name: key of `BENCHMARKS`.
        file: file to write. Its folder is created before the benchmark runs.
        benchmark_config: arguments of the benchmark.

    Returns:
        The values of the file.

    Raises:
        OSError: the folder cannot be created, or the file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)

    def values_of(figures: dict[str, Any]) -> dict[str, Any]:
        return {
            "what": name,
            "seed": benchmark_config.seed,
            "options": benchmark_config.flags,
            **figures,
            "date": utc_date(),
            "versions": {**package_versions(), **figures.get("versions", {})},
        }

    benchmark_config = replace(benchmark_config, save=lambda figures: write_json(file, values_of(figures)))
    # The device is described last: a process that knows it may hold its memory.
    values = {**values_of(BENCHMARKS[name](benchmark_config)), "device": device_description()}
    write_json(file, values)
    return values
