"""Training: one jitted function runs a chunk of steps, and is called until the task is learned.

The optimized parameters are a dict of the same form as those of a state, `{"mixed": ..., "categories": {TASK:
subtrees}}`, with the task's subtrees stacked along a leading axis.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from lifelong_cvae import sharding
from lifelong_cvae.config import LearningConfig
from lifelong_cvae.model.networks import Networks
from lifelong_cvae.stacked import NOT_USED_IN_TRAINING, stack_subtrees
from lifelong_cvae.state import LifelongState
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
from lifelong_cvae.training.optimizer import make_optimizer
from lifelong_cvae.training.teacher import Teacher, sample_replay

T = TypeVar("T")


class TrainCarry(NamedTuple):
    """State of the optimization."""

    params: dict[str, Any]
    opt_state: optax.OptState
    step: jax.Array  # scalar


class TaskProgress(NamedTuple):
    """State of a task after a chunk of steps, from which `learn` can resume."""

    names: tuple[str, ...]
    carry: TrainCarry
    terms: dict[str, float]  # loss terms in nats per image, mean over the chunk
    seconds: float  # time spent on the task
    losses: dict[str, float]  # term `real` of each category in its last chunk

    @property
    def steps(self) -> int:
        """Number of completed steps."""
        return int(self.carry.step)


# Called after every chunk with the task's progress and its total number of steps.
ProgressFn = Callable[[TaskProgress, int], None]


@partial(jax.jit, static_argnames=("networks", "learning", "train_mixed", "mesh"))
def train_chunk(
    carry: TrainCarry,
    data: TaskData,
    replay: ReplayData | None = None,
    *,
    networks: Networks,
    learning: LearningConfig,
    train_mixed: bool,
    mesh: Mesh | None = None,
) -> tuple[TrainCarry, Terms, jax.Array]:
    """Runs `learning.steps_per_call` training steps.

    How earlier parameters stay frozen:

    - Subtrees of earlier categories are not in `carry.params` at all, so they get no gradients and no moments, and a
      step costs the same for any number of categories. A masked step over the whole parameter dict gives the same
      update (`tests/training/test_learn.py::test_train_chunk_equals_masked_steps_over_whole_dict`).
    - Among the parameters in `carry.params`, the optax mask freezes the mixed part (if `train_mixed` is False) and
      the parts that are fitted after training.
    - `stop_gradient` on a frozen mixed part only saves the time to compile gradients that the mask would discard.

    Args:
        carry: parameters and optimizer state.
        data: the task.
        replay: replayed pairs of earlier categories, which are not differentiated; None without replay.
        networks: modules.
        learning: settings.
        train_mixed: whether the mixed part is trained.
        mesh: devices that share each batch. All of them hold the whole carry.

    Returns:
        The carry, each loss term `[steps]`, that of real images `[steps, categories]`, and whether each parameter is
        finite, bool `[leaves]`.
    """
    optimizer = make_optimizer(learning, carry.params, (TASK,), data.total_steps, train_mixed=train_mixed)

    def sample_noise(step: jax.Array) -> tuple[StepNoise, ReplayNoise | None]:
        noise = sample_step_noise(data, step, networks=networks, learning=learning)
        if replay is None:
            return noise, None
        return noise, sample_replay_noise(replay, step, groups=learning.memory_categories)

    def loss(params: dict[str, Any], noise: tuple[StepNoise, ReplayNoise | None]) -> tuple[jax.Array, Terms]:
        if not train_mixed:
            params = {**params, "mixed": jax.lax.stop_gradient(params["mixed"])}
        total, terms = real_loss(params, data, noise[0], networks=networks, mesh=mesh)
        if replay is not None:
            weights = learning.replay_weights
            replayed, replay_terms = replay_loss(
                params["mixed"], replay, noise[1], networks=networks, weights=weights, mesh=mesh
            )
            total, terms = total + replayed, {**terms, **replay_terms}
        return total, terms

    def step(carry: TrainCarry, noise: tuple[StepNoise, ReplayNoise | None]) -> tuple[TrainCarry, Terms]:
        gradients, terms = jax.grad(loss, has_aux=True)(carry.params, noise)
        updates, opt_state = optimizer.update(gradients, carry.opt_state, carry.params)
        return TrainCarry(optax.apply_updates(carry.params, updates), opt_state, carry.step + 1), terms

    steps = carry.step + jnp.arange(learning.steps_per_call)
    # Noise is sampled for all steps at once: small random calls cost more than their arithmetic.
    carry, terms = sharding.constrain(jax.lax.scan(step, carry, jax.vmap(sample_noise)(steps)), mesh)
    return carry, terms, jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(carry.params)])


def init_carry(state: LifelongState, names: tuple[str, ...], *, train_mixed: bool) -> TrainCarry:
    """Creates the carry before the first step of the task `names`."""
    stacked = stack_subtrees(state, names, leave_out=NOT_USED_IN_TRAINING)
    params = {"mixed": state.params["mixed"], "categories": {TASK: stacked}}
    return _init_carry(params, learning=state.config.learning, train_mixed=train_mixed)


@partial(jax.jit, static_argnames=("learning", "train_mixed"))
def _init_carry(params: dict[str, Any], *, learning: LearningConfig, train_mixed: bool) -> TrainCarry:
    optimizer = make_optimizer(learning, params, (TASK,), 1, train_mixed=train_mixed)
    return TrainCarry(params, optimizer.init(params), jnp.int32(0))


def train(
    state: LifelongState,
    data: TaskData,
    teacher: Teacher,
    *,
    read_steps: Callable[[int], TaskData] | None = None,
    resume_from: TaskProgress | None = None,
    progress: ProgressFn | None = None,
    start: float = 0.0,
    mesh: Mesh | None = None,
) -> TaskProgress:
    """Runs all chunks of a task, or the remaining ones, and returns the progress at its end.

    Args:
        state: state with the task's categories.
        data: the task.
        teacher: the model before the task; names the task's categories and replays earlier ones.
        read_steps: as in `task_data.open_task_data`; None if `data` has all images.
        resume_from: progress to resume from; None starts at the first step.
        progress: called after every chunk.
        start: time at which the task began, in seconds of `time.perf_counter`.
        mesh: devices that share each batch.

    Raises:
        FloatingPointError: a loss or a parameter is not finite.
    """
    learning, total_steps, names = state.config.learning, np.asarray(data.total_steps), teacher.task
    if resume_from is None:
        resume_from = TaskProgress(names, init_carry(state, names, train_mixed=state.mixed_learns), {}, 0.0, {})
    run_chunk = partial(
        train_chunk, networks=state.training_networks, learning=learning, train_mixed=state.mixed_learns, mesh=mesh
    )
    current = resume_from._replace(carry=sharding.device_put(resume_from.carry, mesh))
    data = data if read_steps else sharding.device_put(data, mesh)

    def chunks() -> Iterator[tuple[int, tuple[TrainCarry, Terms, jax.Array]]]:
        carry, last_refresh, replay = current.carry, -1, None
        for first_step in range(current.steps, total_steps.max(), learning.steps_per_call):
            refresh = first_step // (learning.steps_per_call * learning.replay_refresh_calls)
            if refresh != last_refresh:
                last_refresh, replay = refresh, sample_replay(teacher, refresh)
            steps_data = sharding.device_put(read_steps(first_step), mesh) if read_steps else data
            result = run_chunk(carry, steps_data, replay)
            carry = result[0]
            yield first_step, result

    for first_step, (carry, terms, finite) in _one_ahead(chunks()):
        means, by_category = _mean_terms(jax.device_get(terms), names, first_step < total_steps, first_step=first_step)
        check_finite(carry.params, f"at step {first_step + learning.steps_per_call}", names, finite=finite)
        current = TaskProgress(names, carry, means, time.perf_counter() - start, {**current.losses, **by_category})
        if progress is not None:
            progress(current, int(total_steps.max()))
    return current._replace(carry=sharding.to_host(current.carry, mesh))


def _one_ahead(items: Iterable[T]) -> Iterator[T]:
    """Yields each item after the next one has been made, so that a program is always queued."""
    iterator = iter(items)
    for item in iterator:
        for following in iterator:
            yield item
            item = following
        yield item


def _mean_terms(
    terms: dict[str, np.ndarray], names: tuple[str, ...], trained: np.ndarray, *, first_step: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Averages loss terms over a chunk.

    Args:
        terms: each term `[steps]`, those of real images `[steps, categories]`.
        names: categories of the task.
        trained: whether each category is still trained, bool `[categories]`.
        first_step: first step of the chunk.

    Returns:
        Mean of each term, and mean of the term of real images by category that is still trained.

    Raises:
        FloatingPointError: a step is not finite.
    """
    terms = {term: values[:, trained] if values.ndim == 2 else values for term, values in terms.items()}
    for term, values in terms.items():
        if not np.isfinite(values).all():
            step = first_step + int(np.argmax(~np.isfinite(values).reshape(len(values), -1).all(axis=1)))
            raise FloatingPointError(f"loss term {term} is not finite at step {step} of task {', '.join(names)}")
    by_category = dict(zip(np.asarray(names)[trained].tolist(), terms["real"].mean(axis=0).tolist(), strict=True))
    return {term: float(values.mean()) for term, values in terms.items()}, by_category


def check_finite(params: Any, when: str, names: tuple[str, ...], *, finite: Any = None) -> None:
    """Raises FloatingPointError for the first parameter that is not finite.

    Args:
        params: tree of parameters.
        when: time at which they are checked, for the message.
        names: categories of the task.
        finite: whether each leaf is finite, bool `[leaves]`; default None checks them on the host.
    """
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    if finite is None:
        finite = [np.isfinite(values).all() for values in jax.device_get([values for _, values in leaves])]
    for (path, _), is_finite in zip(leaves, np.asarray(finite), strict=True):
        if not is_finite:
            parameter = jax.tree_util.keystr(path, simple=True, separator="/")
            raise FloatingPointError(f"parameter {parameter} is not finite {when} of task {', '.join(names)}")
