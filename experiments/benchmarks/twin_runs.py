"""Ours and its twins (see `twins`) learn all categories of a source, one by one, each in a fresh process.

So that speed is compared at the same accuracy, ours runs with prior_components=0, factors=0,
random_features=0, recognizer=elbo and drawing=mean: without what the twins lack. It still keeps thresholds
for unknown images, which they do not.
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
from lifelong_cvae.training.learn import count_steps

# Times that the categories are learned by each side.
REPEATS = 2
# Compiled programs that are kept, as the launchers keep them.
KEPT_SECONDS = "0.1"


def ten_categories(setting: BenchmarkConfig) -> dict[str, Any]:
    """Seconds that each side needs to learn all categories of a source, in a fresh process of its own.

    Ours twice: with an empty folder for what JAX compiles, and with what was left there.

    Returns:
        `rows`: a side each, the fastest of its runs: `seconds` from the process's start to its end, and of
        them `imports` (with the start of Python), `first steps` (of ours and Flax: compilation), `learning`
        and `recognizing`; and the accuracy by the ELBO at the posterior's mean. `slowest`, in seconds.
    """
    twins.require_torch()
    source = setting.open_source()
    sides = {
        "ours, nothing compiled": "ours",
        "ours, compiled before": "ours",
        twins.FLAX: "flax",
        twins.TORCH: "torch",
    }
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        task = task_of(Path(folder) / "images.npz", source, twins.config_of(setting), seed=setting.seed)
        for repeat in range(REPEATS):
            cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/{repeat}"}
            for side, name in sides.items():
                found[side].append(process(name, task, cache if name == "ours" else {}))
    rows = []
    for side, runs in found.items():
        fastest = min(runs, key=lambda run: run["seconds"])
        rows.append({"side": side, **fastest, "slowest": max(run["seconds"] for run in runs)})
    return {
        "rows": rows,
        "training_images": sum(source.counts["train"].values()),
        "test_images": sum(source.counts["test"].values()),
        "runs": REPEATS,
        "pytorch": importlib.metadata.version("torch"),
    }


def task_of(file: Path, source: Source, config: Config, *, seed: int) -> dict[str, Any]:
    """What a process is given, its images written to a file."""
    arrays = {}
    for split in ("train", "test"):
        rows = [twins.rows_of(source, category, split) for category in source.categories]
        arrays[split] = np.concatenate(rows)
        arrays[f"{split}_labels"] = np.repeat(np.arange(len(rows)), [len(own) for own in rows])
    np.savez(file, **arrays)
    return {
        "file": str(file),
        "seed": seed,
        "image_shape": source.image_shape,
        "steps": [count_steps(config.learning, source.counts["train"][name]) for name in source.categories],
        "settings": twins.plain(config),
        "config": config.to_dict(),
    }


def process(side: str, task: dict[str, Any], environment: dict[str, str]) -> dict[str, float]:
    """What a fresh process of a side says, and the `seconds` it took."""
    folder = Path(__file__).parent
    twin = ["-P", str(folder / f"twin_{side}.py")]  # -P: this folder is not searched for modules
    program = ["-m", "experiments.benchmarks.twin_ours"] if side == "ours" else twin
    settings = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": KEPT_SECONDS, **environment}
    inherited = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    started = time.time()
    done = subprocess.run(
        [sys.executable, *program, json.dumps({**task, "started": started})],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        cwd=folder.parents[1],
        env={**inherited, **settings},
    )
    return {"seconds": time.time() - started, **json.loads(done.stdout)}
