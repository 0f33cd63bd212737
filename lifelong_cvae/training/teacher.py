"""The teacher: the model before a task, which replays earlier categories while the task is learned."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lifelong_cvae import sharding
from lifelong_cvae.images import to_float
from lifelong_cvae.stacked import NOT_USED_IN_TRAINING, StackedCategories, stack_categories
from lifelong_cvae.state import LifelongState, category_rng
from lifelong_cvae.training.losses import ReplayData
from lifelong_cvae.training.replay import recall_images, sample_memory


class Teacher(NamedTuple):
    """A frozen model and the earlier categories that it replays.

    Attributes:
        state: state before the task.
        task: categories of the task.
        names: replayed categories: the earlier ones outside the task. Empty if nothing is replayed.
        rng: key of the task's replay.
        mesh: devices that share the replayed pairs.
        mixed: mixed parameters, on the mesh. None if nothing is replayed.
        stack: the replayed categories, on the mesh. None if there are more than fit into memory: then a random
            subset is stacked at every refresh.
    """

    state: LifelongState
    task: tuple[str, ...]
    names: tuple[str, ...]
    rng: jax.Array
    mesh: Mesh | None
    mixed: Any = None
    stack: StackedCategories | None = None


def make_teacher(state: LifelongState, task: tuple[str, ...], *, rng: jax.Array, mesh: Mesh | None = None) -> Teacher:
    """Freezes `state` as the teacher of `task`.

    Replay is needed only while the mixed part learns: the subtrees of earlier categories are frozen anyway.

    Args:
        state: state that knows the task's categories.
        task: categories of the task.
        rng: the seed's key.
        mesh: devices that share the replayed pairs.
    """
    learning = state.config.learning
    needs_replay = state.mixed_learns and learning.mixed_mode != "free" and learning.replay_weights
    names = tuple(name for name in state.names if name not in task) if needs_replay else ()
    teacher_rng = jax.random.fold_in(category_rng(rng, task[0], state.visit(task[0])), 2)
    teacher = Teacher(state, task, names, teacher_rng, mesh)
    if not names:
        return teacher
    mixed = sharding.device_put(state.params["mixed"], mesh)
    fits = len(names) <= _memory_groups(state)
    return teacher._replace(mixed=mixed, stack=_stack_on_mesh(teacher, names) if fits else None)


def sample_replay(teacher: Teacher, refresh: int) -> ReplayData | None:
    """Samples a fixed number of pairs (z*, x*) of the replayed categories, or None if there is none.

    The number does not depend on the number of categories. If there are more categories than groups of pairs, a
    random subset is replayed, so the cost of a task stays constant.

    Args:
        teacher: the model before the task.
        refresh: how many times memory has been sampled before; selects the key.
    """
    if not teacher.names:
        return None
    learning, mesh = teacher.state.config.learning, teacher.mesh
    memory_rng, step_rng = jax.random.split(jax.random.fold_in(teacher.rng, refresh))
    stack = teacher.stack
    if stack is None:
        stack = _stack_on_mesh(teacher, _random_names(teacher, rng=memory_rng))
    memory_rng, step_rng = sharding.device_put((memory_rng, step_rng), mesh)
    memory = sample_memory(
        teacher.mixed,
        stack,
        rng=memory_rng,
        networks=teacher.state.networks,
        groups=_memory_groups(teacher.state),
        images=learning.memory_images,
        cycles=learning.cycles,
        mesh=mesh,
    )
    return ReplayData(stack, memory, step_rng, sharding.device_put(jnp.int32(len(teacher.names)), mesh))


def add_own_replay(state: LifelongState, images: Mapping[str, Any], *, rng: jax.Array) -> dict[str, Any]:
    """Adds replayed images to the training images `[n, pixels]` of revisited categories.

    A revisited category gets as many replayed images as it was trained on before, at most `memory_size`, so that old
    and new images are weighted by their number. Nothing is added in mixed mode `free` or without the term `playback`.

    Args:
        state: state before the task.
        images: training images by category.
        rng: the seed's key.
    """
    learning, combined = state.config.learning, dict(images)
    if learning.mixed_mode == "free" or not learning.playback_weight:
        return combined
    for name, rows in images.items():
        if name not in state.names or not state.visit(name):
            continue
        # One-hot categories do not count their images: as many as are new.
        count = min(learning.memory_size, int(state.model(name).part("images", len(rows))))
        if count:
            replay_rng = jax.random.fold_in(category_rng(rng, name, state.visit(name)), 3)
            replayed = recall_images(state.model(name), count, learning.cycles, rng=replay_rng)
            combined[name] = np.concatenate([np.asarray(to_float(jnp.asarray(rows[:]))), np.asarray(replayed)])
    return combined


def _memory_groups(state: LifelongState) -> int:
    return state.config.learning.memory_size // state.config.learning.memory_images


def _stack_on_mesh(teacher: Teacher, names: tuple[str, ...]) -> StackedCategories:
    capacity = min(teacher.state.capacity, _memory_groups(teacher.state))
    stack = stack_categories(teacher.state, names, leave_out=NOT_USED_IN_TRAINING, capacity=capacity)
    return sharding.device_put(stack, teacher.mesh)


def _random_names(teacher: Teacher, *, rng: jax.Array) -> tuple[str, ...]:
    """Returns a random subset of the replayed categories, one per group of memory."""
    numbers = np.random.default_rng(np.asarray(jax.random.key_data(rng)))
    chosen = numbers.choice(len(teacher.names), _memory_groups(teacher.state), replace=False)
    return tuple(teacher.names[index] for index in chosen)
