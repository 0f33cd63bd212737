"""Resident memory of a process that learns one category after another."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.config import BenchmarkConfig
from lifelong_cvae.data import Source, from_arrays, make_tasks
from lifelong_cvae.runs import runner
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.state import init, parameters_per_category

CATEGORIES, COMPARED_FROM = 50, 34
# Training images per category.
IMAGES = 40
# Two chunks of steps run every part of the training.
SHORT = {"epochs": 1, "min_steps": 20, "steps_per_call": 10}


def over_categories(benchmark_config: BenchmarkConfig) -> dict[str, Any]:
    """Measures the memory of a run of 50 categories of random images after each category.

    Returns:
        `megabytes`: resident memory after each category. `grown`: its growth from category 34 to 50. `parameters`:
        the parameters of these 16 categories. `allowed`: three times `parameters` plus 30. All are in megabytes.
    """
    config, source = benchmark_config.config.with_settings(SHORT), _random_source(benchmark_config.seed)
    megabytes: list[float] = []

    def record_memory(line: str) -> None:
        if line.split()[0].isdecimal():  # the line of a task
            gc.collect()
            megabytes.append(resident_bytes() / 1e6)

    with tempfile.TemporaryDirectory() as folder:
        run_config = RunConfig(source.name, make_tasks(source.categories), config=config)
        options = runner.RunOptions(draw=False, tensorboard=False, log_fn=record_memory)
        runner.run(Path(folder) / "run", run_config, source, options)
    state = init(config, source.image_shape, rng=benchmark_config.rng)
    parameters = (CATEGORIES - COMPARED_FROM) * 4 * parameters_per_category(state) / 1e6
    return {
        "grown": megabytes[CATEGORIES - 1] - megabytes[COMPARED_FROM - 1],
        "parameters": parameters,
        "allowed": 3 * parameters + 30,
        "megabytes": megabytes,
    }


def _random_source(seed: int) -> Source:
    numbers = np.random.default_rng(seed)
    images = numbers.integers(0, 256, (CATEGORIES * IMAGES, 28, 28), np.uint8)
    labels = np.repeat(np.arange(CATEGORIES), IMAGES)
    return from_arrays(
        "noise", train_images=images, train_labels=labels, test_images=images[::2], test_labels=labels[::2]
    )


def resident_bytes() -> int:
    """Returns the resident memory of this process in bytes (Linux only)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
