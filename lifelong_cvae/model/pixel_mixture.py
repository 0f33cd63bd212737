"""Distribution of one pixel: a mixture of logistic distributions on the values of its channels.

A channel has `LEVELS` values from 0 to 1. The probability of a value is the integral of the logistic density over the
step around it; the outermost steps are unbounded. The channels of a pixel belong to the same component and follow one
another: the mean of a channel moves with the values of the channels before it. Source: Salimans et al. 2017 (arXiv
1701.05517, PixelCNN++).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

COMPONENTS = 5
# Values of a channel, 0 to 1 in equal steps.
LEVELS = 256
HALF_STEP = 0.5 / (LEVELS - 1)
# A larger scale would be as flat, and its probabilities would underflow.
LOG_SCALE_RANGE = (-5.5, 1.0)
INITIAL_LOG_SCALE = -3.0
# Initial means of the components are spread over so much to both sides of the center.
INITIAL_SPREAD = 0.05


class Mixture(NamedTuple):
    """Mixture of one pixel, for `n` pixels."""

    logits: jax.Array  # [n, components]
    offsets: jax.Array  # [n, components, channels], means relative to the center
    log_scales: jax.Array  # [n, components, channels]
    slopes: jax.Array  # [n, components, pairs of channels], within -1 and 1


def num_outputs(channels: int) -> int:
    """Returns the number of a network's outputs for a pixel, from which `mixture` is made."""
    return COMPONENTS * (1 + 2 * channels + math.comb(channels, 2))


def initial_outputs(channels: int) -> np.ndarray:
    """Returns outputs of equal components around the center, float32 `[outputs]`."""
    offsets = np.repeat(np.linspace(-INITIAL_SPREAD, INITIAL_SPREAD, COMPONENTS), channels)
    log_scales = np.full(COMPONENTS * channels, INITIAL_LOG_SCALE)
    rest = np.zeros(COMPONENTS * math.comb(channels, 2))
    return np.concatenate([np.zeros(COMPONENTS), offsets, log_scales, rest]).astype(np.float32)


def mixture(outputs: jax.Array, channels: int) -> Mixture:
    """Makes mixtures from outputs of a network, `[n, outputs]`."""
    sizes = COMPONENTS * np.cumsum([1, channels, channels])
    logits, *parts = jnp.split(outputs, sizes, axis=-1)
    offsets, log_scales, slopes = (part.reshape(len(outputs), COMPONENTS, -1) for part in parts)
    return Mixture(logits, offsets, jnp.clip(log_scales, *LOG_SCALE_RANGE), jnp.tanh(slopes))


def log_prob(params: Mixture, x: jax.Array, center: jax.Array) -> jax.Array:
    """Computes the log probability of pixels in nats, `[n]`.

    Args:
        params: mixtures of the pixels.
        x: values of the channels in [0, 1], `[n, channels]`.
        center: values that the mixtures' offsets are relative to, `[n, channels]`.
    """
    deviations = x - center
    means = params.offsets + jnp.stack(
        [_moved(params, deviations[:, None], channel) for channel in range(x.shape[1])], axis=-1
    )
    distances = (deviations[:, None] - means) * jnp.exp(-params.log_scales)
    half_steps = HALF_STEP * jnp.exp(-params.log_scales)
    below = jax.nn.log_sigmoid(distances + half_steps)  # log probability of at most x
    above = jax.nn.log_sigmoid(half_steps - distances)  # log probability of at least x
    between = below + above + jnp.log(-jnp.expm1(-2 * half_steps))
    values = x[:, None]
    per_channel = jnp.where(values < HALF_STEP, below, jnp.where(values > 1 - HALF_STEP, above, between))
    return jax.nn.logsumexp(jax.nn.log_softmax(params.logits) + per_channel.sum(axis=-1), axis=-1)


def _moved(params: Mixture, deviations: jax.Array, channel: int) -> jax.Array:
    """Returns by how much the channels before `channel` move its means, `[n, components]`."""
    first = math.comb(channel, 2)
    slopes = params.slopes[..., first : first + channel]
    return jnp.sum(slopes * deviations[..., :channel], axis=-1)


def sample(params: Mixture, center: jax.Array, *, rng: jax.Array) -> jax.Array:
    """Samples values of the channels, `[n, channels]`, each one of `LEVELS`. Arguments as in `log_prob`."""
    component_rng, noise_rng = jax.random.split(rng)
    component = jax.random.categorical(component_rng, params.logits)[:, None, None]
    # One component is left of each pixel.
    drawn = Mixture(params.logits, *(jnp.take_along_axis(part, component, axis=1) for part in params[1:]))
    noise = jnp.exp(drawn.log_scales[:, 0]) * jax.random.logistic(noise_rng, center.shape)
    values = jnp.zeros_like(center)
    for channel in range(center.shape[1]):
        moved = _moved(drawn, (values - center)[:, None], channel)[:, 0]
        value = center[:, channel] + drawn.offsets[:, 0, channel] + moved + noise[:, channel]
        values = values.at[:, channel].set(to_levels(value))
    return values


def to_levels(values: jax.Array) -> jax.Array:
    """Rounds values to the nearest of `LEVELS` from 0 to 1."""
    return jnp.round(jnp.clip(values, 0, 1) * (LEVELS - 1)) / (LEVELS - 1)
