"""Memory playback: the model imagines images of the categories that it has learned.

`imagine` is for people, `remember` for learning: pairs (z*, x*) that have gone round the circle, and what
the model that imagined them, the teacher, makes of x*.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lifelong_cvae import cvae, factors, parallel, prior, stacking
from lifelong_cvae.errors import InputError
from lifelong_cvae.growth import LifelongState
from lifelong_cvae.images import as_rows, to_unit
from lifelong_cvae.networks import Networks
from lifelong_cvae.stacking import Stack


class Memory(NamedTuple):
    """Remembered pairs, in groups of one category each: a fixed number, whatever that of categories."""

    category: jax.Array  # [groups], row of the stack
    z: jax.Array  # [groups, images, latent]
    x: jax.Array  # [groups, images, pixels] in [0, 1]
    teacher: cvae.Posterior  # q(z|x,c) of the model that remembered, [groups, images, latent]


def imagine(
    state: LifelongState,
    names: Sequence[str],
    count: int,
    *,
    rng: jax.Array,
    cycles: int = 0,
    mesh: Mesh | None = None,
) -> dict[str, jax.Array]:
    """Imagines images: z ~ p(z|c), turns of the circle, and what the model draws of the last z.

    What a category gives depends on `rng` and its name, not on the other names.

    Args:
        state: what has been learned.
        names: the categories, each once.
        count: images of each.
        rng: source of the samples.
        cycles: turns of the circle before an image is returned (see `cvae.circulate`).
        mesh: devices that share the categories and their images (see `parallel`).

    Returns:
        Category name to float32 `[count, h, w, c]` in [0, 1].

    Raises:
        InputError: an unknown or repeated category, or a negative number.
    """
    if len(set(names)) < len(names):
        raise InputError(f"categories {', '.join(names)}: each one once is expected")
    if count < 0 or cycles < 0:
        raise InputError(f"count={count}, cycles={cycles}: numbers of at least 0 are expected")
    stack = stacking.stack(state, names, shards=parallel.shards(mesh, parallel.CATEGORY))
    rngs = stacking.category_rngs(rng, names, stack.capacity)
    images = _imagine(
        parallel.put(state.params["mixed"], mesh),
        stack.put(mesh),
        parallel.put(rngs, mesh),
        networks=state.networks,
        count=count,
        cycles=cycles,
        mesh=mesh,
    )
    images = parallel.fetch(images, mesh)
    shape = (count, *state.image_shape)
    return {name: images[index].reshape(shape) for index, name in enumerate(names)}


def reconstruct(state: LifelongState, name: str, images: Any) -> jax.Array:
    """What a category makes of images: the decoder's mean at the mean of q(z|x,c).

    Args:
        state: what has been learned.
        name: the category.
        images: uint8 or float in [0, 1], `[n, h, w, c]`, or `[n, h, w]` for one channel.

    Returns:
        float32 `[n, h, w, c]` in [0, 1].

    Raises:
        InputError: an unknown category, or bad images.
    """
    path = state.path(name)
    rows = as_rows(images, state.image_shape)
    return _reconstruct(path, jnp.asarray(rows)).reshape(len(rows), *state.image_shape)


@jax.jit
def _reconstruct(path: cvae.Path, rows: jax.Array) -> jax.Array:
    return cvae.decode_mean(path, cvae.encode(path, to_unit(rows)).mean)


@partial(jax.jit, static_argnames=("networks", "count", "cycles", "mesh"))
def _imagine(
    mixed: Any,
    stack: Stack,
    rngs: jax.Array,
    *,
    networks: Networks,
    count: int,
    cycles: int,
    mesh: Mesh | None,
) -> jax.Array:
    def one(category: Any, rng: jax.Array) -> jax.Array:
        path = cvae.Path(mixed, category, networks)
        # Beside the two keys that the pairs split off.
        texture_rng = jax.random.fold_in(rng, 2)
        z = parallel.share(sample_pairs(path, count, cycles, rng=rng)[0], mesh, parallel.DATA)
        return cvae.draw(path, z, rng=texture_rng)

    return parallel.share(stack.map(one, rngs, mesh=mesh), mesh)


@partial(jax.jit, static_argnames=("count", "cycles"))
def recall(path: cvae.Path, count: int, cycles: int, *, rng: jax.Array) -> jax.Array:
    """Images for a category to remember itself by, with what its factors know: `[count, pixels]`.

    Unlike what is shown, they may lie outside [0, 1]: all of a remainder's variance counts.
    """
    pair_rng, factor_rng = jax.random.split(rng)
    _, x = sample_pairs(path, count, cycles, rng=pair_rng)
    if not path.factors:
        return x
    log_scale = path.networks.log_scale(path.mixed, path.category)
    return x + jnp.exp(log_scale)[None] * factors.sample(path.factors, count, rng=factor_rng)


def sample_pairs(path: cvae.Path, count: int, cycles: int, *, rng: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Z ~ p(z|c), x the decoder's mean, then turns of the circle: `[count, latent]`, `[count, pixels]`."""
    latent_rng, circle_rng = jax.random.split(rng)
    z = prior.sample(path.prior, count, rng=latent_rng)
    return cvae.circulate(path, z, cvae.decode_mean(path, z), cycles, rng=circle_rng)


@partial(jax.jit, static_argnames=("networks", "groups", "images", "cycles", "mesh"))
def remember(
    mixed: Any,
    stack: Stack,
    *,
    rng: jax.Array,
    networks: Networks,
    groups: int,
    images: int,
    cycles: int,
    mesh: Mesh | None = None,
) -> Memory:
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
        path = cvae.Path(mixed, category, networks)
        z, x = sample_pairs(path, images, cycles, rng=key)
        return z, x, cvae.encode(path, x)

    devices = (parallel.DATA, parallel.CATEGORY)
    dealt = parallel.share((chosen, jax.random.split(pair_rng, groups)), mesh, devices)
    return parallel.share(Memory(chosen, *jax.vmap(one)(*dealt)), mesh)
