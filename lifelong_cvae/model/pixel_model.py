"""Pixel model: an autoregressive density of an image's pixels, given a blurred image m and latents z.

    p(x|m,z,c) = prod_i p(x_i | x_1, ..., x_(i-1), m, z)

Pixels come in raster order. Pixel i reads a window of the pixels before it and a window of m around it, so m decides
about layout and color, and the pixel model adds what m lacks: edges and texture. `pixel_pyramid` puts two of them
together. Sources: Gulrajani et al. 2016 (arXiv 1611.05013, PixelVAE) for an autoregressive model after a VAE's decoder,
Theis and Bethge 2015 (arXiv 1506.03478) for windows.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lifelong_cvae.model import pixel_mixture
from lifelong_cvae.model.cpu import silu
from lifelong_cvae.model.pixel_windows import Windows, difference_basis

# Of the positions of an image in a training step one of so many reads disturbed neighbors. A sample reads its own
# pixels, with errors that no training image has. A network that has never seen any would let them grow.
DISTURBED_EVERY = 8
# Standard deviation of the disturbances. Their sizes are products of two normal numbers: most are small, a few large.
DISTURBANCE = 0.15


class PixelNetwork(nn.Module):
    """Neurons from the inputs of pixels `[n, inputs]` to the parameters of their mixtures `[n, outputs]`.

    The first layer, and a linear map past all of them, read the inputs in the basis of `difference_basis`.
    """

    windows: Windows
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        channels = self.windows.image_shape[2]
        size = inputs.shape[1]
        basis, hidden = jnp.asarray(difference_basis(self.windows, size)), inputs
        for index, width in enumerate(self.widths):
            kernel = self.param(f"kernel_{index}", nn.initializers.lecun_normal(), (hidden.shape[1], width))
            bias = self.param(f"bias_{index}", nn.initializers.zeros, (width,))
            hidden = silu(hidden @ (kernel if index else basis @ kernel) + bias[None])
        linear = self.param("linear", nn.initializers.zeros, (size, pixel_mixture.num_outputs(channels)))
        kernel = self.param("kernel", nn.initializers.zeros, (hidden.shape[1], pixel_mixture.num_outputs(channels)))
        bias = self.param("bias", lambda _: jnp.asarray(pixel_mixture.initial_outputs(channels)))
        return hidden @ kernel + inputs @ (basis @ linear) + bias[None]


def log_prob(
    network: PixelNetwork,
    params: Any,
    x: jax.Array,
    mean: jax.Array,
    z: jax.Array,
    positions: jax.Array,
    *,
    disturbance_rng: jax.Array | None = None,
) -> jax.Array:
    """Computes log p(x_i | earlier pixels, mean, z) of pixels i in nats, `[batch, n]`.

    Args:
        network: module.
        params: its parameters.
        x: images in [0, 1], `[batch, pixels]`.
        mean: blurred images, `[batch, pixels]`.
        z: latents, `[batch, latent]`.
        positions: i, from 0 to height * width - 1, `[batch, n]`.
        disturbance_rng: key of the disturbances that training adds; None adds none.
    """
    windows = network.windows
    x, mean = windows.pad(x), windows.pad(mean)
    at = windows.padded_position(positions)

    def read(rows: jax.Array, offsets: Any) -> jax.Array:
        return jax.vmap(lambda row, index: row[index])(rows, at[..., None] + windows.steps(offsets)[None, None])

    neighbors = read(x - mean, windows.neighbors)
    if disturbance_rng is not None:
        neighbors = _disturb(neighbors, rng=disturbance_rng)
    inputs = _inputs(windows, neighbors, read(mean, windows.means), z[:, None], positions)
    count = positions.size
    outputs = network.apply(params, inputs.reshape(count, -1))
    center, values = (read(rows, [(0, 0)]).reshape(count, -1) for rows in (mean, x))
    mixture = pixel_mixture.mixture(outputs, values.shape[1])
    return pixel_mixture.log_prob(mixture, values, center).reshape(positions.shape)


def image_log_prob(
    network: PixelNetwork, params: Any, x: jax.Array, mean: jax.Array, z: jax.Array, *, stride: int = 1
) -> jax.Array:
    """Computes log p(x|mean,z,c) in nats per image, `[batch]`, or the part of every n-th row and column.

    Arguments as in `log_prob`; `stride` is n.
    """
    height, width, _ = network.windows.image_shape
    columns = jnp.arange(stride // 2, width, stride)

    def row_log_prob(row: jax.Array) -> jax.Array:
        positions = jnp.broadcast_to((row * width + columns)[None], (len(x), len(columns)))
        return log_prob(network, params, x, mean, z, positions).sum(axis=1)

    return jax.lax.map(row_log_prob, jnp.arange(stride // 2, height, stride)).sum(axis=0)


def sample(network: PixelNetwork, params: Any, mean: jax.Array, z: jax.Array, *, rng: jax.Array) -> jax.Array:
    """Samples images pixel by pixel, `[batch, pixels]`. Arguments as in `log_prob`."""
    windows = network.windows
    # Positions lead, so that a step writes one block of memory.
    means = jnp.moveaxis(windows.pad(mean), 1, 0)

    def step(residuals: jax.Array, position_and_key: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        position, key = position_and_key
        at = windows.padded_position(position)
        neighbors, nearby = (
            jnp.moveaxis(rows[at + windows.steps(offsets)], 0, 1)
            for rows, offsets in ((residuals, windows.neighbors), (means, windows.means))
        )
        outputs = network.apply(params, _inputs(windows, neighbors, nearby, z, position[None]))
        mixture = pixel_mixture.mixture(outputs, windows.image_shape[2])
        values = pixel_mixture.sample(mixture, means[at], rng=key)
        return residuals.at[at].set(values - means[at]), values

    positions = jnp.arange(windows.positions)
    values = jax.lax.scan(step, jnp.zeros_like(means), (positions, jax.random.split(rng, windows.positions)))[1]
    return jnp.moveaxis(values, 0, 1).reshape(mean.shape)


def _inputs(windows: Windows, neighbors: jax.Array, means: jax.Array, z: jax.Array, positions: jax.Array) -> jax.Array:
    """Joins the inputs of pixels, `[..., inputs]`, in the order of `difference_basis`.

    Args:
        windows: static positions.
        neighbors: earlier pixels relative to the blurred image, `[..., neighbors, channels]`.
        means: the blurred image around, `[..., means, channels]`.
        z: latents, `[..., latent]`; leading axes broadcast.
        positions: `[...]`, leading axes broadcast.
    """
    leading = neighbors.shape[:-2]
    height, width, _ = windows.image_shape
    row, column = jnp.divmod(positions, width)
    place = 2 * jnp.stack([row / height, column / width], axis=-1) - 1
    flat = [neighbors.reshape(*leading, -1), means.reshape(*leading, -1) - 0.5]
    return jnp.concatenate([*flat, *(jnp.broadcast_to(part, (*leading, part.shape[-1])) for part in (z, place))], -1)


def _disturb(neighbors: jax.Array, *, rng: jax.Array) -> jax.Array:
    """Adds noise to the neighbors of the first positions, `[batch, n, neighbors, channels]`."""
    count = -(-neighbors.shape[1] // DISTURBED_EVERY)
    noise_rng, size_rng = jax.random.split(rng)
    noise = jax.random.normal(noise_rng, neighbors[:, :count].shape)
    sizes = DISTURBANCE * jnp.prod(jax.random.normal(size_rng, (2, len(neighbors), count, 1, 1)), axis=0)
    return neighbors.at[:, :count].add(sizes * noise)
