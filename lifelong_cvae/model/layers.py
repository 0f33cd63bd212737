"""Layers of the networks, as Flax modules. `networks` assembles them.

In every hidden layer the neurons of the category stand beside the mixed ones and read both,

    h_1 = silu(Mixed_1 x)       g_1 = silu(Category_1 x)
    h_2 = silu(Mixed_2 h_1)     g_2 = silu(Category_2 [h_1, g_1])
                                out = Category_3 [h_2, g_2]

so the mixed neurons never read those of a category, and their activations are the same for all categories.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lifelong_cvae.images import Shape
from lifelong_cvae.model.cpu import silu

# Without bounds on log variances, `-log q` is unbounded.
LOG_VAR_RANGE = (-8.0, 8.0)

# Height and width of a patch of the local decoder, in pixels.
PATCH_SIDE = 4
# Features of a patch.
PATCH_CHANNELS = 16

GaussianParams = tuple[jax.Array, jax.Array]


def mean_and_log_var(outputs: jax.Array) -> GaussianParams:
    """Splits encoder outputs `[batch, 2 * latent]` into the mean and the clipped log variance."""
    mean, log_var = jnp.split(outputs, 2, axis=-1)
    return mean, jnp.clip(log_var, *LOG_VAR_RANGE)


class MixedNeurons(nn.Module):
    """Hidden layers of the mixed part: `[batch, inputs]` to a list with `[batch, width]` per layer."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: jax.Array) -> list[jax.Array]:
        activations = []
        for index, width in enumerate(self.widths):
            inputs = silu(nn.Dense(width, name=f"hidden_{index}")(inputs))
            activations.append(inputs)
        return activations


class SplitDense(nn.Module):
    """Dense layer of several inputs, `[batch, inputs]` each, equal to one of their concatenation.

    Each input is multiplied by its rows of the kernel. Nothing is copied, and inputs that need no gradient get none.
    """

    outputs: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        sizes = [values.shape[-1] for values in inputs]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (sum(sizes), self.outputs))
        kernel_rows = jnp.split(kernel, np.cumsum(sizes)[:-1])
        outputs = sum(values @ rows for values, rows in zip(inputs, kernel_rows, strict=True))
        if self.use_bias:
            outputs = outputs + self.param("bias", nn.initializers.zeros, (self.outputs,))[None]
        return outputs


class CategoryNeurons(nn.Module):
    """Hidden layers of one category, beside the mixed ones.

    Takes inputs `[batch, inputs]` and the mixed activations of each layer, an empty list if there is no mixed part.
    Returns the activations of the last layer as a list: the mixed ones, if there are any, and those of the category.
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: jax.Array, activations: list[jax.Array]) -> list[jax.Array]:
        hidden = [inputs]
        for index, width in enumerate(self.widths):
            category_activations = silu(SplitDense(width, name=f"hidden_{index}")(*hidden))
            hidden = [*activations[index : index + 1], category_activations]
        return hidden


class CategoryEncoder(nn.Module):
    """Images and mixed activations to the mean and log variance of q(z|x,c), each `[batch, latent]`."""

    widths: tuple[int, ...]
    latent_size: int

    @nn.compact
    def __call__(self, x: jax.Array, activations: list[jax.Array]) -> GaussianParams:
        hidden = CategoryNeurons(self.widths, name="neurons")(x, activations)
        return mean_and_log_var(SplitDense(2 * self.latent_size, name="posterior")(*hidden))


class CategoryDecoder(nn.Module):
    """Latents and mixed activations to logits `[batch, pixels]`, through a map of rank `output_rank`.

    Also returns the inputs of a `LocalDecoder`, `[batch, patch_features]`, or None if `patch_features` is 0.
    """

    widths: tuple[int, ...]
    output_rank: int
    pixels: int
    patch_features: int = 0

    @nn.compact
    def __call__(self, z: jax.Array, activations: list[jax.Array]) -> tuple[jax.Array, jax.Array | None]:
        hidden = CategoryNeurons(self.widths, name="neurons")(z, activations)
        basis = SplitDense(self.output_rank, use_bias=False, name="basis")(*hidden)

        # Random initial values would remain in pixels that hardly matter to the loss, and samples would be speckled.
        def zero_initialized(size: int, name: str) -> jax.Array:
            return nn.Dense(size, kernel_init=nn.initializers.zeros, name=name)(basis)

        logits = zero_initialized(self.pixels, "pixels")
        return logits, zero_initialized(self.patch_features, "patches") if self.patch_features else None


class OneHotLayers(nn.Module):
    """Mixed layers of the one-hot CVAE. A category adds a vector before the first nonlinearity.

    `first_layer` computes the part that does not depend on the category, `[batch, widths[0]]`. Calling the module with
    it and the vector `[widths[0]]` gives `[batch, outputs]`. `all_layers` does both, for `init`.
    """

    widths: tuple[int, ...]
    outputs: int

    def setup(self):
        self.hidden = [nn.Dense(width) for width in self.widths]
        self.last = nn.Dense(self.outputs)

    def first_layer(self, inputs: jax.Array) -> jax.Array:
        return self.hidden[0](inputs)

    def __call__(self, activations: jax.Array, vector: jax.Array) -> jax.Array:
        hidden = silu(activations + vector[None])
        for layer in self.hidden[1:]:
            hidden = silu(layer(hidden))
        return self.last(hidden)

    def all_layers(self, inputs: jax.Array, vector: jax.Array) -> jax.Array:
        return self(self.first_layer(inputs), vector)


class LocalDecoder(nn.Module):
    """Decoder of local structure: patch features `[batch, inputs]` to logits `[batch, pixels]`.

    It works beside the category's map from its last hidden layer to all pixels at once. The category's decoder gives
    `PATCH_CHANNELS` features for every patch of a grid, and neurons that are the same for all patches map them to
    pixels. These neurons belong to the mixed part: local structure, such as the look of edges, is learned once, during
    the base categories. Without a mixed part every category has its own. `form` is one of

        `patches`       patch = W silu(features): a matrix product over patches without overlap (depth to space),
                        fast on every device
        `convolution`   image = transposed convolution of silu(features), with overlapping windows of twice the patch's
                        side: for GPU and TPU

    Patches without overlap after Shi et al. 2016 (arXiv 1609.05158, sub-pixel convolution). If height or width is not a
    multiple of `PATCH_SIDE`, images are cropped from larger ones.
    """

    form: str
    image_shape: Shape

    @property
    def grid(self) -> tuple[int, int]:
        """Number of rows and columns of patches."""
        height, width, _ = self.image_shape
        return -(-height // PATCH_SIDE), -(-width // PATCH_SIDE)

    @property
    def inputs(self) -> int:
        """Length of the input, rows * columns * PATCH_CHANNELS."""
        rows, columns = self.grid
        return rows * columns * PATCH_CHANNELS

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        (rows, columns), (height, width, channels) = self.grid, self.image_shape
        features = silu(features).reshape(-1, rows, columns, PATCH_CHANNELS)
        if self.form == "convolution":
            window, stride = (2 * PATCH_SIDE, 2 * PATCH_SIDE), (PATCH_SIDE, PATCH_SIDE)
            images = nn.ConvTranspose(channels, window, stride, use_bias=False, name="window")(features)
        else:
            patches = nn.Dense(PATCH_SIDE * PATCH_SIDE * channels, use_bias=False, name="patch")(features)
            patches = patches.reshape(-1, rows, columns, PATCH_SIDE, PATCH_SIDE, channels)
            images = jnp.moveaxis(patches, 3, 2).reshape(-1, rows * PATCH_SIDE, columns * PATCH_SIDE, channels)
        return images[:, :height, :width].reshape(len(images), -1)
