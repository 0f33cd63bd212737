"""Ridge regression from features to categories, computed from sums.

With the features phi of an image, and E_c the mean over the images of category c,

    G = sum_c E_c[phi phi']        Gram matrix: one for all categories, or one each
    s_c = E_c[phi]                 one per category
    weights_c = (G + ridge I)^-1 s_c

The sums equal those of joint training on all images with equal weight per category, in any order: nothing is
forgotten, and only averages are stored. Sources: Zhuang et al. 2022 (ACIL, arXiv 2205.14922), McDonnell et al. 2023
(RanPAC, arXiv 2307.02251). Every twentieth image of a category is held out until `ridge` is selected, then added. The
squared error on held-out images is a function of sums too.
"""

import functools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.images import Shape, padded_batches
from lifelong_cvae.ridge import features, temperature_scaling

HELD_OUT_EVERY = 20
RIDGES = tuple(10.0 ** (exponent / 2) for exponent in range(-10, 5))
FIRST_RIDGE = RIDGES[8]  # 0.1
# The ridge is selected with every fourth feature, which takes a sixty-fourth of the time.
SEARCH_STRIDE = 4

# A Gram matrix is symmetric: of each block of rows, only the columns from its first row on are stored.
ROW_BLOCKS = 8

# Sums over the images in `fit` and in `held_out`: vectors `[features]`, or packed Gram matrices `[packed]`, which
# are row blocks one after another.
Sums = dict[str, jax.Array]
HostSums = dict[str, np.ndarray]


def empty_common_sums(settings: ClosedFormConfig, image_shape: Shape) -> dict[str, Any]:
    """Returns the parts common to all categories before the first task."""
    common = {"dictionary": features.empty_dictionary(settings, image_shape), "ridge": jnp.float32(FIRST_RIDGE)}
    size = settings.random_features + 1
    return common if settings.gram_sharing == "own" else {**common, "gram": _zero_sums(_packed_size(size))}


def empty_category_sums(settings: ClosedFormConfig) -> dict[str, Any]:
    """Returns the subtree of a category before its first visit."""
    size = settings.random_features + 1
    subtree = {"sum": _zero_sums(size), "calibration": temperature_scaling.empty_grid()}
    return {**subtree, "gram": _zero_sums(_packed_size(size))} if settings.gram_sharing == "own" else subtree


def _zero_sums(length: int) -> Sums:
    return {part: jnp.zeros((length,)) for part in ("fit", "held_out")}


def _row_blocks(num_features: int) -> list[slice]:
    """Returns the rows of each block."""
    height = -(-num_features // ROW_BLOCKS)
    return [slice(start, min(start + height, num_features)) for start in range(0, num_features, height)]


def _packed_size(num_features: int) -> int:
    return sum((rows.stop - rows.start) * (num_features - rows.start) for rows in _row_blocks(num_features))


def packed_gram(left: jax.Array, right: jax.Array) -> jax.Array:
    """Computes a symmetric product left' right, `[packed]`.

    Costs little more than half the work and memory.

    Args:
        left: `[n, features]`.
        right: `[n, features]`.
    """
    blocks = _row_blocks(right.shape[1])
    return jnp.concatenate([(left[:, rows].T @ right[:, rows.start :]).ravel() for rows in blocks])


def unpack_gram(gram: np.ndarray, num_features: int, stride: int = 1, *, dtype: Any = None) -> np.ndarray:
    """Unpacks a Gram matrix. Only the upper triangle, diagonal included, is valid.

    Args:
        gram: `[packed]`.
        num_features: size of the full matrix.
        stride: 1 returns `[features, features]`. Larger strides select rows and columns: every stride-th feature,
            counted back from the last.
        dtype: type of the matrix; default that of `gram`.
    """
    first, start = (num_features - 1) % stride, 0
    count = len(range(first, num_features, stride))
    matrix = np.empty((count, count), dtype or gram.dtype)
    for rows in _row_blocks(num_features):
        height, width = rows.stop - rows.start, num_features - rows.start
        block = gram[start : start + height * width].reshape(height, width)
        start += block.size
        offset = (first - rows.start) % stride
        selected = block[offset::stride, offset::stride]
        row = (rows.start + offset) // stride
        matrix[row : row + len(selected), row:] = selected
    return matrix


def held_out_mask(count: int) -> np.ndarray:
    """Returns True for each held-out image of `count` images: bool `[count]`."""
    return np.arange(count) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def compute_sums(
    dictionary: features.Dictionary,
    expand: jax.Array,
    rows: np.ndarray,
    *,
    image_shape: Shape,
    settings: ClosedFormConfig,
) -> tuple[Sums, Sums]:
    """Computes E[phi phi'], packed, and E[phi] of one category, split into `fit` and `held_out` images.

    Args:
        dictionary: from `features.fit_dictionary`.
        expand: from `features.expansion_matrix`.
        rows: images `[n, pixels]`, uint8 or float in [0, 1].
        image_shape: shape of an image.
        settings: settings that the dictionary was fitted with.
    """
    held_out, size = held_out_mask(len(rows)), settings.random_features + 1
    grams, vectors = _zero_sums(_packed_size(size)), _zero_sums(size)
    for part, images in (("fit", rows[~held_out]), ("held_out", rows[held_out])):
        for start, batch in padded_batches(images, *features.BATCH_SIZES):
            weights = (np.arange(len(batch)) < len(images) - start) / np.float32(len(rows))
            grams[part], vectors[part] = _accumulate(
                grams[part],
                vectors[part],
                dictionary,
                expand,
                batch,
                jnp.asarray(weights, jnp.float32),
                image_shape=image_shape,
                settings=settings,
            )
    return grams, vectors


@partial(jax.jit, static_argnames=("image_shape", "settings"), donate_argnums=(0, 1))
def _accumulate(
    gram: jax.Array,
    vector: jax.Array,
    dictionary: features.Dictionary,
    expand: jax.Array,
    rows: jax.Array,
    weights: jax.Array,
    *,
    image_shape: Shape,
    settings: ClosedFormConfig,
) -> tuple[jax.Array, jax.Array]:
    phi = features.extract(dictionary, expand, rows, image_shape=image_shape, settings=settings)
    with jax.default_matmul_precision("float32"):
        weighted = phi * weights[:, None]
        return gram + packed_gram(weighted, phi), vector + weighted.sum(axis=0)


def solve(gram: HostSums, vectors: HostSums, ridge: float) -> np.ndarray:
    """Solves for the weights `[features, categories]` on the host, held-out images included.

    Args:
        gram: `[packed]`, summed over all categories.
        vectors: `[features, categories]`.
        ridge: penalty, above 0.
    """
    total_gram, total_vectors = (sums["fit"] + sums["held_out"] for sums in (gram, vectors))
    return _solve(unpack_gram(total_gram, len(total_vectors)), total_vectors, ridge)


def select_ridge(gram: HostSums, vectors: HostSums) -> tuple[float, np.ndarray]:
    """Selects the ridge penalty on held-out images; returns it and weights `[features, categories]`.

    The selected penalty is half a decade below the one with the least squared error, because squared error asks for
    more shrinkage than accuracy does. The search goes downhill from `FIRST_RIDGE`, which stays if nothing is held out.

    Args:
        gram: `[packed]`, summed over all categories.
        vectors: `[features, categories]`.
    """
    best = RIDGES.index(FIRST_RIDGE)
    if vectors["held_out"].any():
        best = max(_least_error(gram, vectors, start=best) - 1, 0)
    fit = unpack_gram(gram["fit"], len(vectors["fit"]))
    ridge = max(RIDGES[best], _rounding_bound(fit))
    return ridge, _solve(fit, vectors["fit"], ridge)


def _least_error(gram: HostSums, vectors: HostSums, start: int) -> int:
    """Returns the index into `RIDGES` with the least held-out error, searched downhill from `start`."""
    # Random features are exchangeable, so a quarter of them needs a quarter of the ridge. The constant feature, which
    # is the last, is always selected.
    num_features = len(vectors["fit"])
    unpack = partial(unpack_gram, num_features=num_features, stride=SEARCH_STRIDE, dtype=np.float64)
    gram = {part: unpack(values) for part, values in gram.items()}
    selected = slice((num_features - 1) % SEARCH_STRIDE, None, SEARCH_STRIDE)
    vectors = {part: np.float64(values[selected]) for part, values in vectors.items()}
    held_out = np.triu(gram["held_out"]) + np.triu(gram["held_out"], 1).T
    floor = _rounding_bound(gram["fit"])

    @functools.cache
    def error(index: int) -> float:
        ridge = RIDGES[index] * len(vectors["fit"]) / num_features if 0 <= index < len(RIDGES) else 0.0
        if ridge < floor:
            return np.inf
        weights = _solve(gram["fit"].copy(), vectors["fit"], ridge)
        fitted = np.einsum("dc,dc->", weights, held_out @ weights)
        return fitted - 2 * np.einsum("dc,dc->", weights, vectors["held_out"])

    best = start
    while (nearest := min((best, best - 1, best + 1), key=error)) != best:
        best = nearest
    return best


def _rounding_bound(gram: np.ndarray) -> float:
    """Bounds the error of the eigenvalues from float32 rounding. A smaller ridge is not used."""
    return float(np.finfo(np.float32).eps * np.trace(gram, dtype=np.float64))


def _solve(gram: np.ndarray, vectors: np.ndarray, ridge: float) -> np.ndarray:
    """Solves for the weights in the type of both arguments.

    Overwrites `gram`, since a copy may take 100 MB.

    float32 is as precise as the sums. It takes half as long as float64, and changes no score of an image by more than
    3e-4 (MNIST, ridges from 0.001 to 0.1).
    """
    gram[np.diag_indices_from(gram)] += ridge
    # LAPACK reads columns first, so the transpose needs no copy. Its valid triangle is the lower one.
    factor = scipy.linalg.cho_factor(gram.T, lower=True, overwrite_a=True, check_finite=False)
    return scipy.linalg.cho_solve(factor, vectors, check_finite=False)
