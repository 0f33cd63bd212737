"""Streams: in which order categories arrive, and how many at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lifelong_cvae.errors import InputError


def tasks(
    available: Sequence[str],
    *,
    categories: Sequence[str] | None = None,
    order_seed: int | None = None,
    categories_per_task: int = 1,
) -> tuple[tuple[str, ...], ...]:
    """The tasks of a stream, each one or several categories.

    Args:
        available: categories of the source, in label order.
        categories: which of them, and in which order; default all, as they are.
        order_seed: a random order of these instead.
        categories_per_task: how many arrive at once; the last task may have fewer.

    Raises:
        InputError: an unknown or repeated category, or a number out of range.
    """
    chosen = list(available if categories is None else categories)
    for name in chosen:
        if name not in available:
            raise InputError(f"unknown category {name!r}: one of {', '.join(available)} is expected")
        if chosen.count(name) > 1:
            raise InputError(f"category {name!r} is named twice: each one once is expected")
    if not chosen:
        raise InputError("no category: at least one is expected")
    if categories_per_task < 1:
        raise InputError(f"categories_per_task={categories_per_task}: at least 1 is expected")
    if order_seed is not None:
        if order_seed < 0:
            raise InputError(f"order_seed={order_seed}: at least 0 is expected")
        chosen = [chosen[i] for i in np.random.default_rng(order_seed).permutation(len(chosen))]
    starts = range(0, len(chosen), categories_per_task)
    return tuple(tuple(chosen[start : start + categories_per_task]) for start in starts)
