"""Memory playback: the model imagines images of the categories that it has learned.

`imagine` is for people, `remember` for learning: pairs (z*, x*) that have gone round the circle, and what
the model that imagined them, the teacher, makes of x*.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lifelong_cvae import sharding
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import flatten_images, to_float
from lifelong_cvae.model import cvae, mixture_prior
from lifelong_cvae.model.networks import Networks
from lifelong_cvae.stacked import StackedCategories, category_rngs, stack_categories
from lifelong_cvae.state import LifelongState


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
    stack = stack_categories(state, names, shards=sharding.axis_size(mesh, sharding.CATEGORY_AXIS))
    rngs = category_rngs(rng, names, stack.capacity)
    images = _imagine(
        sharding.device_put(state.params["mixed"], mesh),
        stack.on_mesh(mesh),
        sharding.device_put(rngs, mesh),
        networks=state.networks,
        count=count,
        cycles=cycles,
        mesh=mesh,
    )
    images = sharding.to_host(images, mesh)
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
    model = state.model(name)
    rows = flatten_images(images, state.image_shape)
    return _reconstruct(model, jnp.asarray(rows)).reshape(len(rows), *state.image_shape)


@jax.jit
def _reconstruct(model: cvae.CategoryModel, rows: jax.Array) -> jax.Array:
    return cvae.decode_mean(model, cvae.encode(model, to_float(rows)).mean)


@partial(jax.jit, static_argnames=("networks", "count", "cycles", "mesh"))
def _imagine(
    mixed: Any,
    stack: StackedCategories,
    rngs: jax.Array,
    *,
    networks: Networks,
    count: int,
    cycles: int,
    mesh: Mesh | None,
) -> jax.Array:
    def one(category: Any, rng: jax.Array) -> jax.Array:
        model = cvae.CategoryModel(mixed, category, networks)
        # Beside the two keys that the pairs split off.
        texture_rng = jax.random.fold_in(rng, 2)
        z = sharding.constrain(sample_pairs(model, count, cycles, rng=rng)[0], mesh, sharding.DATA_AXIS)
        return cvae.sample_image(model, z, rng=texture_rng)

    return sharding.constrain(stack.map_categories(one, rngs, mesh=mesh), mesh)


def sample_pairs(model: cvae.CategoryModel, count: int, cycles: int, *, rng: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Z ~ p(z|c), x the decoder's mean, then turns of the circle: `[count, latent]`, `[count, pixels]`."""
    latent_rng, circle_rng = jax.random.split(rng)
    z = mixture_prior.sample(model.prior, count, rng=latent_rng)
    return cvae.circulate(model, z, cvae.decode_mean(model, z), cycles, rng=circle_rng)
