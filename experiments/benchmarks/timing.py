"""Timing of several functions that take turns in one process.

Ratios of such times hold on a machine whose speed varies; the seconds themselves do not.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

ROUNDS = 7


def median_seconds(functions: Mapping[str, Callable[[], Any]], *, rounds: int = ROUNDS) -> dict[str, float]:
    """Returns the median seconds of each function over rounds in which every function is called once.

    Args:
        functions: functions by name. Each is called once before the first round, to compile it; a line on stderr says
            how long that took. The arrays that it returns are waited for.
        rounds: number of rounds.
    """
    for name, function in functions.items():
        start = time.perf_counter()
        jax.block_until_ready(function())
        print(f"{name}: first call {time.perf_counter() - start:.1f} seconds", file=sys.stderr, flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}
