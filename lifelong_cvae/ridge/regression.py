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

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.linalg

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.images import Shape
from lifelong_cvae.model import rejection
from lifelong_cvae.ridge import features, sums, temperature_scaling

HELD_OUT_EVERY = 20
RIDGES = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 3))
FIRST_RIDGE = RIDGES[2]  # 1e-3
# The ridge is selected with every fourth feature, which takes a sixty-fourth of the time.
SEARCH_STRIDE = 4
# Added to the scale of each feature: a part of the mean scale.
SCALE_FLOOR = 0.1

# Rows of a block of a Gram matrix and the block from its first row on: `sums.gram_blocks`.
GramBlocks = Iterable[tuple[slice, np.ndarray]]


class Solution(NamedTuple):
    """Weights of the regression: scores are `phi @ weights + intercept`.

    Attributes:
        weights: float32 `[features, categories]`.
        intercept: float32 `[categories]`.
        own_mean: mean score of a category's own images for it, averaged over the categories.
    """

    weights: np.ndarray
    intercept: np.ndarray
    own_mean: float


class _Problem(NamedTuple):
    """Standardized sums. Of the matrix, only the upper triangle is valid."""

    matrix: np.ndarray  # [features, features]
    targets: np.ndarray  # [features, categories]
    mean: np.ndarray  # [features]
    scale: np.ndarray  # [features]
    prior: np.ndarray  # [categories], weight of each category


def empty_common_sums(settings: ClosedFormConfig, image_shape: Shape) -> dict[str, Any]:
    """Returns the parts common to all categories before the first task."""
    common = {
        "dictionary": features.empty_dictionary(settings, image_shape),
        "ridge": jax.device_put(np.float32(FIRST_RIDGE)),
    }
    return common if settings.gram_sharing == "own" else {**common, "gram": _empty_gram(settings, image_shape)}


def empty_category_sums(settings: ClosedFormConfig, image_shape: Shape) -> dict[str, Any]:
    """Returns the subtree of a category before its first visit."""
    vector = {part: sums.zeros_vector(size + 1) for part, size in _part_sizes(settings, image_shape).items()}
    thresholds = rejection.uncalibrated_thresholds()
    subtree = {"sum": vector, "calibration": temperature_scaling.empty_grid(), "thresholds": thresholds}
    return {**subtree, "gram": _empty_gram(settings, image_shape)} if settings.gram_sharing == "own" else subtree


def _empty_gram(settings: ClosedFormConfig, image_shape: Shape) -> dict[str, sums.ExactSum]:
    return {part: sums.zeros_gram(size) for part, size in _part_sizes(settings, image_shape).items()}


def _part_sizes(settings: ClosedFormConfig, image_shape: Shape) -> dict[str, int]:
    """Returns the number of features in sums over all images, and over held-out ones."""
    size = features.feature_sizes(settings, image_shape).features
    return {"all": size, "held_out": -(-size // SEARCH_STRIDE)}


def held_out_mask(count: int) -> np.ndarray:
    """Returns True for each held-out image of `count` images: bool `[count]`."""
    return np.arange(count) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def solve(gram: GramBlocks, vectors: np.ndarray, ridge: float) -> Solution:
    """Solves for the weights on the host, in float32 with a step of refinement in float64.

    Args:
        gram: Gram matrix, summed over all categories.
        vectors: sums of features of each category, int64 `[features + 1, categories]`. The last row counts visits.
        ridge: penalty relative to the correlation matrix of the features, above 0.
    """
    problem = _standardize(gram, vectors, np.float32)
    weights = _solve(problem, ridge) / problem.scale[:, None]
    intercept = problem.prior - problem.mean @ weights
    vector_sums, counts = _to_float(vectors)
    own_means = np.einsum("dc,dc->c", weights, vector_sums) / counts + intercept
    return Solution(np.float32(weights), np.float32(intercept), float(own_means.mean()))


def select_ridge(fit: GramBlocks, held_out: GramBlocks, fit_vectors: np.ndarray, held_out_vectors: np.ndarray) -> float:
    """Selects the ridge penalty on held-out images.

    The selected penalty is half a decade below the one with the least squared error, because squared error asks for
    more shrinkage than accuracy does. The search goes downhill from `FIRST_RIDGE`, which stays if nothing is held out.

    Args:
        fit: Gram matrix of every `SEARCH_STRIDE`-th feature, over images that are not held out.
        held_out: the same over held-out images.
        fit_vectors: sums of these features of each category, int64 `[features + 1, categories]`.
        held_out_vectors: the same over held-out images.
    """
    if not held_out_vectors.any():
        return FIRST_RIDGE
    best = RIDGES.index(FIRST_RIDGE)
    problem = _standardize(fit, fit_vectors, np.float64)
    error = _held_out_error(problem, held_out, held_out_vectors)
    while (nearest := min((best, best - 1, best + 1), key=error)) != best:
        best = nearest
    return RIDGES[max(best - 1, 0)]


def _held_out_error(problem: _Problem, gram: GramBlocks, vectors: np.ndarray) -> Callable[[int], float]:
    """Returns the squared error of held-out images' scores, but for a constant, by index into `RIDGES`."""
    vector_sums, counts = _to_float(vectors)
    held_out = np.zeros_like(problem.matrix)
    for rows, block in gram:
        held_out[rows, rows.start :] = block * 2.0**-sums.GRAM_BITS
    held_out = np.triu(held_out) + np.triu(held_out, 1).T
    # About the mean of the images that are not held out.
    cross = np.outer(problem.mean, vector_sums.sum(axis=1))
    held_out += counts.sum() * np.outer(problem.mean, problem.mean) - cross - cross.T
    held_out /= np.outer(problem.scale, problem.scale)
    standardized = (vector_sums - np.outer(problem.mean, counts)) / problem.scale[:, None]
    targets = standardized - np.outer(standardized.sum(axis=1), problem.prior)

    @functools.cache
    def error(index: int) -> float:
        if not 0 <= index < len(RIDGES):
            return np.inf
        # A quarter of the features needs a quarter of the penalty: their correlation matrix has a quarter of the trace.
        weights = _solve(problem._replace(matrix=problem.matrix.copy()), RIDGES[index] / SEARCH_STRIDE)
        return np.einsum("dc,dc->", weights, held_out @ weights) - 2 * np.einsum("dc,dc->", weights, targets)

    return error


def _to_float(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sums `[features, categories]` and the weights of the categories."""
    values = np.ldexp(np.float64(vectors), -sums.VECTOR_BITS)
    return values[:-1], values[-1]


def _standardize(gram: GramBlocks, vectors: np.ndarray, dtype: type) -> _Problem:
    vector_sums, counts = _to_float(vectors)
    total = counts.sum()
    mean, prior = vector_sums.sum(axis=1) / total, counts / total
    matrix, variance = np.zeros((len(vector_sums),) * 2, dtype), np.empty(len(vector_sums))
    for rows, block in gram:
        covariance = block * (2.0**-sums.GRAM_BITS / total)
        covariance -= mean[rows, None] * mean[None, rows.start :]
        matrix[rows, rows.start :] = covariance
        variance[rows] = np.diagonal(covariance)
    scale = np.sqrt(np.maximum(variance, 0))
    scale += max(SCALE_FLOOR * scale.mean(), 1e-6)
    for rows in _row_slices(len(matrix)):
        matrix[rows, rows.start :] /= scale.astype(dtype)[rows, None] * scale.astype(dtype)[None, rows.start :]
    targets = (vector_sums / total - np.outer(mean, prior)) / scale[:, None]
    return _Problem(matrix, targets, mean, scale, prior)


def _solve(problem: _Problem, ridge: float) -> np.ndarray:
    """Solves for the standardized weights, float64 `[features, categories]`. Overwrites the matrix."""
    matrix, targets = problem.matrix, problem.targets
    # Rounding in the factorization is well below the lower bound of the penalty.
    matrix[np.diag_indices_from(matrix)] += max(ridge, float(np.finfo(matrix.dtype).eps) * len(matrix) / 8)
    diagonal = np.array(np.diagonal(matrix), np.float64)
    for rows in _row_slices(len(matrix)):
        # A copy of the upper triangle, which is overwritten by the factor.
        matrix[rows.stop :, rows] = matrix[rows, rows.stop :].T
        square = matrix[rows, rows]
        square[:] = np.triu(square) + np.triu(square, 1).T
    # LAPACK reads columns first, so the transpose needs no copy. Its valid triangle is the lower one.
    factor = scipy.linalg.cho_factor(matrix.T, lower=True, overwrite_a=True, check_finite=False)
    weights = np.float64(scipy.linalg.cho_solve(factor, matrix.dtype.type(targets), check_finite=False))
    residual = targets - diagonal[:, None] * weights
    for rows in _row_slices(len(matrix)):
        block = np.array(matrix[rows, : rows.stop], np.float64)
        block[:, rows] = np.tril(block[:, rows], -1)
        residual[rows] -= block @ weights[: rows.stop]
        residual[: rows.stop] -= block.T @ weights[rows]
    return weights + scipy.linalg.cho_solve(factor, matrix.dtype.type(residual), check_finite=False)


def _row_slices(count: int, height: int = 1024) -> list[slice]:
    return [slice(start, min(start + height, count)) for start in range(0, count, height)]
