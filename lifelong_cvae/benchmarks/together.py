"""A task of several categories, trained in one vmapped step, against the same categories one by one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from lifelong_cvae import growth, learning, training
from lifelong_cvae.benchmarks.setting import Setting
from lifelong_cvae.benchmarks.timing import medians
from lifelong_cvae.config import Config

COUNTS = (1, 2, 5, 10)
MODES = ("frozen", "none")
IMAGE_SHAPE = (28, 28, 1)
IMAGES = 2000


def together(setting: Setting) -> dict[str, Any]:
    """Milliseconds of a step of n categories in one task, and of n steps of one: medians, taking turns.

    In mode `frozen` after the childhood, and in `none`, where categories do not touch each other.
    """
    rows = []
    for mode in MODES:
        config = setting.config.with_settings({"mixed_mode": mode})
        steps = config.learning.chunk_steps
        seconds = medians({str(count): _chunk(config, count, rng=setting.rng) for count in COUNTS})
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


def _chunk(config: Config, count: int, *, rng: jax.Array) -> Callable[[], Any]:
    """A function that trains so many new categories for a chunk of steps on random images."""
    state = growth.init(config, IMAGE_SHAPE, rng=rng)
    for index in range(count):
        state = growth.grow(state, f"category {index}", rng=rng)
    state = state.replace(childhood_left=0)
    numbers = np.random.default_rng(0)
    images = {
        name: numbers.integers(0, 256, (IMAGES, state.networks.pixels), np.uint8) for name in state.names
    }
    data = learning.task_data(state, images, rng=rng)
    run = partial(
        training.train_chunk,
        networks=state.trained_networks,
        learning=config.learning,
        train_mixed=state.mixed_learns,
    )
    return lambda: run(training.start_carry(state, state.names, train_mixed=state.mixed_learns), data)
