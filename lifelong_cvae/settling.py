"""After a task: the priors p(z|c) are fitted to where the encoder puts the images.

Of a category at hand the images are real; of an earlier one, whose encoder reads a mixed part that has
moved, they are remembered.
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


def refit_priors(
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
    components = _components(teacher)
    if not components:
        return {}
    rngs = [growth.category_rng(rng, name, 0) for name in names]
    rngs = jnp.stack(rngs + [rngs[0]] * (stack.capacity - len(names)))
    fitted = _refit(
        teacher.params["mixed"],
        mixed,
        stack,
        rngs,
        networks=teacher.networks,
        cycles=teacher.config.learning.cycles,
        components=components,
    )
    return growth.unstack_subtrees(fitted, names)


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


@partial(jax.jit, static_argnames=("networks", "cycles", "components"))
def _refit(
    teacher: Any,
    mixed: Any,
    stack: Stack,
    rngs: jax.Array,
    *,
    networks: Networks,
    cycles: int,
    components: int,
) -> prior.Prior:
    def one(category: Any, rng: jax.Array) -> prior.Prior:
        pair_rng, sample_rng, fit_rng = jax.random.split(rng, 3)
        _, x = sample_pairs(cvae.Path(teacher, category, networks), POINTS, cycles, rng=pair_rng)
        z = cvae.encode(cvae.Path(mixed, category, networks), x).sample(rng=sample_rng)
        used = jnp.sum(category["prior"]["logits"] > prior.UNUSED / 2)
        return prior.fit(z, components, images=used * prior.IMAGES_A_COMPONENT, rng=fit_rng)

    return stack.map(one, rngs)
