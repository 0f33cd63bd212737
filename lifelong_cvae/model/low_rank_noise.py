"""Low-rank residual noise: directions in which images of a category differ from their decoded means.

    x = mean(z) + scale * (sum_j sqrt(excess_j) f_j direction_j + noise),     f_j and noise ~ N(0, 1)

The residual of a decoder is not white: it contains folds, edges, textures. A linear factor model of the residual has a
likelihood in closed form, with f integrated out exactly, and is fitted in closed form after the decoder has been
trained. Source: Tipping and Bishop 1999 (probabilistic principal components), applied to the residual.
"""

import jax
import jax.numpy as jnp

from lifelong_cvae.model.cpu import LANES

LowRankNoise = dict[str, jax.Array]

# Minimum number of images per direction, on average, so that no direction memorizes a single image.
IMAGES_PER_DIRECTION = 20
ITERATIONS = 8
# Additional directions during the fit. Without them the last of the returned directions would converge slowly.
OVERSAMPLING = 10
# Shrinkage of the excess variance. On held-out images the residual is larger, and lies less often in these directions.
SHRINKAGE = 0.5
# Smallest variance of white noise beside the directions, where all dimensions together have 1.
MIN_WHITE_VARIANCE = 0.01


def empty(count: int, pixels: int) -> LowRankNoise:
    """Returns noise without excess variance in any direction: white noise.

    Returns:
        `directions` `[count, pixels]`, orthonormal after a fit, and `excess` `[count]`, the variance beyond that of
        the white noise, in units of the latter.
    """
    return {"directions": jnp.zeros((count, pixels)), "excess": jnp.zeros((count,))}


def fit(residuals: jax.Array, images: jax.Array | int, count: int, *, rng: jax.Array) -> LowRankNoise:
    """Fits the directions of largest variance of `(x - mean(z)) / scale`. Works inside `jit`.

    Uses subspace iteration (Halko, Martinsson and Tropp 2011), since an eigendecomposition of a `[pixels, pixels]`
    matrix would take seconds for color images.

    Args:
        residuals: `[n, pixels]`; padding rows are zero.
        images: number of rows that are not padding. At most one direction is used per `IMAGES_PER_DIRECTION` images.
        count: number of directions.
        rng: key of the initial basis.
    """
    images = jnp.asarray(images, jnp.float32)

    def iteration(basis: jax.Array, _: None) -> tuple[jax.Array, None]:
        return jnp.linalg.qr(residuals.T @ (residuals @ basis))[0], None

    pixels = residuals.shape[1]
    start = jax.random.normal(rng, (pixels, min(count + OVERSAMPLING, pixels)))
    basis = jax.lax.scan(iteration, start, length=ITERATIONS)[0]
    projected = residuals @ basis
    variances, rotation = jnp.linalg.eigh(projected.T @ projected / images)
    is_used = jnp.arange(count) < images // IMAGES_PER_DIRECTION
    excess = SHRINKAGE * jnp.maximum(variances[::-1][:count] - 1, 0)
    return {
        "directions": jnp.where(is_used[:, None], (basis @ rotation[:, ::-1]).T[:count], 0.0),
        "excess": jnp.where(is_used, excess, 0.0),
    }


def separate_white(params: LowRankNoise) -> tuple[LowRankNoise, jax.Array]:
    """Separates the white noise of residuals whose dimensions have a mean variance of 1.

    Its variance is that of the dimensions beside the directions, the maximum likelihood estimate of Tipping and Bishop.

    Args:
        params: fitted to the residuals.

    Returns:
        The noise in units of the white noise, and the variance of the latter.
    """
    excess, pixels = params["excess"] / SHRINKAGE, params["directions"].shape[1]
    used = excess > 0
    explained = jnp.sum(jnp.where(used, excess + 1, 0))
    white = jnp.maximum((pixels - explained) / jnp.maximum(pixels - jnp.sum(used), 1), MIN_WHITE_VARIANCE)
    return {**params, "excess": jnp.where(used, SHRINKAGE * ((excess + 1) / white - 1), 0.0)}, white


def sample(params: LowRankNoise, count: int, *, noise: bool = False, rng: jax.Array) -> jax.Array:
    """Samples residuals in units of the scale, `[count, pixels]`, with the unshrunk excess variance.

    Args:
        params: the fitted noise.
        count: number of samples.
        noise: whether to add white noise in the directions that have an excess. Other directions get none.
        rng: key of the samples.
    """
    excess = params["excess"] / SHRINKAGE
    variances = jnp.where(excess > 0, excess + 1, 0) if noise else excess
    weights = jax.random.normal(rng, (count, len(excess))) * jnp.sqrt(variances)[None]
    return weights @ params["directions"]


def log_likelihood_gain(params: LowRankNoise, residuals: jax.Array) -> jax.Array:
    """Computes log N(u; 0, I + D' diag(excess) D) - log N(u; 0, I) in nats, `[batch]`.

    Uses the identities of Woodbury and Sylvester; the directions D are orthonormal.

    Args:
        params: the fitted noise.
        residuals: u, `[batch, pixels]`.
    """
    padding = -len(params["excess"]) % LANES
    excess = jnp.pad(params["excess"], (0, padding))
    projected = residuals @ jnp.pad(params["directions"], ((0, padding), (0, 0))).T
    explained = jnp.sum(jnp.square(projected) * (excess / (1 + excess))[None], axis=-1)
    return 0.5 * (explained - jnp.sum(jnp.log1p(excess)))
