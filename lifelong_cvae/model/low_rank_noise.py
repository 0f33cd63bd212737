"""Factors: directions in which images of a category differ from what its decoder draws.

    x = mean(z) + scale * (sum_j sqrt(excess_j) f_j direction_j + noise),     f_j and noise ~ N(0, 1)

A decoder leaves a remainder that is not white: folds, edges, textures. A linear factor model of the remainder
has a likelihood in closed form, with f integrated out exactly, and is fitted in closed form once the decoder
has been trained. Source: Tipping and Bishop 1999 (probabilistic principal components), of the remainder.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

LowRankNoise = dict[str, jax.Array]

# A direction stands for at least so many images on average: it must not remember one of them.
IMAGES_PER_DIRECTION = 20
ITERATIONS = 8
# Columns of a product are computed so many at a time: 50 take twice as long as 64 on a CPU with AVX-512.
LANES = 16
# Directions more than asked for, without which the last of these would converge slowly.
OVERSAMPLING = 10
# Part of the excess that is believed: what a decoder leaves of images that it has not seen is larger, and
# less often in these directions.
SHRINKAGE = 0.5


def empty(count: int, pixels: int) -> LowRankNoise:
    """No excess in any direction: white noise alone.

    Returns:
        `directions` `[count, pixels]`, orthonormal once they are fitted, and `excess` `[count]`, variance
        beyond that of the noise, in units of it.
    """
    return {"directions": jnp.zeros((count, pixels)), "excess": jnp.zeros((count,))}


def fit(remainders: jax.Array, images: jax.Array | int, count: int, *, rng: jax.Array) -> LowRankNoise:
    """The directions of largest variance of `(x - mean(z)) / scale`. Works inside `jit`.

    Subspace iteration (Halko, Martinsson and Tropp 2011), for an eigendecomposition of all pixels by all
    pixels would take seconds for color images.

    Args:
        remainders: `[n, pixels]`; rows of zeros are no images.
        images: how many rows are images; at most one direction per `IMAGES_A_FACTOR` of them is used.
        count: number of directions.
        rng: where the iteration starts.
    """
    images = jnp.asarray(images, jnp.float32)

    def iteration(basis: jax.Array, _: None) -> tuple[jax.Array, None]:
        return jnp.linalg.qr(remainders.T @ (remainders @ basis))[0], None

    pixels = remainders.shape[1]
    start = jax.random.normal(rng, (pixels, min(count + OVERSAMPLING, pixels)))
    basis = jax.lax.scan(iteration, start, length=ITERATIONS)[0]
    projected = remainders @ basis
    variances, rotation = jnp.linalg.eigh(projected.T @ projected / images)
    used = jnp.arange(count) < images // IMAGES_PER_DIRECTION
    excess = SHRINKAGE * jnp.maximum(variances[::-1][:count] - 1, 0)
    return {
        "directions": jnp.where(used[:, None], (basis @ rotation[:, ::-1]).T[:count], 0.0),
        "excess": jnp.where(used, excess, 0.0),
    }


def sample(factors: LowRankNoise, count: int, *, noise: bool = False, rng: jax.Array) -> jax.Array:
    """Remainders in scales, with all the excess that was found: `[count, pixels]`.

    With `noise` also what white noise has in directions that have an excess, and nothing in others.
    """
    excess = factors["excess"] / SHRINKAGE
    variances = jnp.where(excess > 0, excess + 1, 0) if noise else excess
    weights = jax.random.normal(rng, (count, len(excess))) * jnp.sqrt(variances)[None]
    return weights @ factors["directions"]


def log_likelihood_gain(factors: LowRankNoise, remainders: jax.Array) -> jax.Array:
    """Log N(u; 0, I + D' diag(excess) D) - log N(u; 0, I) in nats: `[batch]`, for u `[batch, pixels]`.

    By the identities of Woodbury and Sylvester, the directions D being orthonormal.
    """
    missing = -len(factors["excess"]) % LANES
    excess = jnp.pad(factors["excess"], (0, missing))
    projected = remainders @ jnp.pad(factors["directions"], ((0, missing), (0, 0))).T
    explained = jnp.sum(jnp.square(projected) * (excess / (1 + excess))[None], axis=-1)
    return 0.5 * (explained - jnp.sum(jnp.log1p(excess)))
