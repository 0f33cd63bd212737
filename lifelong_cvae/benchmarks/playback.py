"""A training step that plays back many categories, against one that plays back few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from lifelong_cvae import growth, learning, training
from lifelong_cvae.benchmarks.setting import Setting
from lifelong_cvae.benchmarks.timing import medians
from lifelong_cvae.config import Config
from lifelong_cvae.growth import LifelongState
from lifelong_cvae.teacher import Teacher

COUNTS = (10, 100)
SMALL = {"mixed_widths": (100, 100), "category_widths": (32, 32), "rank": 16, "mixed_mode": "playback"}


def step(setting: Setting) -> dict[str, Any]:
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
    chunks = {
        str(count): chunk(_with_categories(config, image_shape, count, rng=rng), rng) for count in counts
    }
    return {name: value / config.learning.chunk_steps for name, value in medians(chunks).items()}


def _with_categories(
    config: Config, image_shape: Sequence[int], count: int, *, rng: jax.Array
) -> LifelongState:
    """A learner with so many earlier categories of random parameters, and a new one, the last."""
    state = growth.init(config, image_shape, rng=rng)
    for index in range(count + 1):
        state = growth.grow(state, f"category {index}", rng=rng)
    return state


def chunk(state: LifelongState, rng: jax.Array) -> Callable[[], Any]:
    """A function that runs one chunk of steps of the last category, on random images."""
    task = state.names[-1:]
    images = np.random.default_rng(0).integers(0, 256, (1000, state.networks.pixels), np.uint8)
    data = learning.task_data(state, {task[0]: images}, rng=rng)
    past = Teacher(state, task, rng=rng).remember(0)
    run = partial(
        training.train_chunk, networks=state.networks, learning=state.config.learning, train_mixed=True
    )
    return lambda: run(training.start_carry(state, task, train_mixed=True), data, past)
