"""The teacher: the model as it was before a task, which remembers the earlier categories during it."""

from __future__ import annotations

import jax

from lifelong_cvae import growth, playback
from lifelong_cvae.growth import LifelongState
from lifelong_cvae.losses import Past


class Teacher:
    """The model as it was before a task, and what it remembers of the earlier categories.

    Attributes:
        state: the state before the task.
        names: the categories that are not in the task.
        stack: their subtrees; None where nothing is played back.
    """

    def __init__(self, state: LifelongState, task: tuple[str, ...], *, rng: jax.Array):
        learning = state.config.learning
        self.state = state
        self.names = tuple(name for name in state.names if name not in task)
        plays = self.names and state.mixed_learns and learning.mixed_mode != "free"
        self.stack = growth.stack(state, self.names) if plays and learning.memory_weights else None
        self.rng = jax.random.fold_in(growth.category_rng(rng, task[0], state.visit(task[0])), 2)

    def remember(self, refresh: int) -> Past | None:
        """Pairs of the `refresh`th time; None where nothing is played back."""
        if self.stack is None:
            return None
        learning = self.state.config.learning
        memory_rng, step_rng = jax.random.split(jax.random.fold_in(self.rng, refresh))
        memory = playback.remember(
            self.state.params["mixed"],
            self.stack,
            rng=memory_rng,
            networks=self.state.networks,
            groups=learning.memory_size // learning.memory_images,
            images=learning.memory_images,
            cycles=learning.cycles,
        )
        return Past(self.stack, memory, step_rng)
