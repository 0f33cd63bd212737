"""A task of several categories, trained in one vmapped step, against the same categories one by one."""

from __future__ import annotations

from typing import Any

from experiments.benchmarks.config import BenchmarkConfig
from experiments.benchmarks.timing import median_seconds
from experiments.benchmarks.untrained import chunk_runner, untrained_state

COUNTS = (1, 2, 5, 10)
MODES = ("frozen", "none")
IMAGE_SHAPE = (28, 28, 1)
IMAGES = 2000


def together(setting: BenchmarkConfig) -> dict[str, Any]:
    """Milliseconds of a step of n categories in one task, and of n steps of one: medians, taking turns.

    In mode `frozen` after the childhood, and in `none`, where categories do not touch each other.
    """
    rows = []
    for mode in MODES:
        config = setting.config.with_settings({"mixed_mode": mode})
        steps = config.learning.steps_per_call
        states = {count: untrained_state(config, IMAGE_SHAPE, count, rng=setting.rng) for count in COUNTS}
        chunks = {
            str(count): chunk_runner(state.replace(base_categories_left=0), state.names, IMAGES, rng=setting.rng)
            for count, state in states.items()
        }
        seconds = median_seconds(chunks)
        alone = seconds[str(COUNTS[0])]
        rows += [
            {
                "mixed mode": mode,
                "categories a task": count,
                "a step, ms": 1000 * seconds[str(count)] / steps,
                "one by one, ms": 1000 * count * alone / steps,
                "one by one / together": count * alone / seconds[str(count)],
            }
            for count in COUNTS[1:]
        ]
    return {"rows": rows}
