"""Ridge regression from features to categories, from sums alone.

With features phi of an image and the mean over the images of category c written E_c,

    G = sum_c E_c[phi phi']        what categories share, or each one's own
    s_c = E_c[phi]                 a category's own
    weights_c = (G + ridge I)^-1 s_c

These are the sums of joint training on all images, every category weighing the same, whatever the order:
nothing is forgotten, and nothing is kept but averages. Sources: Zhuang et al. 2022 (ACIL, arXiv 2205.14922),
McDonnell et al. 2023 (RanPAC, arXiv 2307.02251). Every twentieth image of a category is held out until
`ridge` is chosen, and joins the others then; the squared error on it is a function of sums too.
"""

from __future__ import annotations

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
# The ridge is looked for with every fourth feature, which takes a sixty-fourth of the time.
SEARCH_STRIDE = 4

# Row blocks of a Gram matrix, which is symmetric: of each, what is on the diagonal and right of it is kept.
ROW_BLOCKS = 8

# With the keys `fit` and `held_out`: vectors `[features]`, and of a Gram matrix its row blocks, one after
# another, `[packed]`.
Sums = dict[str, jax.Array]
Host = dict[str, np.ndarray]


def empty_common_sums(settings: ClosedFormConfig, image_shape: Shape) -> dict[str, Any]:
    """What categories share before the first task; the Gram matrix unless each has its own."""
    common = {"dictionary": features.empty_dictionary(settings, image_shape), "ridge": jnp.float32(FIRST_RIDGE)}
    size = settings.random_features + 1
    return common if settings.gram_sharing == "own" else {**common, "gram": _zeros(_packed_size(size))}


def empty_category_sums(settings: ClosedFormConfig) -> dict[str, Any]:
    """What a category owns before its first visit."""
    size = settings.random_features + 1
    own = {"sum": _zeros(size), "calibration": temperature_scaling.empty_grid()}
    return {**own, "gram": _zeros(_packed_size(size))} if settings.gram_sharing == "own" else own


def _zeros(length: int) -> Sums:
    return {part: jnp.zeros((length,)) for part in ("fit", "held_out")}


def _row_blocks(features: int) -> list[slice]:
    """Rows of each block; it has the columns from its first row on."""
    height = -(-features // ROW_BLOCKS)
    return [slice(start, min(start + height, features)) for start in range(0, features, height)]


def _packed_size(features: int) -> int:
    return sum((rows.stop - rows.start) * (features - rows.start) for rows in _row_blocks(features))


def packed_gram(left: jax.Array, right: jax.Array) -> jax.Array:
    """Left' right `[packed]`, where it is symmetric: little more than half the work, and half the room.

    Args:
        left: `[n, features]`.
        right: `[n, features]`.
    """
    blocks = _row_blocks(right.shape[1])
    return jnp.concatenate([(left[:, rows].T @ right[:, rows.start :]).ravel() for rows in blocks])


def unpack_gram(gram: np.ndarray, features: int, every: int = 1, *, dtype: Any = None) -> np.ndarray:
    """A Gram matrix of which only what is not below the diagonal counts.

    Args:
        gram: `[packed]`.
        features: how many it is of.
        every: 1 gives `[features, features]`; otherwise rows and columns of the last feature and of every
            second, third ... one before it.
        dtype: of the matrix; None: as of `gram`.
    """
    first, start = (features - 1) % every, 0
    count = len(range(first, features, every))
    matrix = np.empty((count, count), dtype or gram.dtype)
    for rows in _row_blocks(features):
        height, width = rows.stop - rows.start, features - rows.start
        block = gram[start : start + height * width].reshape(height, width)
        start += block.size
        offset = (first - rows.start) % every
        taken = block[offset::every, offset::every]
        row = (rows.start + offset) // every
        matrix[row : row + len(taken), row:] = taken
    return matrix


def held_out_mask(count: int) -> np.ndarray:
    """Which of so many images are held out: bool `[count]`."""
    return np.arange(count) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def compute_sums(
    dictionary: features.Dictionary,
    expand: jax.Array,
    rows: np.ndarray,
    *,
    image_shape: Shape,
    settings: ClosedFormConfig,
) -> tuple[Sums, Sums]:
    """E[phi phi'] and E[phi] of one category's images `[n, pixels]`, the held-out part of each apart."""
    apart, size = held_out_mask(len(rows)), settings.random_features + 1
    grams, vectors = _zeros(_packed_size(size)), _zeros(size)
    for part, chosen in (("fit", rows[~apart]), ("held_out", rows[apart])):
        for start, block in padded_batches(chosen, *features.BATCH_SIZES):
            weights = (np.arange(len(block)) < len(chosen) - start) / np.float32(len(rows))
            grams[part], vectors[part] = _accumulate(
                grams[part],
                vectors[part],
                dictionary,
                expand,
                block,
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


def solve(gram: Host, vectors: Host, ridge: float) -> np.ndarray:
    """The weights, float32 `[features, categories]`, solved on the host.

    Args:
        gram: `[packed]`, over all categories.
        vectors: `[features, categories]`.
        ridge: above 0.
    """
    whole, vectors = (parts["fit"] + parts["held_out"] for parts in (gram, vectors))
    return _solve(unpack_gram(whole, len(vectors)), vectors, ridge)


def select_ridge(gram: Host, vectors: Host) -> tuple[float, np.ndarray]:
    """The ridge, and the weights without what is held out.

    The one below that with the least squared error on what is held out: that asks for more shrinkage than
    right answers do. A function of sums: downhill from `FIRST_RIDGE`, which stays where nothing is held out.

    Args:
        gram: `[packed]`, over all categories.
        vectors: `[features, categories]`.
    """
    best = RIDGES.index(FIRST_RIDGE)
    if vectors["held_out"].any():
        best = max(_least_error(gram, vectors, start=best) - 1, 0)
    fit = unpack_gram(gram["fit"], len(vectors["fit"]))
    chosen = max(RIDGES[best], _rounding_bound(fit))
    return chosen, _solve(fit, vectors["fit"], chosen)


def _least_error(gram: Host, vectors: Host, start: int) -> int:
    """Which of `RIDGES` has the least squared error on what is held out, downhill from `start`."""
    # Random features are exchangeable: a quarter of them want a quarter of the ridge. The constant one, which
    # is the last, stays.
    features = len(vectors["fit"])
    take = partial(unpack_gram, features=features, every=SEARCH_STRIDE, dtype=np.float64)
    gram = {part: take(values) for part, values in gram.items()}
    kept = slice((features - 1) % SEARCH_STRIDE, None, SEARCH_STRIDE)
    vectors = {part: np.float64(values[kept]) for part, values in vectors.items()}
    held_out = np.triu(gram["held_out"]) + np.triu(gram["held_out"], 1).T
    floor = _rounding_bound(gram["fit"])

    @functools.cache
    def error(index: int) -> float:
        ridge = RIDGES[index] * len(vectors["fit"]) / features if 0 <= index < len(RIDGES) else 0.0
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
    """A bound of what rounding in float32 adds to the eigenvalues of sums; no ridge is to be below it."""
    return float(np.finfo(np.float32).eps * np.trace(gram, dtype=np.float64))


def _solve(gram: np.ndarray, vectors: np.ndarray, ridge: float) -> np.ndarray:
    """Weights, in the type of both; the Gram matrix is overwritten, since a copy may be 100 MB.

    In float32, as precise as the sums are, it takes half as long as in float64, and moves no score of an
    image by more than 3e-4 (MNIST, ridges from 0.001 to 0.1).
    """
    gram[np.diag_indices_from(gram)] += ridge
    # Transposed it lies in memory as LAPACK wants it; what was above the diagonal is below.
    factor = scipy.linalg.cho_factor(gram.T, lower=True, overwrite_a=True, check_finite=False)
    return scipy.linalg.cho_solve(factor, vectors, check_finite=False)
