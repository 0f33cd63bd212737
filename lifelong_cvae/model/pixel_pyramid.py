"""Pixel models of an image at several sizes: layout first, then shapes, then edges and texture.

    log p(x|z,c) >= sum_k log p(s_k|m'_k,z,c),      m'_k = m_k + up(s_(k-1) - m_(k-1)),      m'_1 = m_1

s_k is x, and m_k the decoder's mean E[x|z,c], at the size of level k: a quarter of the height and width, half of them,
and all of them, where s_3 = x. `up` enlarges to the size of the next level. The first pixel model (`pixel_model`)
corrects what the decoder gets wrong about layout and color, in few steps; the later ones add what is fine. The
densities are over 8-bit values, and the small images follow from x, so the sum is a lower bound. Sources: Menick and
Kalchbrenner 2018 (arXiv 1812.01608) for small images before the large one, Reed et al. 2017 (arXiv 1703.03664) for a
pyramid of autoregressive models.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from lifelong_cvae.images import Shape
from lifelong_cvae.model import pixel_mixture, pixel_model
from lifelong_cvae.model.pixel_model import PixelNetwork
from lifelong_cvae.model.pixel_windows import Windows

# Height and width of the whole image by those of each level.
REDUCTIONS = {"small": 4, "middle": 2, "full": 1}
# The level before each.
BEFORE = {"middle": "small", "full": "middle"}


@dataclass(frozen=True)
class PixelPyramid:
    """Networks of all levels. Static: hashable, equal by value.

    Attributes:
        image_shape: (height, width, channels).
        widths: neurons of each network per hidden layer.
        latent_size: size of z.
    """

    image_shape: Shape
    widths: tuple[int, ...]
    latent_size: int

    @property
    def networks(self) -> dict[str, PixelNetwork]:
        """Networks by level, in the order of `REDUCTIONS`."""
        height, width, channels = self.image_shape
        return {
            level: PixelNetwork(Windows((-(-height // factor), -(-width // factor), channels)), self.widths)
            for level, factor in REDUCTIONS.items()
        }

    def init(self, *, rng: jax.Array) -> dict[str, Any]:
        """Initializes the parameters, by level."""
        return {
            level: network.init(key, jnp.zeros((1, network.windows.num_inputs(self.latent_size))))
            for (level, network), key in zip(self.networks.items(), _keys(rng), strict=True)
        }

    def sample_positions(self, shape: tuple[int, int], *, rng: jax.Array) -> dict[str, jax.Array]:
        """Samples pixels to train on, of `shape` (batch, n) at each level."""
        return {
            level: jax.random.randint(key, shape, 0, network.windows.positions)
            for (level, network), key in zip(self.networks.items(), _keys(rng), strict=True)
        }


def log_prob(
    pyramid: PixelPyramid,
    params: Any,
    x: jax.Array,
    mean: jax.Array,
    z: jax.Array,
    positions: dict[str, jax.Array],
    *,
    disturbance_rng: jax.Array | None = None,
) -> jax.Array:
    """Estimates the bound of log p(x|z,c) in nats per image, `[batch]`, from random pixels.

    Args:
        pyramid: modules.
        params: parameters by level.
        x: images in [0, 1], `[batch, pixels]`.
        mean: the decoder's means, `[batch, pixels]`.
        z: latents, `[batch, latent]`.
        positions: pixels of each level, `[batch, n]`.
        disturbance_rng: as in `pixel_model.log_prob`.
    """
    keys = [None] * len(REDUCTIONS) if disturbance_rng is None else _keys(disturbance_rng)
    total, levels = jnp.zeros(len(x)), _levels(pyramid, x, mean)
    for (level, network), key in zip(pyramid.networks.items(), keys, strict=True):
        terms = pixel_model.log_prob(network, params[level], *levels[level], z, positions[level], disturbance_rng=key)
        total += network.windows.positions * jnp.mean(terms, axis=1)
    return total


def image_log_prob(
    pyramid: PixelPyramid, params: Any, x: jax.Array, mean: jax.Array, z: jax.Array, *, partial: bool = False
) -> jax.Array:
    """Computes the bound of log p(x|z,c) in nats per image, `[batch]`.

    Arguments as in `log_prob`. With `partial` it is a partial likelihood (Cox 1975): every level has as many factors as
    the small image has pixels. The errors that a model makes about adjacent pixels are alike, and all of them would
    outweigh the small image when categories are compared.
    """
    total, levels = jnp.zeros(len(x)), _levels(pyramid, x, mean)
    for level, network in pyramid.networks.items():
        stride = REDUCTIONS["small"] // REDUCTIONS[level] if partial else 1
        total += pixel_model.image_log_prob(network, params[level], *levels[level], z, stride=stride)
    return total


def sample(pyramid: PixelPyramid, params: Any, mean: jax.Array, z: jax.Array, *, rng: jax.Array) -> jax.Array:
    """Samples images, the small ones first, `[batch, pixels]`. Arguments as in `log_prob`."""
    values: dict[str, jax.Array] = {}
    for (level, network), key in zip(pyramid.networks.items(), _keys(rng), strict=True):
        center = _center(pyramid, mean, values, level)
        values[level] = pixel_model.sample(network, params[level], center, z, rng=key)
    return values["full"]


def _keys(rng: jax.Array) -> jax.Array:
    """Splits a key into one for each level."""
    return jax.random.split(rng, len(REDUCTIONS))


def _levels(pyramid: PixelPyramid, x: jax.Array, mean: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Returns values and centers `[batch, pixels]` by level. Smaller values are rounded to 8 bits."""
    smaller = {level: pixel_mixture.to_levels(_resize(pyramid, x, "full", level)) for level in BEFORE.values()}
    values = {**smaller, "full": x}
    return {level: (values[level], _center(pyramid, mean, values, level)) for level in values}


def _center(pyramid: PixelPyramid, mean: jax.Array, values: dict[str, jax.Array], level: str) -> jax.Array:
    """Returns the decoder's mean at the size of `level`, corrected by the image of the level before it."""
    center = _resize(pyramid, mean, "full", level)
    if level not in BEFORE:
        return center
    before = BEFORE[level]
    return center + _resize(pyramid, values[before] - _resize(pyramid, mean, "full", before), before, level)


def _resize(pyramid: PixelPyramid, rows: jax.Array, before: str, after: str) -> jax.Array:
    """Resizes images, `[batch, pixels]`, from the size of one level to that of another."""
    if before == after:
        return rows
    shape, (height, width, channels) = (pyramid.networks[level].windows.image_shape for level in (before, after))
    resized = jax.image.resize(rows.reshape(-1, *shape), (len(rows), height, width, channels), "cubic")
    return resized.reshape(len(rows), -1)
