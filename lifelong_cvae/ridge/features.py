"""Image features of the closed-form recognizer, rounded to whole numbers so that sums of them are exact.

    r_k    = filter_k . normalize(patch) - offset_k                at every position, filters of a `dictionary`
    p      = means of max(0, r - t) and max(0, -r - t) over the cells of a grid
    q      = the same of filters on r, if there is a `second_layer`
    z      = [p, q], scaled to mean 0 and variance 1 over the features of an image
    phi    = [p, q, max(0, R z)]                                   R random, block by block

Pooled responses of both signs: Coates and Ng 2012, "Learning feature representations with k-means". Random expansions
for ridge regression: McDonnell et al. 2023 (arXiv 2307.02251). Nothing here depends on the user's images: the filters
are learned from synthetic ones, and R is sampled.

Features are whole numbers of at most `MAX_LEVEL` in size. So are z and R, and a sum of their products is at most
|R| |z| < 2^24: R z is exact in float32 and does not depend on how images are batched.
"""

import math
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.images import Shape, padded_batches, to_float
from lifelong_cvae.model import cpu
from lifelong_cvae.model.vectors import is_vector
from lifelong_cvae.ridge import second_layer, vector_features
from lifelong_cvae.ridge.dictionary import THRESHOLD, contrast_floor, make_filters

# Largest size of a feature: 8 bits.
MAX_LEVEL = 127
# Levels per unit of a pooled response, in the first and in the second layer. On dead leaves the responses deviate by
# 20 to 25 levels.
POOLED_LEVELS, SECOND_LEVELS = 200, 150
# Rows and columns of the grid of the second layer.
SECOND_GRID = 2
# Levels per standard deviation of z and of R, and per unit of R z, which has a standard deviation of about 1.
INPUT_LEVELS, MATRIX_LEVELS, RANDOM_LEVELS = 32, 32, 64
# Largest number of blocks of R. Each random feature reads the pooled responses of one block.
BLOCKS = 16
# Smallest and largest number of images per batch. Sums of 1,024 products of features are exact in float32:
# MAX_LEVEL^2 * 1024 < 2^24.
BATCH_SIZES = (8, 1024)

Dictionary = dict[str, Any]


class Features(NamedTuple):
    """Features of images, which stay on the device.

    Attributes:
        batches: int8 `[batch, features]` each, the last one padded.
        count: number of images.
    """

    batches: tuple[jax.Array, ...]
    count: int


class FeatureSizes(NamedTuple):
    """Sizes that follow from the settings and the shape of an image.

    Attributes:
        side: side of a filter in pixels.
        cells: rows and columns of the grid.
        patch: side of the second layer's patches in cells of its own.
        second_cells: rows and columns of the second layer's grid.
        pooled: pooled responses of both layers.
        blocks: blocks of the random matrix.
        features: all features.
    """

    side: int
    cells: int
    patch: int
    second_cells: int
    pooled: int
    blocks: int
    features: int


def feature_sizes(settings: ClosedFormConfig, image_shape: Shape) -> FeatureSizes:
    """Returns the sizes of filters, grid and features. Filters and grid are smaller for small images.

    Features of vectors are themselves and their random expansion.
    """
    if is_vector(image_shape):
        (size,) = image_shape
        return FeatureSizes(0, 0, 0, 0, size, 1, size + settings.random_features)
    height, width, _ = image_shape
    side = min(settings.filter_size, height, width)
    positions = min(height, width) - side + 1
    cells = min(settings.pool_grid, positions)
    patch = min(second_layer.PATCH_SIDE, second_layer.grid_side(positions))
    second_cells = min(SECOND_GRID, second_layer.grid_side(positions) - patch + 1)
    pooled = 2 * (cells**2 * settings.num_filters + second_cells**2 * settings.second_filters)
    pooled //= 2 if settings.fold_mirrors else 1
    common = math.gcd(pooled, settings.random_features)
    blocks = max(count for count in range(1, BLOCKS + 1) if common % count == 0)
    features = pooled * settings.pooled_features + settings.random_features
    return FeatureSizes(side, cells, patch, second_cells, pooled, blocks, features)


def empty_dictionary(settings: ClosedFormConfig, image_shape: Shape) -> Dictionary:
    """Returns the dictionary before the first task, zeros.

    It has `filters` `[patch, filters]`, `offset` `[filters]`, and with `second_filters` the layer `second`
    (`second_layer.Layer`). That of vectors is empty: their features are computed with their standardization.
    """
    if is_vector(image_shape):
        return {}
    size, count = feature_sizes(settings, image_shape), settings.num_filters
    shapes: dict[str, Any] = {"filters": (size.side**2 * image_shape[2], count), "offset": (count,)}
    if settings.second_filters:
        shapes["second"] = second_layer.layer_shapes(count, size.patch, settings.second_filters)
    zeros = jax.tree.map(lambda shape: np.zeros(shape, np.float32), shapes, is_leaf=lambda x: isinstance(x, tuple))
    return jax.device_put(zeros)


def make_dictionary(settings: ClosedFormConfig, image_shape: Shape) -> Dictionary:
    """Learns the filters of both layers from synthetic images (seconds): see `empty_dictionary`."""
    if is_vector(image_shape):
        return {}
    size = feature_sizes(settings, image_shape)
    arguments = settings.filter_seed, image_shape[2], size.side, settings.num_filters
    filters, offset = make_filters(*arguments)
    made: Dictionary = {"filters": filters, "offset": offset}
    if settings.second_filters:
        made["second"] = second_layer.make_layer(*arguments, size.patch, settings.second_filters)
    return jax.device_put(made)


def expansion_matrix(settings: ClosedFormConfig, image_shape: Shape) -> jax.Array:
    """Samples R in levels, whole numbers: float32 `[blocks, pooled / blocks, random_features / blocks]`.

    For vectors see `vector_features.random_matrix`.
    """
    if is_vector(image_shape):
        return vector_features.random_matrix(settings.filter_seed, image_shape[0], settings.random_features)
    size = feature_sizes(settings, image_shape)
    shape = size.blocks, size.pooled // size.blocks, settings.random_features // size.blocks
    return jax.device_put(_sample_levels(settings.filter_seed, shape))


@lru_cache(maxsize=2)
def _sample_levels(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)
    return np.clip(np.rint(MATRIX_LEVELS * values), -MAX_LEVEL, MAX_LEVEL)


def extract(
    dictionary: Dictionary, expand: jax.Array, rows: jax.Array, *, image_shape: Shape, settings: ClosedFormConfig
) -> jax.Array:
    """Computes the features of images, int8 `[n, features]`. Traceable.

    Args:
        dictionary: from `make_dictionary`.
        expand: from `expansion_matrix`.
        rows: images `[n, pixels]`, uint8 or float in [0, 1].
        image_shape: shape of an image.
        settings: settings that the dictionary was made with.
    """
    pooled = pool_responses(dictionary, rows, image_shape=image_shape, settings=settings)
    parts = [pooled] if settings.pooled_features else []
    if settings.random_features:
        parts.append(_expand(pooled, expand))
    # Converted first, so that few bytes are copied.
    return jnp.concatenate([(part - MAX_LEVEL).astype(jnp.int8) for part in parts], axis=1)


@partial(jax.jit, static_argnames=("image_shape", "settings"))
def extract_batch(
    dictionary: Dictionary, expand: jax.Array, rows: jax.Array, *, image_shape: Shape, settings: ClosedFormConfig
) -> jax.Array:
    """Computes features of a batch, int8 `[batch, features]`; float32 of vectors.

    Arguments are those of `extract`. For vectors the dictionary is their standardization.
    """
    if is_vector(image_shape):
        return vector_features.extract(dictionary, expand, rows)
    return extract(dictionary, expand, rows, image_shape=image_shape, settings=settings)


def feature_batches(
    dictionary: Dictionary, expand: jax.Array, rows: np.ndarray, *, image_shape: Shape, settings: ClosedFormConfig
) -> Iterator[jax.Array]:
    """Yields the features of `padded_batches` of rows `[n, pixels]`. Other arguments as in `extract`."""
    for _, batch in padded_batches(rows, *BATCH_SIZES):
        yield extract_batch(dictionary, expand, batch, image_shape=image_shape, settings=settings)


def _expand(pooled: jax.Array, expand: jax.Array) -> jax.Array:
    """Computes max(0, R z) in levels from 0 to 2 MAX_LEVEL: `[n, random_features]`."""
    inputs = pooled.reshape(len(pooled), -1, len(expand))
    levels = jnp.int32(pooled)
    mean = levels.sum(axis=1) / pooled.shape[1]
    square = jnp.square(levels).sum(axis=1) / pooled.shape[1]
    scale = INPUT_LEVELS * jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 1.0))
    z = jnp.clip(jnp.round((inputs - mean[:, None, None]) * scale[:, None, None]), -MAX_LEVEL, MAX_LEVEL)
    with jax.default_matmul_precision("float32"):
        # Block b reads the responses b, b + blocks, ...
        products = jnp.concatenate([z[:, :, block] @ matrix for block, matrix in enumerate(expand)], axis=1)
    unit = INPUT_LEVELS * MATRIX_LEVELS * math.sqrt(inputs.shape[1])
    return jnp.clip(jnp.round(products * (RANDOM_LEVELS / unit)), 0, 2 * MAX_LEVEL)


@partial(jax.jit, static_argnames=("image_shape", "settings"))
def pool_responses(
    dictionary: Dictionary, rows: jax.Array, *, image_shape: Shape, settings: ClosedFormConfig
) -> jax.Array:
    """Computes the mean responses of both signs in the cells of the grid.

    Mirror images are folded in: the response of a filter in a cell is averaged with that of the mirrored filter in the
    mirrored cell. A regression on these is one on all images and their mirror images, whose responses are the same.

    Args:
        dictionary: from `make_dictionary`.
        rows: images `[n, pixels]`, uint8 or float in [0, 1].
        image_shape: shape of an image.
        settings: settings that the dictionary was made with.

    Returns:
        Levels, whole numbers from 0 to 2 MAX_LEVEL in float32 `[n, pooled]`: of the first layer, then of the second,
        each in the order sign, row, column, filter.
    """
    size = feature_sizes(settings, image_shape)
    filters = dictionary["filters"].reshape(size.side, size.side, image_shape[2], -1)

    def pool_batch(batch: jax.Array) -> jax.Array:
        images = to_float(batch).reshape(-1, *image_shape)
        # Filters have mean 0, so patches need not be centered, and are scaled after the product.
        responses = cpu.correlate(images, filters) * _contrast_scale(images, size.side)[..., None]
        responses -= dictionary["offset"].reshape(1, 1, 1, -1)
        pooled = [_pool(responses, size.cells, POOLED_LEVELS, fold=settings.fold_mirrors)]
        if settings.second_filters:
            responses = second_layer.respond(dictionary["second"], responses)
            pooled.append(_pool(responses, size.second_cells, SECOND_LEVELS, fold=settings.fold_mirrors))
        return jnp.concatenate(pooled, axis=1)

    with jax.default_matmul_precision("float32"):
        return cpu.map_images(pool_batch, rows, one_by_one=cpu.has_few_responses(image_shape, filters.shape))


def _contrast_scale(images: jax.Array, side: int) -> jax.Array:
    """Returns 1 / sqrt(variance + floor) of each patch of images `[n, h, w, c]`: `[n, down, across]`."""
    height, width, channels = images.shape[1:]
    totals = jnp.stack([images.sum(axis=-1), jnp.square(images).sum(axis=-1)])
    # Sums over the rows, and over the columns of each patch, as products with bands of ones.
    rows, columns = (_band(length, side) for length in (height, width))
    mean, mean_square = jnp.einsum("knyx,yi,xj->knij", totals, rows, columns) / (side**2 * channels)
    return jax.lax.rsqrt(jnp.maximum(mean_square - jnp.square(mean), 0) + contrast_floor(channels))


def _band(length: int, side: int) -> np.ndarray:
    """Returns 1 at [i, j] if i is one of `side` positions from j on: `[length, length - side + 1]`."""
    offset = np.arange(length)[:, None] - np.arange(length - side + 1)
    return np.float32((offset >= 0) & (offset < side))


def _pool(responses: jax.Array, cells: int, levels: float, *, fold: bool) -> jax.Array:
    """Averages responses `[n, rows, columns, filters]` of both signs over cells: levels `[n, pooled]`."""
    signs = (jax.nn.relu(signed - THRESHOLD) for signed in (responses, -responses))
    pooled = jnp.stack([cpu.average_cells(cpu.average_cells(sign, 1, cells), 2, cells) for sign in signs], axis=1)
    if fold:
        half = responses.shape[-1] // 2
        pooled = 0.5 * (pooled[..., :half] + pooled[..., ::-1, half:])
    return jnp.clip(jnp.round(levels * pooled), 0, 2 * MAX_LEVEL).reshape(len(responses), -1)
