"""Streams: in which order categories arrive, and how many at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from lifelong_cvae.errors import InputError


def make_tasks(
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


def from_experiences(
    experiences: Iterable[tuple[Any, Any, Any]], *, channels_first: bool = False
) -> Iterator[dict[str, np.ndarray]]:
    """Tasks for `learn_stream` from a benchmark of (x, y, task) arrays, such as one of Avalanche gives.

    Experiences are read one at a time, when their turn has come.

    Args:
        experiences: in the order of their arrival. `x` are images `[n, h, w]` or `[n, h, w, c]`, uint8 or
            float in [0, 1]; `y` labels `[n]`, whole numbers or texts; `task` whole numbers `[n]`, or one for
            all. An experience of several task labels is several tasks, in ascending order.
        channels_first: whether `x` is `[n, c, h, w]`.

    Yields:
        Category name, which is the text of its label, to its images: what `learn` takes.

    Raises:
        InputError: an experience that is no such triple, or whose lengths differ.
    """
    for number, experience in enumerate(experiences, start=1):
        x, y, labels = _check_experience(experience, number, channels_first=channels_first)
        for label in np.unique(labels):
            here = labels == label
            yield {str(name): x[here & (y == name)] for name in np.unique(y[here])}


def _check_experience(
    experience: tuple[Any, Any, Any], number: int, *, channels_first: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arrays `x` `[n, h, w]` or `[n, h, w, c]`, `y` `[n]` and task labels `[n]` of an experience."""
    try:
        x, y, task = map(np.asarray, experience)
    except (TypeError, ValueError) as error:
        raise InputError(f"experience {number}: three arrays (x, y, task) are expected") from error
    if channels_first and x.ndim != 4:
        raise InputError(f"experience {number}: x [n, c, h, w] is expected, got {x.shape}")
    if y.ndim != 1 or y.dtype.kind not in "iuU":
        raise InputError(f"experience {number}: y [n] of whole numbers or texts is expected, got {y.dtype} {y.shape}")
    if task.ndim > 1 or task.dtype.kind not in "iu":
        raise InputError(
            f"experience {number}: task [n] of whole numbers, or one, is expected, got {task.dtype} {task.shape}"
        )
    if len({len(y), *x.shape[:1], *task.shape}) > 1 or not x.ndim:
        raise InputError(
            f"experience {number}: x, y and task of one length are expected, got {x.shape}, {y.shape}, {task.shape}"
        )
    return np.moveaxis(x, 1, -1) if channels_first else x, y, np.broadcast_to(task, y.shape)
