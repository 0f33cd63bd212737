"""Untrained states, and training steps on random images. Their cost does not depend on the values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from lifelong_cvae.config import Config
from lifelong_cvae.state import LifelongState, add_category, init
from lifelong_cvae.training.task_data import make_task_data
from lifelong_cvae.training.teacher import make_teacher, sample_replay
from lifelong_cvae.training.train import init_carry, train_chunk


def untrained_state(config: Config, image_shape: Sequence[int], count: int, *, rng: jax.Array) -> LifelongState:
    """Returns a state with `count` untrained categories."""
    state = init(config, image_shape, rng=rng)
    for index in range(count):
        state = add_category(state, f"category {index}", rng=rng)
    return state


def chunk_runner(state: LifelongState, task: tuple[str, ...], images: int, *, rng: jax.Array) -> Callable[[], Any]:
    """Returns a function that runs one chunk of training steps.

    Args:
        state: state that knows the task's categories.
        task: categories to train.
        images: random training images per category.
        rng: key of the batches and of the replayed pairs.
    """
    numbers, shape = np.random.default_rng(0), (images, state.networks.pixels)
    rows = {name: numbers.integers(0, 256, shape, np.uint8) for name in task}
    data = make_task_data(state, rows, rng=rng)
    replay = sample_replay(make_teacher(state, task, rng=rng), 0)
    train_mixed = state.mixed_learns
    run_chunk = partial(
        train_chunk, networks=state.training_networks, learning=state.config.learning, train_mixed=train_mixed
    )
    return lambda: run_chunk(init_carry(state, task, train_mixed=train_mixed), data, replay)
