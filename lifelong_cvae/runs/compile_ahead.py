"""Compilation ahead: the large programs of a run are compiled in threads while images are read and learned.

A program is lowered for the shapes of the plan. JAX keeps it, so that the first call compiles nothing, and a call that
comes while it is being compiled waits for it. Programs of other shapes, and small ones, are compiled when they are
called.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import ShapeDtypeStruct

from lifelong_cvae import sampling, stacked
from lifelong_cvae.config import DETERMINISTIC_BOUNDS
from lifelong_cvae.images import batch_size, power_of_two
from lifelong_cvae.model.types import own_types
from lifelong_cvae.recognition import bounds, ridge_sums
from lifelong_cvae.ridge import features, sums, vector_sums
from lifelong_cvae.state import LifelongState, add_category
from lifelong_cvae.training import category_fits, task_data, train
from lifelong_cvae.training.losses import TaskData

# At most this many programs are compiled at once; one core is left to the run.
MAX_THREADS = 8

Lower = Callable[[], jax.stages.Lowered]


class Plan(NamedTuple):
    """Sizes of a run that are known before it learns.

    Attributes:
        names: categories of the next task.
        together: categories that are trained side by side (`learn_many`) once the mixed part does not learn;
            none if it learns in every task.
        train_count: training images of the largest of all these categories.
        test_counts: test images of each category, which are recognized category by category.
        dtype: type of the pixels.
        shown: imagined images of each category in figures; 0 if there are none.
    """

    names: tuple[str, ...]
    together: tuple[str, ...]
    train_count: int
    test_counts: tuple[int, ...]
    dtype: Any
    shown: int


@contextlib.contextmanager
def compile_ahead(state: LifelongState, plan: Plan) -> Iterator[None]:
    """Context in which the programs of a run are compiled. Leaving it drops those that have not begun.

    Args:
        state: state before the next task, without a mesh.
        plan: sizes of that task. Further tasks of similar size share its programs.
    """
    threads = max(1, min(MAX_THREADS, (os.cpu_count() or 1) - 1))
    pool, lock = ThreadPoolExecutor(threads), threading.Lock()
    try:
        with own_types():
            for lower in programs(state, plan):
                pool.submit(_compile, lower, lock)
        yield
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _compile(lower: Lower, lock: threading.Lock) -> None:
    with own_types():
        # Threads take turns in Python anyway. One after another, the programs that are needed first are lowered first.
        with lock:
            lowered = lower()
        lowered.compile()


def programs(state: LifelongState, plan: Plan) -> list[Lower]:
    """Returns functions that lower the programs, in the order in which they are needed."""
    new = _with_categories(state, (*plan.names, *plan.together))
    category_bytes = plan.train_count * new.networks.pixels * np.dtype(plan.dtype).itemsize
    # The data of larger tasks have other shapes.
    on_device = task_data.fit_on_device(category_bytes * max(len(plan.names), len(plan.together)))
    lowered = [partial(_train_chunk, new, plan, plan.names if new.mixed_learns else plan.together)] * on_device
    held_out = _held_out(new, plan)
    if new.config.closed_form.has_features:  # beside training
        for size in _sizes((plan.train_count - held_out, held_out, *plan.test_counts), *features.BATCH_SIZES):
            lowered += [partial(_extract, new, plan, size), partial(_accumulate, new, size)]
    if new.networks.fits_parts and on_device:
        lowered.append(partial(_fit_parts, new, plan))
    batches = bounds.MIN_BATCH, new.config.recognition.eval_batch_size
    lowered += [
        partial(_evidence, new, plan, size)
        for size in _sizes((held_out or plan.train_count, *plan.test_counts), *batches)
    ]
    if new.mixed_learns and plan.together and on_device:
        # After the base categories the mixed part is frozen, and training reads its activations.
        lowered.append(partial(_train_chunk, new.replace(base_categories_left=0), plan, plan.together))
    if plan.shown:
        lowered.append(partial(_imagine, new, plan))
    return lowered


def _with_categories(state: LifelongState, names: tuple[str, ...]) -> LifelongState:
    """Returns the shapes and types of a state with the categories `names`."""

    def grow(params: dict[str, Any]) -> LifelongState:
        grown = state.replace(params=params)
        for name in names:
            if name not in grown.names:
                grown = add_category(grown, name, rng=jax.random.key(0))
        return grown

    return jax.eval_shape(grow, state.params)


def _held_out(state: LifelongState, plan: Plan) -> int:
    """Returns the number of training images that are held out for calibration."""
    return int(np.count_nonzero(ridge_sums.held_out_mask(state, plan.train_count)))


def _sizes(counts: Sequence[int], smallest: int, largest: int) -> list[int]:
    """Returns the sizes of the padded batches of so many images, without repetitions."""
    return list(dict.fromkeys(batch_size(count, smallest, largest) for count in counts if count))


def _shapes(function: Callable[[LifelongState], Any], state: LifelongState) -> Any:
    """Returns the shapes and types of a function's result."""
    return jax.eval_shape(lambda params: function(state.replace(params=params)), state.params)


def _task_data(state: LifelongState, plan: Plan, names: tuple[str, ...], *, train_mixed: bool) -> TaskData:
    rows = power_of_two(plan.train_count - _held_out(state, plan), task_data.MIN_ROWS)
    categories, networks = len(names), state.training_networks
    images = ShapeDtypeStruct((categories, rows, networks.pixels), plan.dtype)
    activations = None
    if state.config.has_mixed and not train_mixed:
        encode = partial(task_data.encoder_activations, networks=networks)
        activations = jax.eval_shape(encode, state.params["mixed"], images)
    rngs = jax.eval_shape(stacked.fold_in_rows, jax.random.key(0), ShapeDtypeStruct((categories, 3), np.uint32))
    numbers = ShapeDtypeStruct((categories,), np.int32)
    return TaskData(images, numbers, rngs, numbers, activations)


def _train_chunk(state: LifelongState, plan: Plan, names: tuple[str, ...]) -> jax.stages.Lowered:
    train_mixed = state.mixed_learns
    carry = _shapes(partial(train.init_carry, names=names, train_mixed=train_mixed), state)
    return train.train_chunk.lower(
        carry,
        _task_data(state, plan, names, train_mixed=train_mixed),
        None,
        networks=state.training_networks,
        learning=state.config.learning,
        train_mixed=train_mixed,
        mesh=None,
    )


def _fit_parts(state: LifelongState, plan: Plan) -> jax.stages.Lowered:
    stack = partial(stacked.stack_subtrees, names=plan.names, leave_out=stacked.NOT_USED_IN_TRAINING)
    return category_fits.fit_parts.lower(
        state.params["mixed"],
        _shapes(stack, state),
        _task_data(state, plan, plan.names, train_mixed=True),
        networks=state.networks,
        with_contrast=state.config.network.sample_style != "mean",
    )


def _accumulate(state: LifelongState, size: int) -> jax.stages.Lowered:
    width = ridge_sums.num_features(state)
    if state.standardization is None:
        totals = jax.eval_shape(partial(sums.zero_totals, width))
        return sums.accumulate.lower(totals, ShapeDtypeStruct((size, width), np.int8), ShapeDtypeStruct((), np.int32))
    with jax.enable_x64(True):
        totals = jax.eval_shape(partial(vector_sums.zero_totals, width, 1))  # of a task of one category
        phi = ShapeDtypeStruct((size, width), np.float32)
        category, factors = (ShapeDtypeStruct((size,), dtype) for dtype in (np.int32, np.float32))
        return vector_sums.accumulate.lower(totals, phi, category, factors)


def _extract(state: LifelongState, plan: Plan, size: int) -> jax.stages.Lowered:
    settings, shape = state.config.closed_form, state.image_shape
    expand = jax.eval_shape(partial(features.expansion_matrix, settings, shape))
    batch = ShapeDtypeStruct((size, state.networks.pixels), plan.dtype)
    dictionary = ridge_sums.dictionary(state)
    return features.extract_batch.lower(dictionary, expand, batch, image_shape=shape, settings=settings)


def _evidence(state: LifelongState, plan: Plan, size: int) -> jax.stages.Lowered:
    settings = state.config.recognition
    batch = ShapeDtypeStruct((size, state.networks.pixels), plan.dtype)
    stack = partial(stacked.stack_categories, names=plan.names, capacity=stacked.group_capacity(state))
    rng = None if settings.bound in DETERMINISTIC_BOUNDS else jax.eval_shape(jax.random.key, 0)
    return bounds.batch_evidence.lower(
        state.params["mixed"], _shapes(stack, state), batch, rng, networks=state.networks, settings=settings, mesh=None
    )


def _imagine(state: LifelongState, plan: Plan) -> jax.stages.Lowered:
    stack = _shapes(partial(stacked.stack_categories, names=plan.names, capacity=state.capacity), state)
    rngs = jax.eval_shape(partial(stacked.category_rngs, names=plan.names, capacity=stack.capacity), jax.random.key(0))
    return sampling.imagine_stacked.lower(
        state.params["mixed"], stack, rngs, networks=state.networks, count=plan.shown, cycles=0, mesh=None
    )
