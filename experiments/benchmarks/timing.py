"""How long things take, side by side in one process: ratios survive a noisy machine, seconds do not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

ROUNDS = 7


def median_seconds(functions: Mapping[str, Callable[[], Any]], *, rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds that functions take, medians over rounds in which each is called once, one after another.

    Args:
        functions: name to a function; it is called once before, so that it has compiled, and what it returns
            is waited for.
        rounds: to take medians of.
    """
    for function in functions.values():
        jax.block_until_ready(function())
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}
