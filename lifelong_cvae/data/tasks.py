"""Streams of tasks: order of the categories, and number per task."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from lifelong_cvae.data.arrays import to_labels
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import move_channels_last
from lifelong_cvae.state import check_name


def make_tasks(
    available: Sequence[str],
    *,
    categories: Sequence[str] | None = None,
    order_seed: int | None = None,
    categories_per_task: int = 1,
) -> tuple[tuple[str, ...], ...]:
    """Divides categories into the tasks of a stream.

    Args:
        available: categories of the source, in label order.
        categories: categories of the stream, in order; default all, in label order.
        order_seed: seed of a random order; None keeps the order.
        categories_per_task: categories of a task; the last task may have fewer.

    Raises:
        InputError: an unknown or repeated category, or a number out of range.
    """
    order = list(available if categories is None else map(check_name, categories))
    for name in order:
        if name not in available:
            hint = '; quote names that hold commas, as in one,"two, three"' if "," in "".join(available) else ""
            raise InputError(f"unknown category: expected one of {', '.join(available)}, got {name!r}{hint}")
        if order.count(name) > 1:
            raise InputError(f"categories: expected each one once, got {name!r} {order.count(name)} times")
    if not order:
        raise InputError("categories: expected at least one, got none")
    if categories_per_task < 1:
        raise InputError(f"categories_per_task: expected at least 1, got {categories_per_task}")
    if order_seed is not None:
        if order_seed < 0:
            raise InputError(f"order_seed: expected at least 0, got {order_seed}")
        order = [order[i] for i in np.random.default_rng(order_seed).permutation(len(order))]
    starts = range(0, len(order), categories_per_task)
    return tuple(tuple(order[start : start + categories_per_task]) for start in starts)


def from_experiences(
    experiences: Iterable[tuple[Any, Any, Any]], *, channels_first: bool = False
) -> Iterator[dict[str, np.ndarray]]:
    """Converts a benchmark of (x, y, task) arrays, for example of Avalanche, to tasks for `learn_stream`.

    Experiences are read one at a time, when their task is requested.

    Args:
        experiences: in the order of their arrival. `x` are images `[n, h, w]` or `[n, h, w, c]`, uint8 or float in
            [0, 1]; `y` labels as in `arrays.to_labels`; `task` whole numbers `[n]`, or one for all. An
            experience of several task labels gives several tasks, in ascending order of these.
        channels_first: True if `x` is `[n, c, h, w]`.

    Yields:
        Images by category, as `learn` takes them. The text of a label is the name of its category.

    Raises:
        InputError: an experience is no such triple, or its lengths differ.
    """
    for number, experience in enumerate(experiences, start=1):
        x, y, task = _check_experience(experience, number, channels_first=channels_first)
        for label in np.unique(task):
            in_task = task == label
            yield {str(name): x[in_task & (y == name)] for name in np.unique(y[in_task])}


def _check_experience(
    experience: tuple[Any, Any, Any], number: int, *, channels_first: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns `x` `[n, h, w]` or `[n, h, w, c]`, `y` `[n]` and task labels `[n]` of an experience."""
    try:
        x, y, task = map(np.asarray, experience)
    except (TypeError, ValueError) as error:
        raise InputError(f"experience {number}: expected three arrays (x, y, task), got an error ({error})") from error
    y = to_labels(y, what=f"experience {number}: y")
    if channels_first and x.ndim != 4:
        raise InputError(f"experience {number}: expected x [n, c, h, w], got {x.shape}")
    if task.ndim > 1 or task.dtype.kind not in "iu":
        raise InputError(
            f"experience {number}: expected task [n] of whole numbers, or one number, got {task.dtype} {task.shape}"
        )
    if len({len(y), *x.shape[:1], *task.shape}) > 1 or not x.ndim:
        raise InputError(
            f"experience {number}: expected x, y and task of one length, got {x.shape}, {y.shape}, {task.shape}"
        )
    x = np.moveaxis(x, 1, -1) if channels_first else move_channels_last(x) if x.ndim == 4 else x
    return x, y, np.broadcast_to(task, y.shape)
