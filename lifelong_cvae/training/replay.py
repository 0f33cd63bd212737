"""Memory playback for training: pairs (z*, x*) of earlier categories, and the teacher's view of x*."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lifelong_cvae import sharding
from lifelong_cvae.model import cvae, low_rank_noise
from lifelong_cvae.model.networks import Networks
from lifelong_cvae.sampling import sample_pairs
from lifelong_cvae.stacked import StackedCategories


class ReplayMemory(NamedTuple):
    """Remembered pairs, in groups of one category each: a fixed number, whatever that of categories."""

    category: jax.Array  # [groups], row of the stack
    z: jax.Array  # [groups, images, latent]
    x: jax.Array  # [groups, images, pixels] in [0, 1]
    teacher: cvae.Posterior  # q(z|x,c) of the model that remembered, [groups, images, latent]


@partial(jax.jit, static_argnames=("count", "cycles"))
def recall_images(model: cvae.CategoryModel, count: int, cycles: int, *, rng: jax.Array) -> jax.Array:
    """Images for a category to remember itself by, with what its factors know: `[count, pixels]`.

    Unlike what is shown, they may lie outside [0, 1]: all of a remainder's variance counts.
    """
    pair_rng, factor_rng = jax.random.split(rng)
    _, x = sample_pairs(model, count, cycles, rng=pair_rng)
    if not model.low_rank_noise:
        return x
    log_scale = model.networks.log_scale(model.mixed, model.category)
    return x + jnp.exp(log_scale)[None] * low_rank_noise.sample(model.low_rank_noise, count, rng=factor_rng)


@partial(jax.jit, static_argnames=("networks", "groups", "images", "cycles", "mesh"))
def sample_memory(
    mixed: Any,
    stack: StackedCategories,
    *,
    rng: jax.Array,
    networks: Networks,
    groups: int,
    images: int,
    cycles: int,
    mesh: Mesh | None = None,
) -> ReplayMemory:
    """Imagines pairs of the stacked categories, and what the teacher's encoder says of them.

    Args:
        mixed: the teacher's mixed parameters.
        stack: the teacher's categories.
        rng: source of the samples.
        networks: the modules.
        groups: groups to imagine; each category gets as many, up to one, and the rest by chance.
        images: pairs in a group.
        cycles: turns of the circle (circulatory warm-up).
        mesh: devices that share the groups.
    """
    order_rng, pair_rng = jax.random.split(rng)
    real = jnp.arange(stack.capacity) < stack.count
    order = jnp.argsort(jnp.where(real, jax.random.uniform(order_rng, (stack.capacity,)), 2.0))
    chosen = order[jnp.arange(groups) % stack.count]

    def one(index: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, cvae.Posterior]:
        category = jax.tree.map(lambda leaf: leaf[index], stack.categories)
        model = cvae.CategoryModel(mixed, category, networks)
        z, x = sample_pairs(model, images, cycles, rng=key)
        return z, x, cvae.encode(model, x)

    devices = (sharding.DATA_AXIS, sharding.CATEGORY_AXIS)
    dealt = sharding.constrain((chosen, jax.random.split(pair_rng, groups)), mesh, devices)
    return sharding.constrain(ReplayMemory(chosen, *jax.vmap(one)(*dealt)), mesh)
