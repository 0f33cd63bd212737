"""Learning a task: grow, remember, train by one jitted function that runs a chunk of steps, settle.

What is optimised is itself a parameter dict, `{"mixed": ..., "categories": {TASK: subtrees}}`,
with the task's subtrees stacked along a leading axis. Earlier categories are an argument of the jitted
function only where they are played back, and then one that is neither differentiated nor donated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lifelong_cvae import closed_form, compilations, growth, recognition, settling, stacking
from lifelong_cvae.config import LearningConfig
from lifelong_cvae.errors import InputError
from lifelong_cvae.growth import LifelongState
from lifelong_cvae.images import as_rows, mean_image, pad_rows, power_of_two
from lifelong_cvae.losses import TASK, Past, TaskData, Terms, past_loss, task_loss
from lifelong_cvae.networks import Networks
from lifelong_cvae.teacher import Teacher, with_own_memory

MINIMUM_ROWS = 1024


class Report(NamedTuple):
    """What learning a task took and gave."""

    names: tuple[str, ...]
    steps: int
    terms: dict[str, float]  # loss terms (see losses.py), mean over the last chunk
    seconds: float
    images_per_second: float  # real images in training steps
    compilations: int  # of the train step
    parameters_per_category: int


class Carry(NamedTuple):
    """What changes from step to step; donated."""

    params: dict[str, Any]
    optimiser: optax.OptState
    step: jax.Array  # scalar


# Called after every chunk with: steps done, steps of the task, loss terms (nats per image).
Progress = Callable[[int, int, dict[str, float]], None]


def optimiser(
    learning: LearningConfig,
    params: dict[str, Any],
    names: tuple[str, ...],
    total_steps: Any,
    *,
    train_mixed: bool,
) -> optax.GradientTransformation:
    """Adam with a cosine schedule for what learns; zero updates, and no moments, for the rest.

    Args:
        learning: peak of the schedule.
        params: a parameter dict, whole or with the task's categories alone.
        names: the categories that learn.
        total_steps: length of the schedule; may be traced.
        train_mixed: whether the mixed part learns.
    """

    def schedule(step: jax.Array) -> jax.Array:
        return learning.learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * step / total_steps))

    labels = growth.labels(params, names, train_mixed=train_mixed)
    return optax.partition({"train": optax.adam(schedule), "freeze": optax.set_to_zero()}, labels)


@partial(jax.jit, static_argnames=("networks", "learning", "train_mixed"), donate_argnames="carry")
def train_chunk(
    carry: Carry,
    data: TaskData,
    past: Past | None = None,
    *,
    networks: Networks,
    learning: LearningConfig,
    train_mixed: bool,
) -> tuple[Carry, Terms]:
    """Runs `learning.chunk_steps` steps; returns the new carry and each loss term `[steps]`."""
    transform = optimiser(learning, carry.params, (TASK,), data.total_steps, train_mixed=train_mixed)

    def loss(params: dict[str, Any], step: jax.Array) -> tuple[jax.Array, Terms]:
        total, terms = task_loss(params, data, step, networks=networks, batch_size=learning.batch_size)
        if past is not None:
            groups, weights = learning.memory_categories, learning.memory_weights
            more, past_terms = past_loss(
                params["mixed"], past, step, networks=networks, groups=groups, weights=weights
            )
            total, terms = total + more, {**terms, **past_terms}
        return total, terms

    def step(carry: Carry, _: None):
        gradients, terms = jax.grad(loss, has_aux=True)(carry.params, carry.step)
        updates, optimiser_state = transform.update(gradients, carry.optimiser, carry.params)
        return Carry(optax.apply_updates(carry.params, updates), optimiser_state, carry.step + 1), terms

    return jax.lax.scan(step, carry, length=learning.chunk_steps)


def learn(
    state: LifelongState, images: Mapping[str, Any], *, rng: jax.Array, progress: Progress | None = None
) -> tuple[LifelongState, Report]:
    """Learns one task: one category or several at once. New names grow, known ones are thawed.

    Args:
        state: what is known so far; stays as it is.
        images: category name to its images, uint8 or float in [0, 1], `[n, h, w, c]`, or
            `[n, h, w]` for one channel.
        rng: the seed's key; pass the same one to every task, each category draws its own from it.
        progress: called after every chunk of steps.

    Returns:
        The state with the task learned, and a report.

    Raises:
        InputError: a bad name, no category, or images of a wrong type, shape or range.
        FloatingPointError: a loss that is not finite; says which, in which task, at which step.
    """
    start = time.perf_counter()
    rows = _check_task(state, images)
    trained_on = {name: values[~closed_form.held_out(state, len(values))] for name, values in rows.items()}
    names = tuple(rows)
    grown = state
    for name in names:
        if name not in state.names:
            grown = growth.grow(grown, name, jnp.asarray(mean_image(trained_on[name])), rng=rng)
    data = task_data(grown, with_own_memory(state, trained_on, rng=rng), rng=rng)
    teacher = Teacher(grown, names, rng=rng)
    with compilations.counted("train_chunk") as compiled:
        params, terms = _train(grown, names, data, teacher, progress=progress)
    new = len(set(names) - set(state.names))
    learned = _absorb(closed_form.add(grown, rows, rng=rng), names, params, data, teacher, new=new)
    learned = recognition.calibrate(growth.count_images(learned, rows), rows, rng=rng)
    seconds = time.perf_counter() - start
    steps = int(data.total_steps)
    return learned, Report(
        names=names,
        steps=steps,
        terms=terms,
        seconds=seconds,
        images_per_second=steps * state.config.learning.batch_size * len(names) / seconds,
        compilations=compiled.count,
        parameters_per_category=growth.parameters_per_category(state),
    )


def _check_task(state: LifelongState, images: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if not images:
        raise InputError("no category to learn: a dict of one or more names with their images is expected")
    rows = {}
    for name, values in images.items():
        growth.check_name(name)
        rows[name] = as_rows(values, state.image_shape, what=f"images of category {name!r}")
        if not len(rows[name]):
            raise InputError(f"images of category {name!r}: at least one image is expected, got none")
    return rows


def task_data(state: LifelongState, rows: dict[str, np.ndarray], *, rng: jax.Array) -> TaskData:
    """Images `[n, pixels]` of a task's categories, all known, on the device and padded."""
    learning = state.config.learning
    largest = max(map(len, rows.values()))
    steps = max(learning.min_steps, learning.epochs * math.ceil(largest / learning.batch_size), 1)
    chunks = math.ceil(steps / learning.chunk_steps)
    length = power_of_two(largest, MINIMUM_ROWS)
    rngs = [jax.random.fold_in(growth.category_rng(rng, name, state.visit(name)), 1) for name in rows]
    return TaskData(
        images=jnp.asarray(np.stack([pad_rows(values, length) for values in rows.values()])),
        counts=jnp.asarray([len(values) for values in rows.values()], jnp.int32),
        rngs=jnp.stack(rngs),
        total_steps=jnp.int32(chunks * learning.chunk_steps),
    )


def start_carry(state: LifelongState, names: tuple[str, ...], *, train_mixed: bool) -> Carry:
    """The carry before the first step: copies, since it is donated."""
    stacked = stacking.stack_subtrees(state, names, left_out=stacking.NOT_TRAINED_WITH)
    params = {"mixed": jax.tree.map(jnp.copy, state.params["mixed"]), "categories": {TASK: stacked}}
    moments = optimiser(state.config.learning, params, (TASK,), 1, train_mixed=train_mixed).init(params)
    return Carry(params, moments, jnp.int32(0))


def _train(
    state: LifelongState,
    names: tuple[str, ...],
    data: TaskData,
    teacher: Teacher,
    *,
    progress: Progress | None,
) -> tuple[dict[str, Any], dict[str, float]]:
    learning, total = state.config.learning, int(data.total_steps)
    carry = start_carry(state, names, train_mixed=state.mixed_learns)
    run = partial(train_chunk, networks=state.networks, learning=learning, train_mixed=state.mixed_learns)
    means: dict[str, float] = {}
    for chunk, done in enumerate(range(0, total, learning.chunk_steps)):
        if chunk % learning.refresh_chunks == 0:
            past = teacher.remember(chunk // learning.refresh_chunks)
        carry, terms = run(carry, data, past)
        means = _check_finite(jax.device_get(terms), names, first_step=done)
        if progress is not None:
            progress(done + learning.chunk_steps, total, means)
    return carry.params, means


def _check_finite(
    terms: dict[str, np.ndarray], names: tuple[str, ...], *, first_step: int
) -> dict[str, float]:
    for term, values in terms.items():
        if not np.isfinite(values).all():
            step = first_step + int(np.argmax(~np.isfinite(values)))
            task = ", ".join(names)
            raise FloatingPointError(f"loss term {term} is not finite at step {step} of task {task}")
    return {term: float(values.mean()) for term, values in terms.items()}


def _absorb(
    state: LifelongState,
    names: tuple[str, ...],
    params: dict[str, Any],
    data: TaskData,
    teacher: Teacher,
    *,
    new: int,
) -> LifelongState:
    """The state with what the task trained put in; whatever was frozen is taken from before."""
    mixed = params["mixed"] if state.mixed_learns else state.params["mixed"]
    trained = params["categories"][TASK]
    settled = settling.settle(mixed, trained, data, names, state)
    if teacher.stack is not None:
        settled |= settling.move_priors(state, mixed, teacher.stack, teacher.names, rng=teacher.rng)
    learned = stacking.unstack_subtrees(trained, names)
    categories = {
        name: {**subtree, **learned.get(name, {}), **settled.get(name, {})}
        for name, subtree in state.params["categories"].items()
    }
    visits = tuple(v + (n in names) for n, v in zip(state.names, state.visits, strict=True))
    return state.replace(
        params={**state.params, "mixed": mixed, "categories": categories},
        visits=visits,
        childhood_left=max(0, state.childhood_left - new),
    )
