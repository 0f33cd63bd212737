"""Moments of features, computed from sums: mean, scale, targets and correlations, in float64.

Traceable, with 64 bits. Formulas: `regression`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lifelong_cvae.ridge import sums
from lifelong_cvae.ridge.sums import ExactSum

# Added to the scale of each feature: a part of the mean scale.
SCALE_FLOOR = 0.1
# Scale of a feature that is constant but for rounding, which thus gets no weight.
CONSTANT_SCALE = 1e30


class Moments(NamedTuple):
    """Moments of the features and standardized targets, float64."""

    mean: jax.Array  # [features]
    scale: jax.Array  # [features]
    prior: jax.Array  # [categories], weight of each category
    targets: jax.Array  # [features, categories]
    total: jax.Array  # scalar, weight of all categories


def to_float(vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the sums `[features, categories]` and the weights of the categories."""
    values = vectors.astype(jnp.float64) * 2.0**-sums.VECTOR_BITS
    return values[:-1], values[-1]


def compute_moments(gram: ExactSum, without: ExactSum | None, vectors: jax.Array, rounding: float) -> Moments:
    """Computes the moments, with a floor under the scale. That of a constant feature is very large."""
    vector_sums, counts = to_float(vectors)
    total = counts.sum()
    mean, prior = vector_sums.sum(axis=1) / total, counts / total
    diagonal = jnp.arange(len(mean), dtype=jnp.int32)
    mean_square = second_moments(gram, without, diagonal, diagonal, len(mean)) / total
    variance = mean_square - mean**2
    scale = jnp.sqrt(jnp.maximum(variance, 0))
    scale += jnp.maximum(SCALE_FLOOR * scale.mean(), 1e-6)
    if rounding:
        scale = jnp.where(variance > rounding * mean_square, scale, CONSTANT_SCALE)
    targets = (vector_sums / total - jnp.outer(mean, prior)) / scale[:, None]
    return Moments(mean, scale, prior, targets, total)


def second_moments(
    gram: ExactSum, without: ExactSum | None, rows: jax.Array, columns: jax.Array, size: int
) -> jax.Array:
    """Returns elements of the Gram matrix, less those of `without`, float64."""
    exact = sums.gram_elements(gram, rows, columns, size)
    if without is not None:
        exact -= sums.gram_elements(without, rows, columns, size)
    return exact * 2.0**-sums.GRAM_BITS


def correlations(
    gram: ExactSum, without: ExactSum | None, moments: Moments, rows: jax.Array, columns: jax.Array
) -> jax.Array:
    """Returns correlations of features, float64, with the scale of `moments`."""
    mean, scale = moments.mean, moments.scale
    moment = second_moments(gram, without, rows, columns, len(mean)) / moments.total
    return (moment - mean[rows] * mean[columns]) / (scale[rows] * scale[columns])


def all_indices(size: int) -> tuple[jax.Array, jax.Array]:
    """Returns the row and the column of each element of a square matrix, int32."""
    return tuple(jax.lax.broadcasted_iota(jnp.int32, (size, size), axis) for axis in (0, 1))
