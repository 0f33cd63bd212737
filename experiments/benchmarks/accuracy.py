"""Time to accuracy: a fresh process learns all categories one by one and recognizes the test images."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from experiments.benchmarks import twin_runs
from experiments.benchmarks.config import BenchmarkConfig

# Best published accuracy of a generative classifier without stored data on MNIST (van de Ven et al. 2021,
# arXiv 2104.10093).
PUBLISHED = 0.938
# Runs with a filled compilation cache.
REPEATS = 2


def time_to_accuracy(benchmark_config: BenchmarkConfig) -> dict[str, Any]:
    """Measures the time from the start of Python to the answers on all test images.

    Images are recognized by the evidence, which is the ELBO at the posterior mean by default.

    Returns:
        `rows`: one per run, the first with an empty compilation cache, the others with the cache that it filled.
        Columns are the figures of `twin_runs.run_process`. `published`: the accuracy to reach.
    """
    source, rows = benchmark_config.open_source(), []
    with tempfile.TemporaryDirectory() as folder:
        images_file = Path(folder) / "images.npz"
        task = twin_runs.write_task(images_file, source, benchmark_config.config, seed=benchmark_config.seed)
        for repeat in range(1 + REPEATS):
            compiled = "compiled before" if repeat else "nothing"
            figures = twin_runs.run_process("ours", task, {"JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled"})
            rows.append({"compiled": compiled, **figures})
    return {"rows": rows, "published": PUBLISHED}
