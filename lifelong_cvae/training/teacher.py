"""The teacher: the model as it was before a task, which remembers the earlier categories during it."""

from __future__ import annotations

from collections.abc import Mapping

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


class Teacher:
    """The model as it was before a task, and what it remembers of the earlier categories.

    Attributes:
        state: the state before the task.
        names: the categories that are not in the task.
        remembers: whether they are played back.
    """

    def __init__(self, state: LifelongState, task: tuple[str, ...], *, rng: jax.Array, mesh: Mesh | None = None):
        learning = state.config.learning
        self.state = state
        self.names = tuple(name for name in state.names if name not in task)
        plays = self.names and state.mixed_learns and learning.mixed_mode != "free"
        self.remembers = bool(plays and learning.replay_weights)
        self._mesh = mesh
        self.rng = jax.random.fold_in(category_rng(rng, task[0], state.visit(task[0])), 2)
        self._mixed = sharding.device_put(state.params["mixed"], mesh) if self.remembers else None
        self._stacked: tuple[tuple[str, ...], tuple[StackedCategories, ...]] = ((), ())

    def stack(self, names: tuple[str, ...]) -> StackedCategories:
        """Subtrees of some earlier categories, kept until those of others are asked for."""
        return self._here_and_there(names)[0]

    def _here_and_there(self, names: tuple[str, ...]) -> tuple[StackedCategories, ...]:
        """`stack`, and the same on the mesh: put there once, however often it is remembered from."""
        if names != self._stacked[0]:
            here = stack_categories(self.state, names, left_out=NOT_USED_IN_TRAINING)
            self._stacked = names, (here, sharding.device_put(here, self._mesh))
        return self._stacked[1]

    def remember(self, refresh: int) -> ReplayData | None:
        """Pairs of the `refresh`th time; None where nothing is played back."""
        if not self.remembers:
            return None
        learning = self.state.config.learning
        groups = learning.memory_size // learning.memory_images
        memory_rng, step_rng = jax.random.split(jax.random.fold_in(self.rng, refresh))
        stack = self._here_and_there(self._drawn(groups, rng=memory_rng))[1]
        memory_rng, step_rng = sharding.device_put((memory_rng, step_rng), self._mesh)
        memory = sample_memory(
            self._mixed,
            stack,
            rng=memory_rng,
            networks=self.state.networks,
            groups=groups,
            images=learning.memory_images,
            cycles=learning.cycles,
            mesh=self._mesh,
        )
        return ReplayData(stack, memory, step_rng, sharding.device_put(jnp.int32(len(self.names)), self._mesh))

    def _drawn(self, groups: int, *, rng: jax.Array) -> tuple[str, ...]:
        """The earlier categories, or as many of them by chance as there are groups to remember.

        So what a task takes does not grow with the number of categories.
        """
        if len(self.names) <= groups:
            return self.names
        numbers = np.random.default_rng(np.asarray(jax.random.key_data(rng)))
        return tuple(self.names[index] for index in numbers.choice(len(self.names), groups, replace=False))


def add_own_replay(state: LifelongState, rows: Mapping[str, np.ndarray], *, rng: jax.Array) -> dict[str, np.ndarray]:
    """A task's images `[n, pixels]`, and of a category that returns as many remembered ones as it once had.

    So new images change what it knows by as much as their number is worth. At most `memory_size` are
    remembered, and none in the mode `free` or without the term `playback`.

    Args:
        state: before the task.
        rows: category to its images.
        rng: the seed's key.
    """
    learning, pools = state.config.learning, dict(rows)
    if learning.mixed_mode == "free" or not learning.playback_weight:
        return pools
    for name, values in rows.items():
        count = _own_replay_count(state, name, values)
        if count:
            own_rng = jax.random.fold_in(category_rng(rng, name, state.visit(name)), 3)
            recalled = recall_images(state.model(name), count, learning.cycles, rng=own_rng)
            pools[name] = np.concatenate([np.asarray(to_float(jnp.asarray(values))), np.asarray(recalled)])
    return pools


def _own_replay_count(state: LifelongState, name: str, values: np.ndarray) -> int:
    if name not in state.names or not state.visit(name):
        return 0
    # A category that owns but two vectors does not count: as many as are new.
    return min(state.config.learning.memory_size, int(state.model(name).part("images", len(values))))
