"""Pixel models of a small image and of the whole one: layout first, then edges and texture.

    log p(x|z,c) >= log p(s|m_s,z,c) + log p(x|m',z,c),      m' = m + up(s - m_s)

s is x at a quarter of its height and width, m the decoder's mean E[x|z,c], m_s is m at that size, and `up` enlarges to
full size. The first pixel model (`pixel_model`) corrects what the decoder gets wrong about layout and color, in few
steps; the second one adds what is fine. Both densities are over 8-bit values, and s follows from x, so the sum is a
lower bound. Source: Menick and Kalchbrenner 2018 (arXiv 1812.01608) for a small image before the large one.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from lifelong_cvae.images import Shape
from lifelong_cvae.model import pixel_mixture, pixel_model
from lifelong_cvae.model.pixel_model import PixelNetwork
from lifelong_cvae.model.pixel_windows import Windows

# Of the pixels of the whole image, those of every third row and column count as evidence.
EVIDENCE_STRIDE = 3
# Height and width of an image by those of the small one.
REDUCTION = 4


@dataclass(frozen=True)
class PixelPyramid:
    """Networks of both levels. Static: hashable, equal by value.

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
        """Networks by level, `small` first."""
        height, width, channels = self.image_shape
        small = (-(-height // REDUCTION), -(-width // REDUCTION), channels)
        shapes = {"small": small, "full": self.image_shape}
        return {level: PixelNetwork(Windows(shape), self.widths) for level, shape in shapes.items()}

    def init(self, *, rng: jax.Array) -> dict[str, Any]:
        """Initializes the parameters, by level."""
        return {
            level: network.init(key, jnp.zeros((1, network.windows.num_inputs(self.latent_size))))
            for (level, network), key in zip(self.networks.items(), jax.random.split(rng), strict=True)
        }

    def sample_positions(self, shape: tuple[int, int], *, rng: jax.Array) -> dict[str, jax.Array]:
        """Samples pixels to train on, of `shape` (batch, n) at each level."""
        keys = jax.random.split(rng)
        return {
            level: jax.random.randint(key, shape, 0, network.windows.positions)
            for (level, network), key in zip(self.networks.items(), keys, strict=True)
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
    keys = [None, None] if disturbance_rng is None else jax.random.split(disturbance_rng)
    total = jnp.zeros(len(x))
    for (level, network), key, data in zip(pyramid.networks.items(), keys, _levels(pyramid, x, mean), strict=True):
        terms = pixel_model.log_prob(network, params[level], *data, z, positions[level], disturbance_rng=key)
        total += network.windows.positions * jnp.mean(terms, axis=1)
    return total


def image_log_prob(
    pyramid: PixelPyramid, params: Any, x: jax.Array, mean: jax.Array, z: jax.Array, *, stride: int = 1
) -> jax.Array:
    """Computes the bound of log p(x|z,c) in nats per image, `[batch]`.

    Arguments as in `log_prob`. With a `stride` n above 1 it is a partial likelihood (Cox 1975): of the factors of the
    whole image it has those of every n-th row and column alone. The errors that a model makes about adjacent pixels are
    alike, and all of them would outweigh the small image when categories are compared.
    """
    (small, data), (full, full_data) = zip(pyramid.networks.values(), _levels(pyramid, x, mean), strict=True)
    layout = pixel_model.image_log_prob(small, params["small"], *data, z)
    return layout + pixel_model.image_log_prob(full, params["full"], *full_data, z, stride=stride)


def sample(pyramid: PixelPyramid, params: Any, mean: jax.Array, z: jax.Array, *, rng: jax.Array) -> jax.Array:
    """Samples images, the small ones first, `[batch, pixels]`. Arguments as in `log_prob`."""
    small, full = pyramid.networks.values()
    small_rng, full_rng = jax.random.split(rng)
    center = _resize(mean, full, small)
    values = pixel_model.sample(small, params["small"], center, z, rng=small_rng)
    corrected = mean + _resize(values - center, small, full)
    return pixel_model.sample(full, params["full"], corrected, z, rng=full_rng)


def _levels(pyramid: PixelPyramid, x: jax.Array, mean: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Returns the values and the centers of both levels, rows of pixels each."""
    small, full = pyramid.networks.values()
    center, reduced = _resize(mean, full, small), pixel_mixture.to_levels(_resize(x, full, small))
    return [(reduced, center), (x, mean + _resize(reduced - center, small, full))]


def _resize(rows: jax.Array, before: PixelNetwork, after: PixelNetwork) -> jax.Array:
    """Resizes images, `[batch, pixels]`, from the size of one level to that of the other."""
    height, width, channels = after.windows.image_shape
    images = rows.reshape(-1, *before.windows.image_shape)
    resized = jax.image.resize(images, (len(images), height, width, channels), "cubic")
    return resized.reshape(len(rows), -1)
