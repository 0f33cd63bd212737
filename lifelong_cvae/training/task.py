"""A task: its images, checked and flattened to rows."""

import logging
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from lifelong_cvae.errors import InputError
from lifelong_cvae.images import PixelValues, Shape, find_max_value, pixel_values, unify_types
from lifelong_cvae.model.rows import Rows
from lifelong_cvae.model.vectors import check_vectors, fit_standardization, is_vector
from lifelong_cvae.recognition import ridge_sums
from lifelong_cvae.state import LifelongState, check_name, find_name
from lifelong_cvae.training.train import TaskProgress

# Per category: parameters learned from a single image would be that image.
MIN_IMAGES = 2

_logger = logging.getLogger("lifelong_cvae")


class Task(NamedTuple):
    """Checked images of a task, by category, as rows `[n, pixels]`."""

    images: dict[str, np.ndarray]
    train_images: dict[str, Rows]  # without those that are held out for calibration

    @property
    def names(self) -> tuple[str, ...]:
        """Categories of the task, in the order given."""
        return tuple(self.images)


def fix_values(state: LifelongState, images: Mapping[str, Any]) -> LifelongState:
    """Returns the state with the value of white, or the standardization, that its first task fixes.

    See `images.find_max_value` and `model.vectors`.

    Raises:
        InputError: the values of pixels leave more than one possibility, or vectors are not finite numbers `[n, d]`.
    """
    if state.names or state.max_value is not None:
        return state
    if state.standardization is not None:
        checked = [check_vectors(values, state.image_shape) for values in images.values()]
        if not checked or not all(map(len, checked)) or bool(state.standardization["given"]):
            return state
        fitted = fit_standardization(np.concatenate(checked))
        return state.replace(params={**state.params, "standardization": fitted})
    arrays = [np.asarray(values) for values in images.values()]
    if not arrays or not all(values.size for values in arrays):
        return state
    return state.replace(max_value=find_max_value(reduce(PixelValues.merge, map(pixel_values, arrays))))


def check_tasks(
    state: LifelongState, tasks: Sequence[Mapping[str, Any]], *, resume_from: TaskProgress | None = None
) -> list[Task]:
    """Checks names and images of tasks that are trained together, as `check_task` does.

    Raises:
        InputError: as in `learn` and `learn_many`.
    """
    checked = [check_task(state, images) for images in tasks]
    names = [name for task in checked for name in task.names]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"images: expected each category once, got {name!r} twice")
    if resume_from and resume_from.names != tuple(names):
        expected, got = ", ".join(resume_from.names), ", ".join(names)
        raise InputError(f"resume_from: expected images of its task {expected}, got images of {got}")
    return checked


def check_task(state: LifelongState, images: Mapping[str, Any]) -> Task:
    """Checks names and images, flattens images to rows, and holds some out for calibration.

    Images of a category that are all the same, or each of one color only, are logged as a warning.

    Raises:
        InputError: as in `learn`.
    """
    if not images:
        raise InputError("images: expected at least one category, got none")
    rows = {}
    for given, values in images.items():
        name = find_name(state, check_name(given))
        what = f"images of category {name!r}"
        if name in rows:
            raise InputError(f"images: expected each category once, got {name!r} twice")
        rows[name] = state.rows(values, what=what)
        if len(rows[name]) < MIN_IMAGES:
            raise InputError(f"{what}: expected at least {MIN_IMAGES}, got {len(rows[name])}")
        if oddity := describe_oddity(rows[name], state.image_shape):
            _logger.warning("%s: %s", what, oddity)
    rows = unify_types(rows)
    train_rows = {
        name: Rows(values, np.flatnonzero(~ridge_sums.held_out_mask(state, len(values))))
        for name, values in rows.items()
    }
    return Task(rows, train_rows)


def describe_oddity(rows: np.ndarray, shape: Shape) -> str:
    """Returns what is odd about images `[n, h * w * c]` or vectors `[n, d]`; empty if nothing is."""
    # Row by row, which ends at the first one that is as expected and needs no memory.
    if all(np.array_equal(row, rows[0]) for row in rows):
        return f"all are the same {'vector' if is_vector(shape) else 'image'}"
    if is_vector(shape):
        return ""
    pixels = rows.reshape(len(rows), -1, shape[-1])
    return "each is of one color only" if all((image == image[:1]).all() for image in pixels) else ""
