"""Optimizer: Adam with a cosine schedule per category, and a mask over what a task must not change."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lifelong_cvae.config import LearningConfig
from lifelong_cvae.state import freeze_mask


def make_optimizer(
    learning: LearningConfig, params: dict[str, Any], names: tuple[str, ...], total_steps: Any, *, train_mixed: bool
) -> optax.GradientTransformation:
    """Creates Adam with a cosine schedule, masked so that a task changes nothing but its own parameters.

    Frozen leaves get zero updates and no moments.

    Args:
        learning: `learning_rate`, `full_rate_steps` and `adam_b2`.
        params: a whole parameter dict, or one with the task's categories alone.
        names: categories of the task.
        total_steps: length of each category's schedule, `[categories]` as the leading axis of the leaves; may be
            traced. A category does not change after its last step. The mixed part follows the first one.
        train_mixed: whether the mixed part is trained.
    """
    mask = freeze_mask(params, names, train_mixed=train_mixed)
    adam, schedule = optax.scale_by_adam(b2=learning.adam_b2), _scale_by_cosine(learning, total_steps)
    return optax.selective_transform(optax.chain(adam, schedule), freeze_mask=mask)


def _scale_by_cosine(learning: LearningConfig, total_steps: Any) -> optax.GradientTransformation:
    """Multiplies updates by minus the learning rate, which falls from its peak to 0 along half a cosine."""
    peak = learning.learning_rate * jnp.sqrt(jnp.minimum(total_steps / learning.full_rate_steps, 1))

    def init(_: Any) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(jnp.int32(0))

    def update(updates: Any, state: optax.ScaleByScheduleState, _: Any = None) -> tuple[Any, Any]:
        rates = -peak * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(state.count, total_steps) / total_steps))
        scaled = {
            part: jax.tree.map(lambda leaf, mixed=part == "mixed": leaf * _rate(rates, leaf, mixed), tree)
            for part, tree in updates.items()
        }
        return scaled, optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformation(init, update)


def _rate(rates: jax.Array, leaf: jax.Array, mixed: bool) -> jax.Array:
    return rates[0] if mixed else rates.reshape(-1, *[1] * (leaf.ndim - 1))
