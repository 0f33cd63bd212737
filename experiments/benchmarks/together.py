"""A task of several categories, trained in one vmapped step, compared with tasks of one category."""

from __future__ import annotations

from typing import Any

from experiments.benchmarks.config import BenchmarkConfig
from experiments.benchmarks.timing import median_seconds
from experiments.benchmarks.untrained import chunk_runner, untrained_state

COUNTS = (1, 2, 5, 10)
MODES = ("frozen", "none")
IMAGE_SHAPE = (28, 28, 1)
IMAGES = 2000


def together(benchmark_config: BenchmarkConfig) -> dict[str, Any]:
    """Measures a step of n categories in one task, and n steps of one category.

    Mode `frozen` is measured after the base categories. In mode `none` categories share nothing.

    Returns:
        `rows`: median milliseconds by mixed mode and number of categories, and their ratio.
    """
    rows = []
    for mode in MODES:
        config = benchmark_config.config.with_settings({"mixed_mode": mode})
        steps, rng = config.learning.steps_per_call, benchmark_config.rng
        states = {count: untrained_state(config, IMAGE_SHAPE, count, rng=rng) for count in COUNTS}
        chunks = {
            str(count): chunk_runner(state.replace(base_categories_left=0), state.names, IMAGES, rng=rng)
            for count, state in states.items()
        }
        seconds = median_seconds(chunks)
        single = seconds[str(COUNTS[0])]
        rows += [
            {
                "mixed mode": mode,
                "categories a task": count,
                "a step, ms": 1000 * seconds[str(count)] / steps,
                "one by one, ms": 1000 * count * single / steps,
                "one by one / together": count * single / seconds[str(count)],
            }
            for count in COUNTS[1:]
        ]
    return {"rows": rows}
