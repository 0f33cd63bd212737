"""How long learning takes from nothing to recognizing: a fresh process, categories one by one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from experiments.benchmarks import twin_runs
from experiments.benchmarks.config import BenchmarkConfig

# The best that was published of a generative classifier without stored data, MNIST (van de Ven et al. 2021,
# arXiv 2104.10093).
PUBLISHED = 0.938
REPEATS = 2


def time_to_accuracy(setting: BenchmarkConfig) -> dict[str, Any]:
    """Seconds from the start of Python to the answers on all test images, by the ELBO at the mean.

    Returns:
        `rows`: the first run with an empty folder for what JAX compiles, others with what was left there:
        `seconds` in all, and of them `imports`, `first steps` (tracing and compiling), `learning` and
        `recognizing`; and the accuracy. `published`: the accuracy to reach.
    """
    source, rows = setting.open_source(), []
    with tempfile.TemporaryDirectory() as folder:
        task = twin_runs.task_of(Path(folder) / "images.npz", source, setting.config, seed=setting.seed)
        for repeat in range(1 + REPEATS):
            before = "compiled before" if repeat else "nothing"
            found = twin_runs.process("ours", task, {"JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled"})
            rows.append({"compiled": before, **found})
    return {"rows": rows, "published": PUBLISHED}
