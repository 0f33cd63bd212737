"""Memory playback for training: replayed pairs (z*, x*) of earlier categories, and replayed images of one category."""

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
    """Replayed pairs in groups of one category each.

    The number of groups does not depend on that of categories.
    """

    category: jax.Array  # [groups], row of the stack
    z: jax.Array  # [groups, images, latent]
    x: jax.Array  # [groups, images, pixels] in [0, 1]
    teacher: cvae.Posterior  # the teacher's q(z|x,c), [groups, images, latent]


@partial(jax.jit, static_argnames=("count", "cycles"))
def recall_images(model: cvae.CategoryModel, count: int, cycles: int, *, rng: jax.Array) -> jax.Array:
    """Replays images of a revisited category, low-rank noise included: `[count, pixels]`.

    Unlike images for display, they may lie outside [0, 1], so that the full residual variance is kept.
    """
    pair_rng, noise_rng = jax.random.split(rng)
    _, x = sample_pairs(model, count, cycles, rng=pair_rng)
    if not model.low_rank_noise:
        return x
    log_scale = model.networks.log_scale(model.mixed, model.category)
    return x + jnp.exp(log_scale)[None] * low_rank_noise.sample(model.low_rank_noise, count, rng=noise_rng)


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
    """Samples pairs of the stacked categories, all groups at once by `vmap`.

    Args:
        mixed: the teacher's mixed parameters.
        stack: the teacher's categories.
        rng: key of the samples.
        networks: modules.
        groups: number of groups. Categories get equally many, up to one; a random order decides who gets one more.
        images: pairs per group.
        cycles: turns of the circle (circulatory warm-up).
        mesh: devices that share the groups.
    """
    order_rng, pair_rng = jax.random.split(rng)
    valid = jnp.arange(stack.capacity) < stack.count
    order = jnp.argsort(jnp.where(valid, jax.random.uniform(order_rng, (stack.capacity,)), 2.0))
    indices = order[jnp.arange(groups) % stack.count]

    def sample_group(index: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, cvae.Posterior]:
        category = jax.tree.map(lambda leaf: leaf[index], stack.categories)
        model = cvae.CategoryModel(mixed, category, networks)
        z, x = sample_pairs(model, images, cycles, rng=key)
        return z, x, cvae.encode(model, x)

    axes = (sharding.DATA_AXIS, sharding.CATEGORY_AXIS)
    indices_and_keys = sharding.constrain((indices, jax.random.split(pair_rng, groups)), mesh, axes)
    return sharding.constrain(ReplayMemory(indices, *jax.vmap(sample_group)(*indices_and_keys)), mesh)
