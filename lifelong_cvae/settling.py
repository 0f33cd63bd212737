"""After a task: the priors p(z|c) follow the encoder.

That of a category at hand is fitted to where the encoder puts its real images. That of an earlier one,
whose encoder reads a mixed part that has moved, is moved as remembered images move.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from lifelong_cvae import cvae, growth, prior
from lifelong_cvae.growth import LifelongState, Stack
from lifelong_cvae.images import to_unit
from lifelong_cvae.losses import TaskData
from lifelong_cvae.networks import Networks
from lifelong_cvae.playback import sample_pairs

POINTS = 2048


def fit_priors(
    mixed: Any, categories: Any, data: TaskData, names: tuple[str, ...], state: LifelongState
) -> dict[str, prior.Prior]:
    """Priors of the categories that were just learned, from their real images.

    Args:
        mixed: the mixed parameters.
        categories: their subtrees `[categories, ...]`.
        data: the task.
        names: of the categories.
        state: whose settings hold.

    Returns:
        Name to prior; empty where priors are not fitted.
    """
    components = _components(state)
    if not components:
        return {}
    fitted = _fit(mixed, categories, data, networks=state.networks, components=components)
    return growth.unstack_subtrees(fitted, names)


def move_priors(
    teacher: LifelongState, mixed: Any, stack: Stack, names: tuple[str, ...], *, rng: jax.Array
) -> dict[str, prior.Prior]:
    """Priors of earlier categories for a mixed part that has moved, from what the teacher remembers.

    Args:
        teacher: the state before the task.
        mixed: the mixed parameters after it.
        stack: the earlier categories.
        names: theirs.
        rng: source of the samples.

    Returns:
        Name to prior; empty where priors are not fitted.
    """
    if not _components(teacher):
        return {}
    rngs = growth.category_rngs(rng, names, stack.capacity)
    cycles = teacher.config.learning.cycles
    moved = _move(teacher.params["mixed"], mixed, stack, rngs, networks=teacher.networks, cycles=cycles)
    return growth.unstack_subtrees(moved, names)


def _components(state: LifelongState) -> int:
    """Components to fit; none where priors stay N(0, I)."""
    return state.config.network.prior_components if state.config.network.growth == "neurons" else 0


@partial(jax.jit, static_argnames=("networks", "components"))
def _fit(mixed: Any, categories: Any, data: TaskData, *, networks: Networks, components: int) -> prior.Prior:
    def one(arguments: tuple[Any, ...]) -> prior.Prior:
        category, images, count, rng = arguments
        sample_rng, fit_rng = jax.random.split(jax.random.fold_in(rng, data.total_steps))
        # As many points whatever the number of images, spread evenly over them.
        x = to_unit(images[jnp.arange(POINTS) * count // POINTS])
        z = cvae.encode(cvae.Path(mixed, category, networks), x).sample(rng=sample_rng)
        return prior.fit(z, components, images=count, rng=fit_rng)

    return jax.lax.map(one, (categories, data.images, data.counts, data.rngs))


@partial(jax.jit, static_argnames=("networks", "cycles"))
def _move(
    teacher: Any, mixed: Any, stack: Stack, rngs: jax.Array, *, networks: Networks, cycles: int
) -> prior.Prior:
    def one(category: Any, rng: jax.Array) -> prior.Prior:
        pair_rng, noise_rng = jax.random.split(rng)
        before, after = (cvae.Path(shared, category, networks) for shared in (teacher, mixed))
        _, x = sample_pairs(before, POINTS, cycles, rng=pair_rng)
        # The same noise twice, so that nothing but the encoder makes a difference.
        points = [cvae.encode(path, x).sample(rng=noise_rng) for path in (before, after)]
        return prior.moved(category["prior"], *points)

    return stack.map(one, rngs)
