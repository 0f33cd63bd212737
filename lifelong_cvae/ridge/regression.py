"""Ridge regression from features to categories, computed from sums.

With the features phi of an image, E_c the mean over the images of category c, and C categories,

    m   = sum_c E_c[phi] / C                                   mean
    G   = sum_c E_c[phi phi'] / C - m m'                       covariance
    d   = sqrt(diag G) + a tenth of its mean                   scale of each feature
    w_c = (D^-1 G D^-1 + ridge I)^-1 D^-1 (E_c[phi] - m) / C   with D = diag d
    score_c(x) = w_c' D^-1 (phi(x) - m) + 1 / C

The sums are those of joint training on all images with equal weight per category, in any order: nothing is forgotten,
and only averages are stored. They are exact (`sums`), so the solution is the same bit for bit in every order.
Sources: Zhuang et al. 2022 (ACIL, arXiv 2205.14922), McDonnell et al. 2023 (RanPAC, arXiv 2307.02251). `penalty`
selects `ridge`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.ridge import cholesky, sums
from lifelong_cvae.ridge.moments import Moments, all_indices, compute_moments, correlations, to_float
from lifelong_cvae.ridge.products import multiply_gram
from lifelong_cvae.ridge.sums import ExactSum


class Solution(NamedTuple):
    """Weights of the regression: scores are `phi @ weights + intercept`.

    Attributes:
        weights: float32 `[features, categories]`.
        intercept: float32 `[categories]`.
        own_mean: mean score of a category's own images for it, averaged over the categories, float32.
    """

    weights: jax.Array
    intercept: jax.Array
    own_mean: jax.Array


class Factored(NamedTuple):
    """Factor of the penalized correlations of all features, for images that are standardized alike.

    Attributes:
        columns: L of L L' = D^-1 G D^-1 + ridge I, column after column, as LAPACK writes it: float32
            `[features * features]`. Anything else would be a copy.
        mean: mean of the features, float64 `[features]`.
        scale: D, float64 `[features]`.
        total: weight of all categories, float64.
    """

    columns: jax.Array
    mean: jax.Array
    scale: jax.Array
    total: jax.Array


def solve(
    gram: ExactSum, vectors: np.ndarray, ridge: float, *, order: np.ndarray | None = None, rounding: float = 0.0
) -> tuple[Solution, Factored]:
    """Solves for the weights, in float32 with a step of refinement in float64.

    Args:
        gram: Gram matrix `[packed]`, summed over all categories.
        vectors: sums of features of each category, int64 `[features + 1, categories]`. The last row counts visits; a
            column of zeros stands for no category, and gets scores of 0.
        ridge: penalty relative to the correlation matrix of the features, above 0.
        order: order of the categories in the result, as columns of `vectors`; default theirs.
        rounding: relative error of the sums. A feature whose variance is a smaller part of its mean square is constant,
            and not used.

    Returns:
        The weights, and the factor that they were solved with.
    """
    order = np.arange(vectors.shape[1]) if order is None else order
    with jax.enable_x64(True):
        # Waits, so that its matrix is not in memory beside what is computed next.
        return jax.block_until_ready(_solve(gram, vectors, ridge, np.asarray(order, np.int32), rounding=rounding))


@partial(jax.jit, static_argnames="rounding")
def _solve(
    gram: ExactSum, vectors: jax.Array, ridge: jax.Array, order: jax.Array, *, rounding: float
) -> tuple[Solution, Factored]:
    system = _factored(gram, vectors, ridge, rounding)
    moments, (vector_sums, counts) = system.moments, to_float(vectors)
    weights = system.solve(moments.targets) / moments.scale[:, None]
    intercept = moments.prior - moments.mean @ weights
    own_means = jnp.einsum("dc,dc->c", weights, vector_sums) / jnp.maximum(counts, 1e-9) + intercept
    own_mean = jnp.mean(own_means, where=counts > 0)
    solution = jax.tree.map(jnp.float32, Solution(weights[:, order], intercept[order], own_mean))
    return solution, Factored(system.factor.T.reshape(-1), moments.mean, moments.scale, moments.total)


def scores(
    gram: ExactSum, vectors: np.ndarray, ridge: float, phi: jax.Array, *, rounding: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Computes scores of a few images without solving for the weights of many categories.

    With A the penalized matrix of `solve`, score_c = w_c' z = (A^-1 T_c)' z = T_c' (A^-1 z), and the mean score of a
    category's own images contains T_c' A^-1 T_c = |L^-1 T_c|^2 for the Cholesky factor L.

    Args:
        gram: as in `solve`.
        vectors: as in `solve`.
        ridge: as in `solve`.
        phi: features `[n, features]`.
        rounding: as in `solve`.

    Returns:
        Scores float32 `[n, categories]`, and `Solution.own_mean`.
    """
    with jax.enable_x64(True):
        return jax.block_until_ready(_scores(gram, vectors, ridge, phi, rounding=rounding))


@partial(jax.jit, static_argnames="rounding")
def _scores(
    gram: ExactSum, vectors: jax.Array, ridge: jax.Array, phi: jax.Array, *, rounding: float
) -> tuple[jax.Array, jax.Array]:
    system = _factored(gram, vectors, ridge, rounding)
    moments, (_, counts) = system.moments, to_float(vectors)
    z = (phi.astype(jnp.float64) - moments.mean[None]) / moments.scale[None]
    found = system.solve(z.T).T @ moments.targets + moments.prior[None]
    squares = cholesky.squared_norms(system.factor, moments.targets)
    own_means = squares * moments.total / jnp.maximum(counts, 1e-9) + moments.prior
    return found.astype(jnp.float32), jnp.mean(own_means, where=counts > 0).astype(jnp.float32)


class _System(NamedTuple):
    """The factored problem of `solve`."""

    moments: Moments
    factor: jax.Array
    # From a right side float64 `[features, n]` to the solution, with a step of refinement.
    solve: Callable[[jax.Array], jax.Array]


def _factored(gram: ExactSum, vectors: jax.Array, ridge: jax.Array, rounding: float) -> _System:
    """Factors the penalized correlations of the features in float32."""
    moments = compute_moments(gram, None, vectors, rounding)
    mean, scale = moments.mean, moments.scale
    # Rounding in the factorization is well below the lower bound of the penalty.
    ridge = jnp.maximum(ridge, float(jnp.finfo(jnp.float32).eps) * len(mean) / 8)
    rows, columns = all_indices(len(mean))
    # Below the diagonal, which is not read, an element is computed that is at hand.
    matrix = correlations(gram, None, moments, rows, jnp.maximum(rows, columns)) + ridge * (rows == columns)
    factor = cholesky.factorize(matrix.astype(jnp.float32))

    def multiply(weights: jax.Array) -> jax.Array:
        # Computed from the sums, so that there is only one matrix in memory.
        scaled = weights / scale[:, None]
        second_moment = multiply_gram(gram, scaled) * 2.0**-sums.GRAM_BITS / moments.total
        return (second_moment - jnp.outer(mean, mean @ scaled)) / scale[:, None] + ridge * weights

    def solve(values: jax.Array) -> jax.Array:
        weights = cholesky.solve(factor, values)
        return weights + cholesky.solve(factor, values - multiply(weights))

    return _System(moments, factor, solve)
