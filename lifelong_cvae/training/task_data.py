"""Training data of tasks on the device: images of all their categories, or those of a few steps."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.config import LearningConfig
from lifelong_cvae.images import aligned_zeros, power_of_two, to_float, unify_types
from lifelong_cvae.model import cvae
from lifelong_cvae.model.networks import Networks
from lifelong_cvae.model.rows import blocks
from lifelong_cvae.stacked import fold_in_rows
from lifelong_cvae.state import LifelongState, name_hash
from lifelong_cvae.training.losses import TaskData, draw_images

# Images are padded to a power of two of at least this many rows.
MIN_ROWS = 1024
# Images of a task that take more bytes stay where they are, and are read for each call of the train function.
DEVICE_BYTES = 2**31
# Of such a task so many images of each category, spread evenly, serve the fits after training.
SPREAD_IMAGES = 4096

# From the first step of a call to the data of its steps.
ReadSteps = Callable[[int], TaskData]


def open_task_data(
    state: LifelongState, *tasks: Mapping[str, Any], rng: jax.Array
) -> tuple[TaskData, ReadSteps | None]:
    """Puts tasks on the device, or returns how to read the images of each call if they are too large.

    Training is the same but for rounding in both cases. The fits after it read the data that are returned: all
    images, or at most `SPREAD_IMAGES` of each category.

    Args:
        state: as in `make_task_data`.
        *tasks: as in `make_task_data`; images are arrays or `Rows`.
        rng: the seed's key.
    """
    if fit_on_device(sum(rows.nbytes for task in tasks for rows in task.values())):
        return make_task_data(state, *tasks, rng=rng), None
    images = unify_types({name: rows for task in tasks for name, rows in task.items()})
    spread = [{name: images[name][_spread(len(images[name]))] for name in task} for task in tasks]
    steps = [_count_steps(state, task) for task in tasks for _ in task]
    data = make_task_data(state, *spread, rng=rng)._replace(total_steps=np.asarray(steps, np.int32))
    whole = data._replace(counts=np.asarray([len(rows) for rows in images.values()], np.int32))
    return data, partial(_read_steps, state, list(images.values()), whole)


def fit_on_device(size: int) -> bool:
    """Returns whether the images of tasks, `size` bytes, are put on the device all at once."""
    return size <= DEVICE_BYTES


def _read_steps(state: LifelongState, images: Sequence[Any], data: TaskData, first_step: int) -> TaskData:
    """Reads the images of the steps of a call, in the order of the array they are in."""
    learning = state.config.learning
    drawn = np.asarray(_draw_steps(data.counts, data.rngs, first_step, learning=learning))
    rows = aligned_zeros((*drawn.shape, images[0].shape[1]), images[0].dtype)
    for part, index, category in zip(rows, drawn, images, strict=True):
        order = np.argsort(index, kind="stable")
        part[order] = category[index[order]]
    read = jax.device_put(rows)
    activations = None if data.mixed_activations is None else _activations(state, read)
    return data._replace(images=read, mixed_activations=activations, first_step=np.int32(first_step))


@partial(jax.jit, static_argnames="learning")
def _draw_steps(counts: jax.Array, rngs: jax.Array, first_step: jax.Array, *, learning: LearningConfig) -> jax.Array:
    """Draws the images of the steps of a call: indices `[categories, steps * batch]`."""
    steps = first_step + jnp.arange(learning.steps_per_call)

    def draw(count: jax.Array, rng: jax.Array) -> jax.Array:
        return jax.vmap(lambda step: draw_images(count, rng, step, learning.batch_size))(steps).ravel()

    return jax.vmap(draw)(counts, rngs)


def _spread(count: int) -> np.ndarray:
    """Returns the indices of `SPREAD_IMAGES` of `count` images, or of all."""
    used = min(count, SPREAD_IMAGES)
    return np.arange(used) * count // used


def make_task_data(state: LifelongState, *tasks: Mapping[str, Any], rng: jax.Array) -> TaskData:
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
    steps = [_count_steps(state, task) for task in tasks for _ in task]
    return TaskData(
        images=padded,
        counts=np.asarray([len(rows) for rows in images.values()], np.int32),
        rngs=rngs,
        total_steps=np.asarray(steps, np.int32),
        mixed_activations=_activations(state, padded) if frozen else None,
    )


def _activations(state: LifelongState, images: jax.Array) -> Any:
    return encoder_activations(state.params["mixed"], images, networks=state.training_networks)


def _stack_padded(images: Sequence[Any], length: int) -> jax.Array:
    """Copies images, `[n, pixels]` each, once: `[categories, length, pixels]`."""
    padded = aligned_zeros((len(images), length, images[0].shape[1]), images[0].dtype)
    for part, rows in zip(padded, images, strict=True):
        for block in blocks(rows):
            values = rows[block]
            part[block.start : block.start + len(values)] = values
    return jax.device_put(padded)


def _count_steps(state: LifelongState, task: Mapping[str, Any]) -> int:
    return count_steps(state.config.learning, max(map(len, task.values())))


def count_steps(settings: LearningConfig, largest: int) -> int:
    """Returns the training steps, whole chunks, of a task whose largest category has `largest` images."""
    steps = max(settings.min_steps, settings.epochs * math.ceil(largest / settings.batch_size), 1)
    return math.ceil(steps / settings.steps_per_call) * settings.steps_per_call


@partial(jax.jit, static_argnames="networks")
def encoder_activations(mixed: Any, images: jax.Array, *, networks: Networks) -> Any:
    """Computes the encoder's mixed activations of images `[categories, rows, pixels]`, in blocks."""
    model = cvae.CategoryModel(mixed, {}, networks)
    parts = images.reshape(-1, math.gcd(images.shape[1], MIN_ROWS), images.shape[-1])
    activations = jax.lax.map(lambda rows: cvae.mixed_activations(model, "encoder", to_float(rows)), parts)
    return jax.tree.map(lambda leaf: leaf.reshape(*images.shape[:2], -1), activations)


def select_categories(data: TaskData, first: int, count: int) -> TaskData:
    """Returns the data of `count` categories from the one at index `first` on."""
    return data if len(data.total_steps) == count else _select(data, first, count=count)


@partial(jax.jit, static_argnames="count")
def _select(data: TaskData, first: jax.Array, *, count: int) -> TaskData:
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, count), data)
