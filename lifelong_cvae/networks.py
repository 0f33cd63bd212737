"""Flax modules: the mixed part, which all categories share, and the part that one category owns.

In every hidden layer the category's neurons stand beside the mixed ones and read both:

    h_1 = silu(Mixed_1 x)       g_1 = silu(Category_1 x)
    h_2 = silu(Mixed_2 h_1)     g_2 = silu(Category_2 [h_1, g_1])
                                out = Category_3 [h_2, g_2]

The mixed neurons never read a category's, so they are the same for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn

from lifelong_cvae.config import NetworkConfig
from lifelong_cvae.images import Shape

# Log variances outside these bounds make `-log q` unbounded.
LOG_VAR_RANGE = (-8.0, 8.0)


class MixedNeurons(nn.Module):
    """Hidden layers shared by all categories: `[batch, inputs]` to a list of `[batch, width]`."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: jax.Array) -> list[jax.Array]:
        hidden = []
        for index, width in enumerate(self.widths):
            inputs = nn.silu(nn.Dense(width, name=f"hidden_{index}")(inputs))
            hidden.append(inputs)
        return hidden


class CategoryNeurons(nn.Module):
    """Hidden layers of one category, beside the mixed ones.

    Takes the input `[batch, inputs]` and the mixed neurons of each layer (an empty list where
    there is no mixed part); returns mixed and own neurons of the last layer, side by side.
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: jax.Array, mixed: list[jax.Array]) -> jax.Array:
        for index, width in enumerate(self.widths):
            own = nn.silu(nn.Dense(width, name=f"hidden_{index}")(inputs))
            inputs = jnp.concatenate([mixed[index], own], axis=-1) if mixed else own
        return inputs


class CategoryEncoder(nn.Module):
    """Image and mixed neurons to mean and log variance of q(z|x,c), each `[batch, latent]`."""

    widths: tuple[int, ...]
    latent_size: int

    @nn.compact
    def __call__(self, x: jax.Array, mixed: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        hidden = CategoryNeurons(self.widths, name="neurons")(x, mixed)
        mean, log_var = jnp.split(nn.Dense(2 * self.latent_size, name="posterior")(hidden), 2, axis=-1)
        return mean, jnp.clip(log_var, *LOG_VAR_RANGE)


class CategoryDecoder(nn.Module):
    """Latent and mixed neurons to logits `[batch, pixels]`, through a map of low rank."""

    widths: tuple[int, ...]
    rank: int
    pixels: int

    @nn.compact
    def __call__(self, z: jax.Array, mixed: list[jax.Array]) -> jax.Array:
        hidden = CategoryNeurons(self.widths, name="neurons")(z, mixed)
        basis = nn.Dense(self.rank, use_bias=False, name="basis")(hidden)
        # Zero: from random values, pixels that hardly matter keep some of them, and samples are speckled.
        return nn.Dense(self.pixels, kernel_init=nn.initializers.zeros, name="pixels")(basis)


@dataclass(frozen=True)
class Networks:
    """The four modules of a model. Static: hashable, equal by value.

    The mixed ones are None where there is no mixed part.
    """

    mixed_encoder: MixedNeurons | None
    mixed_decoder: MixedNeurons | None
    category_encoder: CategoryEncoder
    category_decoder: CategoryDecoder
    likelihood: str
    latent_size: int
    pixels: int


def build(config: NetworkConfig, image_shape: Shape, *, has_mixed: bool) -> Networks:
    """The modules for images of `image_shape` (height, width, channels)."""
    height, width, channels = image_shape
    pixels = height * width * channels
    mirrored = config.category_widths[::-1]
    return Networks(
        mixed_encoder=MixedNeurons(config.mixed_widths) if has_mixed else None,
        mixed_decoder=MixedNeurons(config.mixed_widths[::-1]) if has_mixed else None,
        category_encoder=CategoryEncoder(config.category_widths, config.latent_size),
        category_decoder=CategoryDecoder(mirrored, config.rank, pixels),
        likelihood=config.likelihood,
        latent_size=config.latent_size,
        pixels=pixels,
    )
