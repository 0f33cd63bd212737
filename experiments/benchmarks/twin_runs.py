"""Time to learn all categories of a source one by one, for ours and its baselines (see `twins`).

Each side runs in a fresh process.

To compare speed at equal accuracy, ours runs without the parts that the baselines lack (`twins.WITHOUT`). It still fits
the thresholds for unknown images, which the baselines do not have.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks import twins
from experiments.benchmarks.config import BenchmarkConfig
from lifelong_cvae.config import Config
from lifelong_cvae.data import Source
from lifelong_cvae.errors import use_package
from lifelong_cvae.training.task_data import count_steps

ROOT = Path(__file__).parents[2]
# Runs of each side.
REPEATS = 2
# Compilations that take at least as many seconds are cached, so that short ones cost the same in every run.
MIN_CACHED_SECONDS = "0.1"


def ten_categories(benchmark_config: BenchmarkConfig) -> dict[str, Any]:
    """Measures how long each side takes to learn all categories of a source, in a fresh process.

    Ours runs twice: with an empty compilation cache, and with the cache that the first run filled.

    Returns:
        `rows`: one per side, the figures of `run_process` in the fastest run, and the seconds of the slowest.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    use_package("torch")
    source, config = benchmark_config.open_source(), twins.twin_config(benchmark_config.config)
    sides = {
        "ours, nothing compiled": "ours",
        "ours, compiled before": "ours",
        twins.FLAX: "flax",
        twins.TORCH: "torch",
    }
    runs: dict[str, list[dict[str, float]]] = {label: [] for label in sides}
    with tempfile.TemporaryDirectory() as folder:
        task = write_task(Path(folder) / "images.npz", source, config, seed=benchmark_config.seed)
        for repeat in range(REPEATS):
            cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/{repeat}"}
            for label, side in sides.items():
                runs[label].append(run_process(side, task, cache if side == "ours" else {}))
    rows = []
    for label, figures in runs.items():
        fastest = min(figures, key=lambda run: run["seconds"])
        rows.append({"side": label, **fastest, "slowest": max(run["seconds"] for run in figures)})
    return {
        "rows": rows,
        "training_images": sum(source.counts["train"].values()),
        "test_images": sum(source.counts["test"].values()),
        "runs": REPEATS,
        "versions": {"pytorch": importlib.metadata.version("torch")},
    }


def write_task(file: Path, source: Source, config: Config, *, seed: int) -> dict[str, Any]:
    """Writes the images of a source to an npz file, and returns the task for `twin_process`.

    Args:
        file: file to write.
        source: source of the images.
        config: settings.
        seed: seed of all randomness.

    Returns:
        Plain values, ready for JSON.
    """
    arrays = {}
    for split in ("train", "test"):
        rows = [twins.uint8_rows(source, category, split) for category in source.categories]
        arrays[split] = np.concatenate(rows)
        arrays[f"{split}_labels"] = np.repeat(np.arange(len(rows)), [len(category_rows) for category_rows in rows])
    np.savez(file, **arrays)
    return {
        "file": str(file),
        "seed": seed,
        "image_shape": source.image_shape,
        "steps": [count_steps(config.learning, source.counts["train"][name]) for name in source.categories],
        "settings": twins.baseline_settings(config),
        "config": config.to_dict(),
    }


def run_process(side: str, task: dict[str, Any], environment: dict[str, str]) -> dict[str, float]:
    """Runs a side in a fresh process.

    Args:
        side: `ours`, `flax` or `torch`.
        task: as `write_task` returns it.
        environment: environment variables to add.

    Returns:
        `seconds` from the start of the process to its end, and the figures of `twin_process.run`.
    """
    inherited = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    cache_settings = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": MIN_CACHED_SECONDS}
    started = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmarks.twin_process", side, json.dumps({**task, "started": started})],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        cwd=ROOT,
        env={**inherited, **cache_settings, **environment},
    )
    return {"seconds": time.time() - started, **json.loads(done.stdout)}
