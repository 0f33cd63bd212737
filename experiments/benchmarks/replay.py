"""Cost of a training step that replays many categories, compared with one that replays few."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from experiments.benchmarks.config import BenchmarkConfig
from experiments.benchmarks.timing import median_seconds
from experiments.benchmarks.untrained import chunk_runner, untrained_state
from lifelong_cvae.config import Config

# Numbers of earlier categories.
COUNTS = (10, 100)
# Training images of the new category.
IMAGES = 1000
SMALL = {"mixed_widths": (100, 100), "category_widths": (32, 32), "output_rank": 16, "mixed_mode": "playback"}


def step(benchmark_config: BenchmarkConfig) -> dict[str, Any]:
    """Returns the seconds of a step with 10 and with 100 small earlier categories, and their ratio."""
    config = benchmark_config.config.with_settings(SMALL)
    seconds = step_seconds(config, (28, 28), COUNTS, rng=benchmark_config.rng)
    few, many = (seconds[str(count)] for count in COUNTS)
    return {"seconds_a_step_10": few, "seconds_a_step_100": many, "ratio": many / few}


def step_seconds(
    config: Config, image_shape: Sequence[int], counts: Sequence[int], *, rng: jax.Array
) -> dict[str, float]:
    """Measures a training step of a new category for several numbers of replayed categories.

    Args:
        config: settings with the mixed mode `playback`.
        image_shape: shape of the random images.
        counts: numbers of earlier categories.
        rng: key of the networks.

    Returns:
        Median seconds per step by number of earlier categories, as text.
    """
    states = {count: untrained_state(config, image_shape, count + 1, rng=rng) for count in counts}
    chunks = {str(count): chunk_runner(state, state.names[-1:], IMAGES, rng=rng) for count, state in states.items()}
    return {name: value / config.learning.steps_per_call for name, value in median_seconds(chunks).items()}
