"""Images and latent codes of learned categories: imagined, encoded, decoded, reconstructed, turned in the circle."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lifelong_cvae import sharding
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import Shape, concat_unpadded, padded_batches, to_float
from lifelong_cvae.model import cvae, mixture_prior
from lifelong_cvae.model.networks import Networks
from lifelong_cvae.model.types import own_types
from lifelong_cvae.model.vectors import from_rows
from lifelong_cvae.stacked import StackedCategories, category_rngs, stack_categories
from lifelong_cvae.state import LifelongState, check_known

# Smallest and largest number of images that are encoded or decoded at once.
BATCH_SIZES = (8, 1024)


@own_types()
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
        Images by category, float32 `[count, h, w, c]` in [0, 1], or vectors `[count, d]`.

    Raises:
        InputError: an unknown or repeated category, or a negative number.
    """
    known = check_known(state, names)
    if len(set(known)) < len(names):
        raise InputError(f"categories: expected each one once, got {', '.join(names)}")
    for name, number in (("count", count), ("cycles", cycles)):
        if number < 0:
            raise InputError(f"{name}: expected at least 0, got {number}")
    # Few categories take few rows, all of them as many as are expected.
    capacity = state.capacity if len(known) == len(state.names) else 0
    shards = sharding.axis_size(mesh, sharding.CATEGORY_AXIS)
    stack = stack_categories(state, known, shards=shards, capacity=capacity)
    rngs = category_rngs(rng, known, stack.capacity)
    images = imagine_stacked(
        sharding.device_put(state.params["mixed"], mesh),
        stack.on_mesh(mesh),
        sharding.device_put(rngs, mesh),
        networks=state.networks,
        count=count,
        cycles=cycles,
        mesh=mesh,
    )
    images = from_rows(sharding.to_host(images, mesh), state.standardization)
    shape = (count, *state.image_shape)
    return {name: _take_row(images, np.int32(index), shape) for index, name in enumerate(names)}


@partial(jax.jit, static_argnames="shape")
def _take_row(rows: jax.Array, index: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return rows[index].reshape(shape)


@own_types()
def encode(state: LifelongState, name: str, images: Any) -> jax.Array:
    """Encodes images by one category: the mean of q(z|x,c), float32 `[n, latent]`.

    Latent spaces of different categories are unrelated.

    Args:
        state: state with the category.
        name: category.
        images: `[n, h, w, c]`, or `[n, h, w]` for one channel; uint8, float in [0, 1], or as in the first task.

    Raises:
        InputError: an unknown category, or bad images.
    """
    model = state.model(name)
    rows = state.rows(images)
    parts = [_encode_mean(model, batch) for _, batch in padded_batches(rows, *BATCH_SIZES)]
    return concat_unpadded(parts, len(rows), model.networks.latent_size)


@own_types()
def decode(state: LifelongState, name: str, codes: Any) -> jax.Array:
    """Decodes latent codes `[n, latent]` by one category: the decoder's mean, `[n, h, w, c]` in [0, 1].

    `decode` of the result of `encode` is that of `reconstruct`.

    Args:
        state: state with the category.
        name: category.
        codes: finite numbers.

    Raises:
        InputError: an unknown category, or codes of another shape or type.
    """
    model = state.model(name)
    size = model.networks.latent_size
    codes = np.asarray(codes)
    if codes.dtype.kind not in "iuf" or codes.ndim != 2 or codes.shape[1] != size:
        raise InputError(f"codes: expected numbers [n, {size}], got {codes.dtype} {codes.shape}")
    if not np.isfinite(codes).all():
        raise InputError("codes: expected finite numbers, got NaN or infinity")
    parts = [_decode_mean(model, batch) for _, batch in padded_batches(codes.astype(np.float32), *BATCH_SIZES)]
    means = concat_unpadded(parts, len(codes), model.networks.pixels)
    return from_rows(means, state.standardization).reshape(len(codes), *state.image_shape)


@jax.jit
def _encode_mean(model: cvae.CategoryModel, rows: jax.Array) -> jax.Array:
    return cvae.encode(model, to_float(rows)).mean


_decode_mean = jax.jit(cvae.decode_mean)


@own_types()
def reconstruct(state: LifelongState, name: str, images: Any) -> jax.Array:
    """Reconstructs images `[n, h, w, c]` by one category: the decoder's mean at the mean of q(z|x,c).

    Args:
        state: state with the category.
        name: category.
        images: as in `encode`.

    Raises:
        InputError: an unknown category, or bad images.
    """
    model = state.model(name)
    rows = state.rows(images, refuse_dark=False)
    return from_rows(_reconstruct(model, rows, state.image_shape), state.standardization)


@partial(jax.jit, static_argnames="image_shape")
def _reconstruct(model: cvae.CategoryModel, rows: jax.Array, image_shape: Shape) -> jax.Array:
    means = cvae.decode_mean(model, cvae.encode(model, to_float(rows)).mean)
    return means.reshape(len(rows), *image_shape)


@partial(jax.jit, static_argnames=("networks", "count", "cycles", "mesh"))
def imagine_stacked(
    mixed: Any,
    stack: StackedCategories,
    rngs: jax.Array,
    *,
    networks: Networks,
    count: int,
    cycles: int,
    mesh: Mesh | None,
) -> jax.Array:
    """Imagines images of stacked categories, `[capacity, count, pixels]`. Arguments as in `imagine`."""

    def imagine_category(category: Any, rng: jax.Array) -> jax.Array:
        model = cvae.CategoryModel(mixed, category, networks)
        # Independent of the two keys that `sample_pairs` splits off.
        texture_rng = jax.random.fold_in(rng, 2)
        z, _ = sample_pairs(model, count, cycles, temperature=networks.sample_temperature, rng=rng)
        z = sharding.constrain(z, mesh, sharding.DATA_AXIS)
        return cvae.sample_image(model, z, rng=texture_rng)

    return sharding.constrain(stack.map_categories(imagine_category, rngs, mesh=mesh), mesh)


def sample_pairs(
    model: cvae.CategoryModel, count: int, cycles: int, *, temperature: float = 1.0, rng: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Samples z ~ p(z|c) `[count, latent]` and decoder means `[count, pixels]`, and circulates them."""
    latent_rng, circle_rng = jax.random.split(rng)
    z = mixture_prior.sample(model.prior, count, temperature=temperature, rng=latent_rng)
    return cvae.circulate(model, z, cvae.decode_mean(model, z), cycles, rng=circle_rng)


@own_types()
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
