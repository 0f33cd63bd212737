"""What a process holds in memory while it learns one category after another."""

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
IMAGES = 40
# Trained for as long as it takes to run every part.
SHORT = {"epochs": 1, "min_steps": 20, "steps_per_call": 10}


def over_categories(setting: BenchmarkConfig) -> dict[str, Any]:
    """Memory of a whole run of 50 categories of random images, after each of them.

    Returns:
        `megabytes`, resident after each category; `grown` from category 34 to 50, `parameters` that these 16
        own, and `allowed`, three times these and 30, all in megabytes.
    """
    config, source = setting.config.with_settings(SHORT), _source(setting.seed)
    megabytes: list[float] = []

    def log_fn(line: str) -> None:
        if line.split()[0].isdecimal():  # of a task
            gc.collect()
            megabytes.append(resident_bytes() / 1e6)

    with tempfile.TemporaryDirectory() as folder:
        run_config = RunConfig(source.name, make_tasks(source.categories), config=config)
        runner.run(Path(folder) / "run", run_config, source, draw=False, tensorboard=False, log_fn=log_fn)
    state = init(config, source.image_shape, rng=setting.rng)
    own = (CATEGORIES - COMPARED_FROM) * 4 * parameters_per_category(state) / 1e6
    return {
        "grown": megabytes[CATEGORIES - 1] - megabytes[COMPARED_FROM - 1],
        "parameters": own,
        "allowed": 3 * own + 30,
        "megabytes": megabytes,
    }


def _source(seed: int) -> Source:
    numbers = np.random.default_rng(seed)
    images = numbers.integers(0, 256, (CATEGORIES * IMAGES, 28, 28), np.uint8)
    labels = np.repeat(np.arange(CATEGORIES), IMAGES)
    half = images[::2], labels[::2]
    return from_arrays("noise", train_images=images, train_labels=labels, test_images=half[0], test_labels=half[1])


def resident_bytes() -> int:
    """Bytes of this process in memory, as Linux counts them."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
