"""Learners of random parameters, and steps on random images: what these take does not depend on values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from lifelong_cvae import growth, learning, training
from lifelong_cvae.config import Config
from lifelong_cvae.growth import LifelongState
from lifelong_cvae.teacher import Teacher


def known(config: Config, image_shape: Sequence[int], count: int, *, rng: jax.Array) -> LifelongState:
    """A learner that knows so many categories of random parameters."""
    state = growth.init(config, image_shape, rng=rng)
    for index in range(count):
        state = growth.grow(state, f"category {index}", rng=rng)
    return state


def chunk(state: LifelongState, task: tuple[str, ...], images: int, *, rng: jax.Array) -> Callable[[], Any]:
    """A function that runs one chunk of steps of known categories, on so many random images of each."""
    numbers, size = np.random.default_rng(0), (images, state.networks.pixels)
    rows = {name: numbers.integers(0, 256, size, np.uint8) for name in task}
    data = learning.task_data(state, rows, rng=rng)
    past = Teacher(state, task, rng=rng).remember(0)
    train_mixed = state.mixed_learns
    run = partial(
        training.train_chunk,
        networks=state.trained_networks,
        learning=state.config.learning,
        train_mixed=train_mixed,
    )
    return lambda: run(training.start_carry(state, task, train_mixed=train_mixed), data, past)
