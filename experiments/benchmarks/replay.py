"""A training step that plays back many categories, against one that plays back few."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from experiments.benchmarks.config import BenchmarkConfig
from experiments.benchmarks.timing import median_seconds
from experiments.benchmarks.untrained import chunk_runner, untrained_state
from lifelong_cvae.config import Config

COUNTS = (10, 100)
IMAGES = 1000  # of the new category
SMALL = {"mixed_widths": (100, 100), "category_widths": (32, 32), "output_rank": 16, "mixed_mode": "playback"}


def step(setting: BenchmarkConfig) -> dict[str, Any]:
    """Seconds a training step takes with 10 and with 100 small earlier categories, and their ratio."""
    seconds = step_seconds(setting.config.with_settings(SMALL), (28, 28), COUNTS, rng=setting.rng)
    few, many = (seconds[str(count)] for count in COUNTS)
    return {"seconds_a_step_10": few, "seconds_a_step_100": many, "ratio": many / few}


def step_seconds(
    config: Config, image_shape: Sequence[int], counts: Sequence[int], *, rng: jax.Array
) -> dict[str, float]:
    """Seconds a training step of a new category takes when so many earlier ones are played back.

    Args:
        config: settings, of the mixed mode `playback`.
        image_shape: of random images.
        counts: numbers of earlier categories.
        rng: of the networks.

    Returns:
        Number of earlier categories, as text, to seconds per step: medians over interleaved rounds.
    """
    states = {count: untrained_state(config, image_shape, count + 1, rng=rng) for count in counts}
    chunks = {str(count): chunk_runner(state, state.names[-1:], IMAGES, rng=rng) for count, state in states.items()}
    return {name: value / config.learning.steps_per_call for name, value in median_seconds(chunks).items()}
