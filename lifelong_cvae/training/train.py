"""Training: one jitted function that runs a chunk of steps, again and again until the task is learned.

What is optimized is itself a parameter dict, `{"mixed": ..., "categories": {TASK: subtrees}}`, with the
task's subtrees stacked along a leading axis. Earlier categories are an argument of the jitted function only
where they are played back, and then one that is neither differentiated nor donated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from lifelong_cvae import sharding
from lifelong_cvae.config import LearningConfig
from lifelong_cvae.model.networks import Networks
from lifelong_cvae.stacked import NOT_USED_IN_TRAINING, stack_subtrees
from lifelong_cvae.state import LifelongState, freeze_mask
from lifelong_cvae.training.losses import (
    TASK,
    ReplayData,
    ReplayNoise,
    StepNoise,
    TaskData,
    Terms,
    real_loss,
    replay_loss,
    sample_replay_noise,
    sample_step_noise,
)
from lifelong_cvae.training.teacher import Teacher


class TrainCarry(NamedTuple):
    """What changes from step to step; donated."""

    params: dict[str, Any]
    optimizer: optax.OptState
    step: jax.Array  # scalar


class TaskProgress(NamedTuple):
    """Where a task is after a chunk of steps: what `learn` can go on with.

    `carry` is donated to the next chunk: whoever keeps it takes a copy.
    """

    names: tuple[str, ...]
    carry: TrainCarry
    terms: dict[str, float]  # loss terms in nats per image, mean over the chunk
    seconds: float  # that the task has taken so far

    @property
    def steps(self) -> int:
        """Steps that are done."""
        return int(self.carry.step)


# Called after every chunk with where the task is, and the number of its steps.
ProgressFn = Callable[[TaskProgress, int], None]


def make_optimizer(
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

    labels = freeze_mask(params, names, train_mixed=train_mixed)
    return optax.partition({"train": optax.adam(schedule), "freeze": optax.set_to_zero()}, labels)


@partial(jax.jit, static_argnames=("networks", "learning", "train_mixed", "mesh"), donate_argnames="carry")
def train_chunk(
    carry: TrainCarry,
    data: TaskData,
    past: ReplayData | None = None,
    *,
    networks: Networks,
    learning: LearningConfig,
    train_mixed: bool,
    mesh: Mesh | None = None,
) -> tuple[TrainCarry, Terms]:
    """Runs `learning.steps_per_call` steps; returns the new carry and each loss term `[steps]`.

    Devices of a mesh share each batch, and hold the same carry.
    """
    transform = make_optimizer(learning, carry.params, (TASK,), data.total_steps, train_mixed=train_mixed)

    def drawn(step: jax.Array) -> tuple[StepNoise, ReplayNoise | None]:
        sizes = {"batch_size": learning.batch_size, "latent_size": networks.latent_size}
        again = None if past is None else sample_replay_noise(past, step, groups=learning.memory_categories)
        return sample_step_noise(data, step, **sizes), again

    def loss(params: dict[str, Any], drawn: tuple[StepNoise, ReplayNoise | None]) -> tuple[jax.Array, Terms]:
        if not train_mixed:  # its gradients would be traced and compiled for nothing
            params = {**params, "mixed": jax.lax.stop_gradient(params["mixed"])}
        total, terms = real_loss(params, data, drawn[0], networks=networks, mesh=mesh)
        if past is not None:
            weights = learning.replay_weights
            more, past_terms = replay_loss(
                params["mixed"], past, drawn[1], networks=networks, weights=weights, mesh=mesh
            )
            total, terms = total + more, {**terms, **past_terms}
        return total, terms

    def step(carry: TrainCarry, drawn: tuple[StepNoise, ReplayNoise | None]) -> tuple[TrainCarry, Terms]:
        gradients, terms = jax.grad(loss, has_aux=True)(carry.params, drawn)
        updates, optimizer_state = transform.update(gradients, carry.optimizer, carry.params)
        return TrainCarry(optax.apply_updates(carry.params, updates), optimizer_state, carry.step + 1), terms

    steps = carry.step + jnp.arange(learning.steps_per_call)
    return sharding.constrain(jax.lax.scan(step, carry, jax.vmap(drawn)(steps)), mesh)


def init_carry(state: LifelongState, names: tuple[str, ...], *, train_mixed: bool) -> TrainCarry:
    """The carry before the first step: copies, since it is donated."""
    stacked = stack_subtrees(state, names, left_out=NOT_USED_IN_TRAINING)
    params = {"mixed": jax.tree.map(jnp.copy, state.params["mixed"]), "categories": {TASK: stacked}}
    moments = make_optimizer(state.config.learning, params, (TASK,), 1, train_mixed=train_mixed).init(params)
    return TrainCarry(params, moments, jnp.int32(0))


def train(
    state: LifelongState,
    names: tuple[str, ...],
    data: TaskData,
    teacher: Teacher,
    *,
    resume_from: TaskProgress | None,
    progress: ProgressFn | None,
    start: float,
    mesh: Mesh | None = None,
) -> TaskProgress:
    """Runs all chunks of a task, or those that are left.

    Args:
        state: with the task's categories.
        names: of the task.
        data: of the task.
        teacher: remembers the earlier categories.
        resume_from: where to go on from; None: from the beginning.
        progress: called after every chunk.
        start: when the task began, in seconds of `time.perf_counter`.
        mesh: devices that share each batch.

    Returns:
        Where the task is at its end.

    Raises:
        FloatingPointError: a loss or a parameter that is not finite.
    """
    learning, total = state.config.learning, int(data.total_steps)
    if resume_from is None:
        resume_from = TaskProgress(names, init_carry(state, names, train_mixed=state.mixed_learns), {}, 0.0)
    else:  # a copy, since it is donated
        resume_from = resume_from._replace(carry=jax.tree.map(jnp.copy, resume_from.carry))
    run = partial(
        train_chunk,
        networks=state.training_networks,
        learning=learning,
        train_mixed=state.mixed_learns,
        mesh=mesh,
    )
    resume_from, data = (
        resume_from._replace(carry=sharding.device_put(resume_from.carry, mesh)),
        sharding.device_put(data, mesh),
    )
    remembered, past = -1, None
    for done in range(resume_from.steps, total, learning.steps_per_call):
        refresh = done // (learning.steps_per_call * learning.replay_refresh_calls)
        if refresh != remembered:
            remembered, past = refresh, teacher.remember(refresh)
        carry, terms = run(resume_from.carry, data, past)
        means = _mean_terms(jax.device_get(terms), names, first_step=done)
        check_finite(carry.params, f"at step {done + learning.steps_per_call}", names)
        resume_from = TaskProgress(names, carry, means, time.perf_counter() - start)
        if progress is not None:
            progress(resume_from, total)
    return resume_from._replace(carry=sharding.to_host(resume_from.carry, mesh))


def _mean_terms(terms: dict[str, np.ndarray], names: tuple[str, ...], *, first_step: int) -> dict[str, float]:
    for term, values in terms.items():
        if not np.isfinite(values).all():
            step = first_step + int(np.argmax(~np.isfinite(values)))
            task = ", ".join(names)
            raise FloatingPointError(f"loss term {term} is not finite at step {step} of task {task}")
    return {term: float(values.mean()) for term, values in terms.items()}


def check_finite(params: Any, when: str, names: tuple[str, ...]) -> None:
    """Raises FloatingPointError for the first parameter that is not finite, which the host looks for."""
    for path, values in jax.tree_util.tree_flatten_with_path(jax.device_get(params))[0]:
        if not np.isfinite(values).all():
            place = jax.tree_util.keystr(path, simple=True, separator="/")
            raise FloatingPointError(f"parameter {place} is not finite {when} of task {', '.join(names)}")
