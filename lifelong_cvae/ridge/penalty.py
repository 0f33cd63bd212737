"""Selection of the ridge penalty by the squared error on held-out images, which is a function of sums.

But for a constant, the error of weights W is the trace of W' Q W - 2 W' l. Here Q is the second moment of the held-out
images' features, standardized by the other images, and l their products with the targets.
"""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.ridge import cholesky
from lifelong_cvae.ridge.moments import all_indices, compute_moments, correlations, second_moments, to_float
from lifelong_cvae.ridge.sums import ExactSum

RIDGES = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 3))
FIRST_RIDGE = RIDGES[2]  # 1e-3
# The ridge is selected with every fourth feature, which takes a sixty-fourth of the time.
SEARCH_STRIDE = 4


class _HeldOutProblem(NamedTuple):
    """Problem without held-out images, and their squared error w' Q w - 2 w' l, float64."""

    matrix: jax.Array  # correlations, [features, features]
    targets: jax.Array  # [features, categories]
    quadratic: jax.Array  # Q, [features, features]
    linear: jax.Array  # l, [features, categories]


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
        rounding: as in `regression.solve`.
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
    moments = compute_moments(gram, held_out, fit_vectors, rounding)
    mean, scale = moments.mean, moments.scale
    matrix = correlations(gram, held_out, moments, *all_indices(len(mean)))
    vector_sums, counts = to_float(held_out_vectors)
    # About the mean of the images that are not held out.
    cross = jnp.outer(mean, vector_sums.sum(axis=1))
    quadratic = second_moments(held_out, None, *all_indices(len(mean)), len(mean))
    quadratic += counts.sum() * jnp.outer(mean, mean) - cross - cross.T
    standardized = (vector_sums - jnp.outer(mean, counts)) / scale[:, None]
    linear = standardized - jnp.outer(standardized.sum(axis=1), moments.prior)
    return _HeldOutProblem(matrix, moments.targets, quadratic / jnp.outer(scale, scale), linear)


@jax.jit
def _held_out_error(problem: _HeldOutProblem, ridge: jax.Array) -> jax.Array:
    """Computes the squared error of held-out images' scores, but for a constant."""
    # A quarter of the features needs a quarter of the penalty: their correlation matrix has a quarter of the trace.
    rows, columns = all_indices(len(problem.matrix))
    matrix = problem.matrix + ridge / SEARCH_STRIDE * (rows == columns)
    weights = cholesky.solve(cholesky.factorize(matrix), problem.targets)
    return jnp.sum(weights * (problem.quadratic @ weights)) - 2 * jnp.sum(weights * problem.linear)
