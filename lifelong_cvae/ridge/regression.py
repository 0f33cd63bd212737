"""Ridge regression from features to categories, computed from sums.

With the features phi of an image, E_c the mean over the images of category c, and C categories,

    m   = sum_c E_c[phi] / C                                   mean
    G   = sum_c E_c[phi phi'] / C - m m'                       covariance
    d   = sqrt(diag G) + a tenth of its mean                   scale of each feature
    w_c = (D^-1 G D^-1 + ridge I)^-1 D^-1 (E_c[phi] - m) / C   with D = diag d
    score_c(x) = w_c' D^-1 (phi(x) - m) + 1 / C

The sums are those of joint training on all images with equal weight per category, in any order: nothing is forgotten,
and only averages are stored. They are exact (`sums`), so the solution is the same bit for bit in every order.
Sources: Zhuang et al. 2022 (ACIL, arXiv 2205.14922), McDonnell et al. 2023 (RanPAC, arXiv 2307.02251). The squared
error on held-out images, by which `ridge` is selected, is a function of sums too.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.ridge import sums
from lifelong_cvae.ridge.sums import ExactSum

RIDGES = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 3))
FIRST_RIDGE = RIDGES[2]  # 1e-3
# The ridge is selected with every fourth feature, which takes a sixty-fourth of the time.
SEARCH_STRIDE = 4
# Added to the scale of each feature: a part of the mean scale.
SCALE_FLOOR = 0.1

# Scale of a feature that is constant but for rounding, which thus gets no weight.
CONSTANT_SCALE = 1e30

# Rows of the matrix that are computed in float64 at once.
ROWS = 256


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


class _Moments(NamedTuple):
    """Moments of the features and standardized targets, float64."""

    mean: jax.Array  # [features]
    scale: jax.Array  # [features]
    prior: jax.Array  # [categories], weight of each category
    targets: jax.Array  # [features, categories]
    total: jax.Array  # scalar, weight of all categories


class _HeldOutProblem(NamedTuple):
    """Problem without held-out images, and their squared error w' Q w - 2 w' l, float64."""

    matrix: jax.Array  # correlations, [features, features]
    targets: jax.Array  # [features, categories]
    quadratic: jax.Array  # Q, [features, features]
    linear: jax.Array  # l, [features, categories]


def solve(
    gram: ExactSum, vectors: np.ndarray, ridge: float, *, order: np.ndarray | None = None, rounding: float = 0.0
) -> Solution:
    """Solves for the weights, in float32 with a step of refinement in float64.

    Args:
        gram: Gram matrix `[packed]`, summed over all categories.
        vectors: sums of features of each category, int64 `[features + 1, categories]`. The last row counts visits; a
            column of zeros stands for no category, and gets scores of 0.
        ridge: penalty relative to the correlation matrix of the features, above 0.
        order: order of the categories in the result, as columns of `vectors`; default theirs.
        rounding: relative error of the sums. A feature whose variance is a smaller part of its mean square is constant,
            and not used.
    """
    order = np.arange(vectors.shape[1]) if order is None else order
    with jax.enable_x64(True):
        # Waits, so that its matrix is not in memory beside what is computed next.
        return jax.block_until_ready(_solve(gram, vectors, ridge, np.asarray(order, np.int32), rounding=rounding))


@partial(jax.jit, static_argnames="rounding")
def _solve(gram: ExactSum, vectors: jax.Array, ridge: jax.Array, order: jax.Array, *, rounding: float) -> Solution:
    system = _factored(gram, vectors, ridge, rounding)
    moments, (vector_sums, counts) = system.moments, _to_float(vectors)
    weights = system.solve(moments.targets) / moments.scale[:, None]
    intercept = moments.prior - moments.mean @ weights
    own_means = jnp.einsum("dc,dc->c", weights, vector_sums) / jnp.maximum(counts, 1e-9) + intercept
    own_mean = jnp.mean(own_means, where=counts > 0)
    return jax.tree.map(jnp.float32, Solution(weights[:, order], intercept[order], own_mean))


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
    moments, (_, counts) = system.moments, _to_float(vectors)
    z = (phi.astype(jnp.float64) - moments.mean[None]) / moments.scale[None]
    found = system.solve(z.T).T @ moments.targets + moments.prior[None]
    squares = system.squared_norms(moments.targets)
    own_means = squares * moments.total / jnp.maximum(counts, 1e-9) + moments.prior
    return found.astype(jnp.float32), jnp.mean(own_means, where=counts > 0).astype(jnp.float32)


class _System(NamedTuple):
    """The factored problem of `solve`."""

    moments: _Moments
    # From a right side float64 `[features, n]` to the solution, with a step of refinement.
    solve: Callable[[jax.Array], jax.Array]
    # From vectors v `[features, n]` to v' A^-1 v, `[n]`, not refined.
    squared_norms: Callable[[jax.Array], jax.Array]


def _factored(gram: ExactSum, vectors: jax.Array, ridge: jax.Array, rounding: float) -> _System:
    """Factors the penalized correlations of the features in float32."""
    moments = _moments(gram, None, vectors, rounding)
    size, correlation = len(moments.mean), partial(_correlation, gram, None, moments)
    # Rounding in the factorization is well below the lower bound of the penalty.
    ridge = jnp.maximum(ridge, float(jnp.finfo(jnp.float32).eps) * size / 8)

    def multiply(weights: jax.Array) -> jax.Array:
        # Elements are computed again, some rows at a time, so that there is only one matrix in memory.
        height, columns = min(ROWS, size), jnp.arange(size, dtype=jnp.int32)
        parts = jnp.pad(columns, (0, -size % height), mode="edge").reshape(-1, height)
        products = jax.lax.map(lambda rows: correlation(*jnp.meshgrid(rows, columns, indexing="ij")) @ weights, parts)
        return products.reshape(-1, weights.shape[1])[:size] + ridge * weights

    rows, columns = _indices(size)
    # Below the diagonal, which is not read, an element is computed that is at hand.
    matrix = correlation(rows, jnp.maximum(rows, columns)) + ridge * (rows == columns)
    factor = _cholesky(matrix.astype(jnp.float32))

    def solve(values: jax.Array) -> jax.Array:
        weights = _solve_factored(factor, values)
        return weights + _solve_factored(factor, values - multiply(weights))

    def squared_norms(values: jax.Array) -> jax.Array:
        return jnp.square(_solve_triangular(factor, values, transpose=False)).sum(axis=0)

    return _System(moments, solve, squared_norms)


def select_ridge(
    gram: ExactSum, held_out: ExactSum, fit_vectors: np.ndarray, held_out_vectors: np.ndarray, *, rounding: float = 0.0
) -> float:
    """Selects the ridge penalty on held-out images.

    The selected penalty is half a decade below the one with the least squared error, because squared error asks for
    more shrinkage than accuracy does. The search goes downhill from `FIRST_RIDGE`, which stays if nothing is held out.

    Args:
        gram: Gram matrix `[packed]` of every `SEARCH_STRIDE`-th feature, over all images.
        held_out: the same over held-out images.
        fit_vectors: sums of these features of each category over images that are not held out, int64
            `[features + 1, categories]`; columns of zeros stand for no category.
        held_out_vectors: the same over held-out images.
        rounding: as in `solve`.
    """
    if not held_out_vectors.any():
        return FIRST_RIDGE
    best = RIDGES.index(FIRST_RIDGE)
    with jax.enable_x64(True):
        problem = _held_out_problem(gram, held_out, fit_vectors, held_out_vectors, rounding=rounding)

        @cache
        def error(index: int) -> float:
            return float(_held_out_error(problem, RIDGES[index])) if 0 <= index < len(RIDGES) else np.inf

        while (nearest := min((best, best - 1, best + 1), key=error)) != best:
            best = nearest
    return RIDGES[max(best - 1, 0)]


@partial(jax.jit, static_argnames="rounding")
def _held_out_problem(
    gram: ExactSum, held_out: ExactSum, fit_vectors: jax.Array, held_out_vectors: jax.Array, *, rounding: float
) -> _HeldOutProblem:
    moments = _moments(gram, held_out, fit_vectors, rounding)
    mean, scale = moments.mean, moments.scale
    matrix = _correlation(gram, held_out, moments, *_indices(len(mean)))
    vector_sums, counts = _to_float(held_out_vectors)
    # About the mean of the images that are not held out.
    cross = jnp.outer(mean, vector_sums.sum(axis=1))
    quadratic = _second_moment(held_out, None, *_indices(len(mean)), len(mean))
    quadratic += counts.sum() * jnp.outer(mean, mean) - cross - cross.T
    standardized = (vector_sums - jnp.outer(mean, counts)) / scale[:, None]
    linear = standardized - jnp.outer(standardized.sum(axis=1), moments.prior)
    return _HeldOutProblem(matrix, moments.targets, quadratic / jnp.outer(scale, scale), linear)


@jax.jit
def _held_out_error(problem: _HeldOutProblem, ridge: jax.Array) -> jax.Array:
    """Computes the squared error of held-out images' scores, but for a constant."""
    # A quarter of the features needs a quarter of the penalty: their correlation matrix has a quarter of the trace.
    rows, columns = _indices(len(problem.matrix))
    matrix = problem.matrix + ridge / SEARCH_STRIDE * (rows == columns)
    weights = _solve_factored(_cholesky(matrix), problem.targets)
    return jnp.sum(weights * (problem.quadratic @ weights)) - 2 * jnp.sum(weights * problem.linear)


def _to_float(vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the sums `[features, categories]` and the weights of the categories."""
    values = vectors.astype(jnp.float64) * 2.0**-sums.VECTOR_BITS
    return values[:-1], values[-1]


def _moments(gram: ExactSum, without: ExactSum | None, vectors: jax.Array, rounding: float) -> _Moments:
    """Computes the moments, with a floor under the scale. That of a constant feature is very large."""
    vector_sums, counts = _to_float(vectors)
    total = counts.sum()
    mean, prior = vector_sums.sum(axis=1) / total, counts / total
    diagonal = jnp.arange(len(mean), dtype=jnp.int32)
    mean_square = _second_moment(gram, without, diagonal, diagonal, len(mean)) / total
    variance = mean_square - mean**2
    scale = jnp.sqrt(jnp.maximum(variance, 0))
    scale += jnp.maximum(SCALE_FLOOR * scale.mean(), 1e-6)
    if rounding:
        scale = jnp.where(variance > rounding * mean_square, scale, CONSTANT_SCALE)
    targets = (vector_sums / total - jnp.outer(mean, prior)) / scale[:, None]
    return _Moments(mean, scale, prior, targets, total)


def _second_moment(
    gram: ExactSum, without: ExactSum | None, rows: jax.Array, columns: jax.Array, size: int
) -> jax.Array:
    """Returns elements of the Gram matrix, less those of `without`, float64."""
    exact = sums.gram_elements(gram, rows, columns, size)
    if without is not None:
        exact -= sums.gram_elements(without, rows, columns, size)
    return exact * 2.0**-sums.GRAM_BITS


def _correlation(
    gram: ExactSum, without: ExactSum | None, moments: _Moments, rows: jax.Array, columns: jax.Array
) -> jax.Array:
    """Returns correlations of features, float64, with the scale of `_moments`."""
    mean, scale = moments.mean, moments.scale
    moment = _second_moment(gram, without, rows, columns, len(mean)) / moments.total
    return (moment - mean[rows] * mean[columns]) / (scale[rows] * scale[columns])


def _cholesky(matrix: jax.Array) -> jax.Array:
    """Factors a positive definite matrix in its own type; only its upper triangle is read."""
    # LAPACK reads columns first, so that transposing copies nothing.
    return jax.lax.linalg.cholesky(matrix.T, symmetrize_input=False)


def _solve_factored(factor: jax.Array, values: jax.Array) -> jax.Array:
    """Solves for values `[features, n]`, in the type of the factor: float64 `[features, n]`."""
    return _solve_triangular(factor, _solve_triangular(factor, values, transpose=False), transpose=True)


def _solve_triangular(factor: jax.Array, values: jax.Array, *, transpose: bool) -> jax.Array:
    solved = jax.lax.linalg.triangular_solve(
        factor, values.astype(factor.dtype), left_side=True, lower=True, transpose_a=transpose
    )
    return solved.astype(jnp.float64)


def _indices(size: int) -> tuple[jax.Array, jax.Array]:
    """Returns the row and the column of each element of a square matrix, int32."""
    return tuple(jax.lax.broadcasted_iota(jnp.int32, (size, size), axis) for axis in (0, 1))
