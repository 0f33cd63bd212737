"""Learners of random parameters, and steps on random images: what these take does not depend on values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from lifelong_cvae.config import Config
from lifelong_cvae.state import LifelongState, add_category, init
from lifelong_cvae.training.learn import make_task_data
from lifelong_cvae.training.teacher import Teacher
from lifelong_cvae.training.train import init_carry, train_chunk


def untrained_state(config: Config, image_shape: Sequence[int], count: int, *, rng: jax.Array) -> LifelongState:
    """A learner that knows so many categories of random parameters."""
    state = init(config, image_shape, rng=rng)
    for index in range(count):
        state = add_category(state, f"category {index}", rng=rng)
    return state


def chunk_runner(state: LifelongState, task: tuple[str, ...], images: int, *, rng: jax.Array) -> Callable[[], Any]:
    """A function that runs one chunk of steps of known categories, on so many random images of each."""
    numbers, size = np.random.default_rng(0), (images, state.networks.pixels)
    rows = {name: numbers.integers(0, 256, size, np.uint8) for name in task}
    data = make_task_data(state, rows, rng=rng)
    past = Teacher(state, task, rng=rng).remember(0)
    train_mixed = state.mixed_learns
    run = partial(
        train_chunk,
        networks=state.training_networks,
        learning=state.config.learning,
        train_mixed=train_mixed,
    )
    return lambda: run(init_carry(state, task, train_mixed=train_mixed), data, past)
