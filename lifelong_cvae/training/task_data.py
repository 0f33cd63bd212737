"""Training data of tasks on the device: images of all their categories, padded to one number of rows."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from lifelong_cvae.config import LearningConfig
from lifelong_cvae.images import aligned_zeros, power_of_two, to_float, unify_types
from lifelong_cvae.model import cvae
from lifelong_cvae.model.networks import Networks
from lifelong_cvae.stacked import fold_in_rows
from lifelong_cvae.state import LifelongState, name_hash
from lifelong_cvae.training.losses import TaskData

# Images are padded to a power of two of at least this many rows.
MIN_ROWS = 1024


def make_task_data(state: LifelongState, *tasks: Mapping[str, np.ndarray], rng: jax.Array) -> TaskData:
    """Puts the images `[n, pixels]` of tasks on the device, padded to a common power of two of rows.

    Args:
        state: state that knows the categories of the tasks.
        *tasks: training images by category. Each category belongs to one task, and gets as many steps as the largest
            category of its task needs.
        rng: the seed's key.
    """
    # Those of revisited categories are floats, since they include replayed images.
    images = unify_types({name: rows for task in tasks for name, rows in task.items()})
    length = power_of_two(max(map(len, images.values())), MIN_ROWS)
    # For each category its `category_rng`, with 1 folded in.
    rngs = fold_in_rows(rng, np.asarray([(name_hash(name), state.visit(name), 1) for name in images], np.uint32))
    padded = _stack_padded(list(images.values()), length)
    # A frozen mixed part gives the same activations in every step: they are computed once.
    frozen = state.config.has_mixed and not state.mixed_learns
    mixed, networks = state.params["mixed"], state.training_networks
    steps = [count_steps(state.config.learning, max(map(len, task.values()))) for task in tasks for _ in task]
    return TaskData(
        images=padded,
        counts=np.asarray([len(rows) for rows in images.values()], np.int32),
        rngs=rngs,
        total_steps=np.asarray(steps, np.int32),
        mixed_activations=encoder_activations(mixed, padded, networks=networks) if frozen else None,
    )


def _stack_padded(images: Sequence[np.ndarray], length: int) -> jax.Array:
    """Copies images, `[n, pixels]` each, once: `[categories, length, pixels]`."""
    padded = aligned_zeros((len(images), length, images[0].shape[1]), images[0].dtype)
    for part, rows in zip(padded, images, strict=True):
        part[: len(rows)] = rows
    return jax.device_put(padded)


def count_steps(settings: LearningConfig, largest: int) -> int:
    """Returns the training steps, whole chunks, of a task whose largest category has `largest` images."""
    steps = max(settings.min_steps, settings.epochs * math.ceil(largest / settings.batch_size), 1)
    return math.ceil(steps / settings.steps_per_call) * settings.steps_per_call


@partial(jax.jit, static_argnames="networks")
def encoder_activations(mixed: Any, images: jax.Array, *, networks: Networks) -> Any:
    """Computes the encoder's mixed activations of images `[categories, rows, pixels]`, in blocks."""
    model = cvae.CategoryModel(mixed, {}, networks)
    blocks = images.reshape(-1, MIN_ROWS, images.shape[-1])
    activations = jax.lax.map(lambda rows: cvae.mixed_activations(model, "encoder", to_float(rows)), blocks)
    return jax.tree.map(lambda leaf: leaf.reshape(*images.shape[:2], -1), activations)


def select_categories(data: TaskData, first: int, count: int) -> TaskData:
    """Returns the data of `count` categories from the one at index `first` on."""
    return data if len(data.total_steps) == count else _select(data, first, count=count)


@partial(jax.jit, static_argnames="count")
def _select(data: TaskData, first: jax.Array, *, count: int) -> TaskData:
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, count), data)
