"""Local structure: what the decoder draws patch by patch, beside its map to all pixels at once.

A category's networks say `channels` numbers for every patch of a grid; neurons that are the same everywhere
turn them into pixels, and belong to the mixed part: what edges look like is learned once, in childhood.

    `patches`       patch = W silu(numbers): a matrix product over patches that do not overlap (depth to
                    space), which is fast on every device
    `convolution`   image = transposed convolution of silu(numbers), windows of twice the patch's side that
                    overlap: for GPU and TPU

Patches without overlap after Shi et al. 2016 (arXiv 1609.05158, sub-pixel convolution).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from lifelong_cvae.images import Shape
from lifelong_cvae.modules import silu

SIDE = 4
CHANNELS = 16


class LocalDecoder(nn.Module):
    """Numbers of the patches, `[batch, rows * columns * CHANNELS]`, to logits `[batch, pixels]`.

    Images whose height or width is not a multiple of `SIDE` are cut out of larger ones.
    """

    form: str
    image_shape: Shape

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width, _ = self.image_shape
        return -(-height // SIDE), -(-width // SIDE)

    @property
    def inputs(self) -> int:
        """Length of the input."""
        rows, columns = self.grid
        return rows * columns * CHANNELS

    @nn.compact
    def __call__(self, numbers: jax.Array) -> jax.Array:
        (rows, columns), (height, width, channels) = self.grid, self.image_shape
        numbers = silu(numbers).reshape(-1, rows, columns, CHANNELS)
        if self.form == "convolution":
            window, stride = (2 * SIDE, 2 * SIDE), (SIDE, SIDE)
            drawn = nn.ConvTranspose(channels, window, stride, use_bias=False, name="window")(numbers)
        else:
            patches = nn.Dense(SIDE * SIDE * channels, use_bias=False, name="patch")(numbers)
            patches = patches.reshape(-1, rows, columns, SIDE, SIDE, channels)
            drawn = jnp.moveaxis(patches, 3, 2).reshape(-1, rows * SIDE, columns * SIDE, channels)
        return drawn[:, :height, :width].reshape(len(drawn), -1)
