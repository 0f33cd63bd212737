"""Sampling from learned categories: imagined images, reconstructions, and the circle turn by turn."""

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
    state: LifelongState, names: Sequence[str], count: int, *, rng: jax.Array, cycles: int = 0, mesh: Mesh | None = None
) -> dict[str, jax.Array]:
    """Imagines images: z ~ p(z|c), turns of the circle, then `cvae.sample_image` of the last z.

    The images of a category depend on `rng` and its name, not on the other names.

    Args:
        state: state with the categories.
        names: categories, each once.
        count: images per category.
        rng: key of the samples.
        cycles: turns of the circle (`cvae.circulate`).
        mesh: devices that share the categories and their images (`sharding.make_mesh`).

    Returns:
        Images by category, float32 `[count, h, w, c]` in [0, 1].

    Raises:
        InputError: an unknown or repeated category, or a negative number.
    """
    if len(set(names)) < len(names):
        raise InputError(f"categories: expected each one once, got {', '.join(names)}")
    for name, number in (("count", count), ("cycles", cycles)):
        if number < 0:
            raise InputError(f"{name}: expected at least 0, got {number}")
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
    """Reconstructs images `[n, h, w, c]` by one category: the decoder's mean at the mean of q(z|x,c).

    Args:
        state: state with the category.
        name: category.
        images: uint8 or float in [0, 1], `[n, h, w, c]`, or `[n, h, w]` for one channel.

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
    def imagine_category(category: Any, rng: jax.Array) -> jax.Array:
        model = cvae.CategoryModel(mixed, category, networks)
        # Independent of the two keys that `sample_pairs` splits off.
        texture_rng = jax.random.fold_in(rng, 2)
        z = sharding.constrain(sample_pairs(model, count, cycles, rng=rng)[0], mesh, sharding.DATA_AXIS)
        return cvae.sample_image(model, z, rng=texture_rng)

    return sharding.constrain(stack.map_categories(imagine_category, rngs, mesh=mesh), mesh)


def sample_pairs(model: cvae.CategoryModel, count: int, cycles: int, *, rng: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Samples z ~ p(z|c) `[count, latent]` and decoder means `[count, pixels]`, and circulates them."""
    latent_rng, circle_rng = jax.random.split(rng)
    z = mixture_prior.sample(model.prior, count, rng=latent_rng)
    return cvae.circulate(model, z, cvae.decode_mean(model, z), cycles, rng=circle_rng)


@partial(jax.jit, static_argnames="turns")
def circle_images(model: cvae.CategoryModel, x: jax.Array, turns: int, *, rng: jax.Array) -> jax.Array:
    """Runs images around the circle; returns them as displayed after each turn, `[turns, batch, pixels]`.

    The decoder's mean goes on to the next turn, as in `cvae.circulate`. The displayed image is `cvae.sample_image`
    without texture at the same latent point.

    Args:
        model: model of one category.
        x: images in [0, 1], `[batch, pixels]`.
        turns: number of turns (static).
        rng: source of the latent samples.
    """

    def turn(x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        z, x = cvae.circulate(model, jnp.zeros((len(x), model.networks.latent_size)), x, 1, rng=key)
        return x, cvae.sample_image(model, z)

    return jax.lax.scan(turn, x, jax.random.split(rng, turns))[1]
