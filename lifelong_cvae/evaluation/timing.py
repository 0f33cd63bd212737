"""How long things take, side by side in one process: ratios survive a noisy machine, seconds do not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lifelong_cvae import growth, learning, records, training
from lifelong_cvae.config import Config
from lifelong_cvae.errors import InputError
from lifelong_cvae.evaluation import agreement, memory
from lifelong_cvae.growth import LifelongState
from lifelong_cvae.teacher import Teacher

ROUNDS = 7


def playback_step(
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
        str(count): _chunk(_with_categories(config, image_shape, count, rng=rng), rng) for count in counts
    }
    return {name: value / config.learning.chunk_steps for name, value in _medians(chunks).items()}


def _with_categories(
    config: Config, image_shape: Sequence[int], count: int, *, rng: jax.Array
) -> LifelongState:
    """A learner with so many earlier categories of random parameters, and a new one, the last."""
    state = growth.init(config, image_shape, rng=rng)
    for index in range(count + 1):
        state = growth.grow(state, f"category {index}", rng=rng)
    return state


def _chunk(state: LifelongState, rng: jax.Array) -> Callable[[], None]:
    """A function that runs one chunk of steps on random images."""
    task = state.names[-1:]
    images = np.random.default_rng(0).integers(0, 256, (1000, state.networks.pixels), np.uint8)
    data = learning.task_data(state, {task[0]: images}, rng=rng)
    past = Teacher(state, task, rng=rng).remember(0)
    run = partial(
        training.train_chunk, networks=state.networks, learning=state.config.learning, train_mixed=True
    )

    def once() -> None:
        jax.block_until_ready(run(training.start_carry(state, task, train_mixed=True), data, past))

    return once


def _medians(functions: Mapping[str, Callable[[], None]]) -> dict[str, float]:
    for function in functions.values():
        function()  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(ROUNDS):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def _playback(rng: jax.Array) -> dict[str, float]:
    small = {"mixed_widths": (100, 100), "category_widths": (32, 32), "rank": 16, "mixed_mode": "playback"}
    seconds = playback_step(Config().with_settings(small), (28, 28), (10, 100), rng=rng)
    return {
        "seconds_a_step_10": seconds["10"],
        "seconds_a_step_100": seconds["100"],
        "ratio": seconds["100"] / seconds["10"],
    }


# What can be measured: name to a function of a key that gives figures.
BENCHMARKS = {
    "playback": _playback,
    "agreement": agreement.agreement,
    "memory": memory.over_categories,
}


def benchmark(what: str, file: Path, *, seed: int) -> dict[str, Any]:
    """Runs one of `BENCHMARKS` and writes its figures as JSON, with what measured them.

    Raises:
        InputError: the folder of the file does not exist.
    """
    if not file.parent.is_dir():
        raise InputError(f"{file.parent}: no such folder to write into")
    figures = BENCHMARKS[what](jax.random.key(seed))
    values = {"what": what, **figures, "versions": records.versions(), "device": records.device()}
    records.write_json(file, values)
    return values
