"""The layers of the networks, as Flax modules; `networks` puts them together.

In every hidden layer the category's neurons stand beside the mixed ones and read both,

    h_1 = silu(Mixed_1 x)       g_1 = silu(Category_1 x)
    h_2 = silu(Mixed_2 h_1)     g_2 = silu(Category_2 [h_1, g_1])
                                out = Category_3 [h_2, g_2]

so the mixed neurons never read a category's, and are the same for all of them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lifelong_cvae.images import Shape
from lifelong_cvae.model.cpu import silu

# Log variances outside these bounds make `-log q` unbounded.
LOG_VAR_RANGE = (-8.0, 8.0)

GaussianParams = tuple[jax.Array, jax.Array]


def mean_and_log_var(outputs: jax.Array) -> GaussianParams:
    """The two halves of what an encoder gives, `[batch, 2 * latent]`; log variances within bounds."""
    mean, log_var = jnp.split(outputs, 2, axis=-1)
    return mean, jnp.clip(log_var, *LOG_VAR_RANGE)


class MixedNeurons(nn.Module):
    """Hidden layers shared by all categories: `[batch, inputs]` to a list of `[batch, width]`."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: jax.Array) -> list[jax.Array]:
        hidden = []
        for index, width in enumerate(self.widths):
            inputs = silu(nn.Dense(width, name=f"hidden_{index}")(inputs))
            hidden.append(inputs)
        return hidden


class SplitDense(nn.Module):
    """A dense layer that reads several inputs, `[batch, inputs]` each, as if they were one.

    They are not put into one: each is multiplied by its rows of the kernel, so that nothing is copied, and
    no gradient computed of what needs none.
    """

    outputs: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        sizes = [values.shape[-1] for values in inputs]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (sum(sizes), self.outputs))
        rows = jnp.split(kernel, np.cumsum(sizes)[:-1])
        outputs = sum(values @ part for values, part in zip(inputs, rows, strict=True))
        if self.use_bias:
            outputs = outputs + self.param("bias", nn.initializers.zeros, (self.outputs,))[None]
        return outputs


class CategoryNeurons(nn.Module):
    """Hidden layers of one category, beside the mixed ones.

    Takes the input `[batch, inputs]` and the mixed neurons of each layer (an empty list where
    there is no mixed part); returns the neurons of the last layer, the mixed ones, where there are any, and
    its own.
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: jax.Array, mixed: list[jax.Array]) -> list[jax.Array]:
        read = [inputs]
        for index, width in enumerate(self.widths):
            own = silu(SplitDense(width, name=f"hidden_{index}")(*read))
            read = [*mixed[index : index + 1], own]
        return read


class CategoryEncoder(nn.Module):
    """Image and mixed neurons to mean and log variance of q(z|x,c), each `[batch, latent]`."""

    widths: tuple[int, ...]
    latent_size: int

    @nn.compact
    def __call__(self, x: jax.Array, mixed: list[jax.Array]) -> GaussianParams:
        hidden = CategoryNeurons(self.widths, name="neurons")(x, mixed)
        return mean_and_log_var(SplitDense(2 * self.latent_size, name="posterior")(*hidden))


class CategoryDecoder(nn.Module):
    """Latent and mixed neurons to logits `[batch, pixels]`, through a map of low rank.

    And to the numbers of the patches, `[batch, patches]`, where `patches` is not 0 (see `local`).
    """

    widths: tuple[int, ...]
    rank: int
    pixels: int
    patches: int = 0

    @nn.compact
    def __call__(self, z: jax.Array, mixed: list[jax.Array]) -> tuple[jax.Array, jax.Array | None]:
        hidden = CategoryNeurons(self.widths, name="neurons")(z, mixed)
        basis = SplitDense(self.rank, use_bias=False, name="basis")(*hidden)

        # Zero: from random values, pixels that hardly matter keep some of them, and samples are speckled.
        def outputs(size: int, name: str) -> jax.Array:
            return nn.Dense(size, kernel_init=nn.initializers.zeros, name=name)(basis)

        return outputs(self.pixels, "pixels"), outputs(self.patches, "patches") if self.patches else None


class OneHotLayers(nn.Module):
    """Layers that are mixed throughout; a category adds a vector to the first one's input."""

    widths: tuple[int, ...]
    outputs: int

    def setup(self):
        self.hidden = [nn.Dense(width) for width in self.widths]
        self.last = nn.Dense(self.outputs)

    def first(self, inputs: jax.Array) -> jax.Array:
        """What does not depend on the category, `[batch, widths[0]]`."""
        return self.hidden[0](inputs)

    def __call__(self, first: jax.Array, vector: jax.Array) -> jax.Array:
        hidden = silu(first + vector[None])
        for layer in self.hidden[1:]:
            hidden = silu(layer(hidden))
        return self.last(hidden)

    def all_layers(self, inputs: jax.Array, vector: jax.Array) -> jax.Array:
        """Both of them, for `init`."""
        return self(self.first(inputs), vector)


PATCH_SIDE = 4


PATCH_CHANNELS = 16


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
        return -(-height // PATCH_SIDE), -(-width // PATCH_SIDE)

    @property
    def inputs(self) -> int:
        """Length of the input."""
        rows, columns = self.grid
        return rows * columns * PATCH_CHANNELS

    @nn.compact
    def __call__(self, numbers: jax.Array) -> jax.Array:
        (rows, columns), (height, width, channels) = self.grid, self.image_shape
        numbers = silu(numbers).reshape(-1, rows, columns, PATCH_CHANNELS)
        if self.form == "convolution":
            window, stride = (2 * PATCH_SIDE, 2 * PATCH_SIDE), (PATCH_SIDE, PATCH_SIDE)
            drawn = nn.ConvTranspose(channels, window, stride, use_bias=False, name="window")(numbers)
        else:
            patches = nn.Dense(PATCH_SIDE * PATCH_SIDE * channels, use_bias=False, name="patch")(numbers)
            patches = patches.reshape(-1, rows, columns, PATCH_SIDE, PATCH_SIDE, channels)
            drawn = jnp.moveaxis(patches, 3, 2).reshape(-1, rows * PATCH_SIDE, columns * PATCH_SIDE, channels)
        return drawn[:, :height, :width].reshape(len(drawn), -1)
