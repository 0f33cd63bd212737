"""Features of images for the closed-form recognizer: a dictionary of small filters, pooled, then expanded.

    r_k   = max(0, filter_k . whiten(patch) - threshold)        at every position
    p     = sums of r over the cells of a grid, standardized, divided by their root mean square
    phi   = [max(0, R p), 1]                                     R random, block by block

The filters are centroids of whitened patches of the first task's images (Coates and Ng 2012, "Learning
feature representations with k-means"); whatever comes later only uses them. Random expansions for ridge
regression: McDonnell et al. 2023 (arXiv 2307.02251). A random feature reads the responses of a few of the
filters, which costs little and recognizes as well. No patch is kept: a filter is an average over many, or
random.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, reduce
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.images import Shape, padded_batches, to_float

# A centroid of fewer patches is replaced by a random direction.
MIN_PATCHES = 50
PATCHES_PER_FILTER = 100
ITERATIONS = 10
# Added to a patch's variance before it is divided by it, and to those of the whitened patches.
CONTRAST_FLOOR = 1e-3
WHITENING_FLOOR = 0.1
# A patch is not looked at where its standard deviation is below this.
FLAT_STD = 0.05
THRESHOLD = 0.25
# Blocks of the random matrix, at most.
BLOCKS = 16
# Smallest and largest number of images that are computed at a time.
BATCH_SIZES = (8, 1024)
# Images at once: few on a CPU, which keeps its caches warm. Powers of two, not above a block's smallest size.
CPU_BATCH, ACCELERATOR_BATCH = 4, 64
# Images that responses are standardized by.
STANDARDIZATION_IMAGES = 2048

Dictionary = dict[str, jax.Array]


def feature_sizes(settings: ClosedFormConfig, image_shape: Shape) -> dict[str, int]:
    """Side of a filter and of the grid, which an image may be too small for, and numbers of values."""
    height, width, channels = image_shape
    side = min(settings.filter_size, height, width)
    cells = min(settings.pool_grid, height - side + 1, width - side + 1)
    return {
        "side": side,
        "cells": cells,
        "patch": side * side * channels,
        "pooled": cells * cells * settings.num_filters,
        "blocks": _blocks(math.gcd(cells * cells * settings.num_filters, settings.random_features)),
        "features": settings.random_features + 1,
    }


def _blocks(divisible: int) -> int:
    return max(count for count in range(1, BLOCKS + 1) if divisible % count == 0)


def empty_dictionary(settings: ClosedFormConfig, image_shape: Shape) -> Dictionary:
    """The dictionary before the first task: zeros."""
    size = feature_sizes(settings, image_shape)
    return {
        "filters": jnp.zeros((size["patch"], settings.num_filters)),
        "offset": jnp.zeros((settings.num_filters,)),
        "mean": jnp.zeros((size["pooled"],)),
        "deviation": jnp.zeros((size["pooled"],)),
        "seed": jnp.zeros((2,), jnp.uint32),
    }


def fit_dictionary(rows: np.ndarray, image_shape: Shape, settings: ClosedFormConfig, *, rng: jax.Array) -> Dictionary:
    """Filters from images, and what standardizes their pooled responses.

    Args:
        rows: `[n, pixels]`, uint8 or float in [0, 1].
        image_shape: of a row.
        settings: how many filters, of which size, on which grid.
        rng: source of patches and of the random expansion.

    Returns:
        `filters` `[patch, filters]` and `offset` `[filters]`, the response to a normalized patch being
        `patch . filters - offset`; `mean` and `deviation` `[pooled]`; `seed`, of the expansion, uint32 `[2]`.
    """
    patch_rng, expansion_rng = jax.random.split(rng)
    numbers = np.random.default_rng(np.asarray(jax.random.key_data(patch_rng)))
    patches = _patches(rows, image_shape, feature_sizes(settings, image_shape)["side"], settings.num_filters, numbers)
    center, whiten = _whitening(patches)
    filters = whiten @ _centroids((patches - center) @ whiten, settings.num_filters, numbers).T
    dictionary = {
        "filters": jnp.asarray(filters, jnp.float32),
        "offset": jnp.asarray(center @ filters + THRESHOLD, jnp.float32),
        "seed": jax.random.key_data(expansion_rng),
    }
    # Evenly spread over them.
    chosen = rows[
        np.arange(min(len(rows), STANDARDIZATION_IMAGES)) * len(rows) // min(len(rows), STANDARDIZATION_IMAGES)
    ]
    pooled = np.concatenate(
        [
            np.asarray(_pool_responses(dictionary, block, image_shape=image_shape, settings=settings))[
                : len(chosen) - start
            ]
            for start, block in padded_batches(chosen, *BATCH_SIZES)
        ]
    )
    deviation = pooled.std(axis=0)
    return {
        **dictionary,
        "mean": jnp.asarray(pooled.mean(axis=0)),
        "deviation": jnp.asarray(deviation + max(0.1 * deviation.mean(), 1e-6)),
    }


def expansion_matrix(dictionary: Dictionary, settings: ClosedFormConfig, image_shape: Shape) -> jax.Array:
    """The random matrix R, from its seed: `[blocks, pooled / blocks, random_features / blocks]`."""
    size = feature_sizes(settings, image_shape)
    read, blocks = size["pooled"] // size["blocks"], size["blocks"]
    rng = jax.random.wrap_key_data(dictionary["seed"])
    return jax.random.normal(rng, (blocks, read, settings.random_features // blocks)) / math.sqrt(read)


def extract(
    dictionary: Dictionary,
    expand: jax.Array,
    rows: jax.Array,
    *,
    image_shape: Shape,
    settings: ClosedFormConfig,
) -> jax.Array:
    """Features of images, pure and traceable.

    Args:
        dictionary: what `learn_dictionary` gave.
        expand: what `expansion` gives.
        rows: `[n, pixels]`, uint8 or float in [0, 1].
        image_shape: of a row.
        settings: as the dictionary was learned with.

    Returns:
        float32 `[n, random_features + 1]`; the last is 1.
    """
    with jax.default_matmul_precision("float32"):
        pooled = _pool_responses(dictionary, rows, image_shape=image_shape, settings=settings)
        pooled = (pooled - dictionary["mean"][None]) / dictionary["deviation"][None]
        pooled = pooled * jax.lax.rsqrt(jnp.mean(jnp.square(pooled), axis=1, keepdims=True) + 1e-3)
        # Block b reads the values b, b + blocks, ...
        read = pooled.reshape(len(rows), -1, len(expand))
        expanded = [jax.nn.relu(read[:, :, block] @ matrix) for block, matrix in enumerate(expand)]
        return jnp.concatenate([*expanded, jnp.ones((len(rows), 1))], axis=1)


@partial(jax.jit, static_argnames=("image_shape", "settings"))
def _pool_responses(
    dictionary: Dictionary, rows: jax.Array, *, image_shape: Shape, settings: ClosedFormConfig
) -> jax.Array:
    """Responses of the filters, summed over the cells: `[n, cells * cells * filters]`."""
    size = feature_sizes(settings, image_shape)
    side, (height, width, _) = size["side"], image_shape
    down, across = height - side + 1, width - side + 1
    # Subtracting a patch's mean from it is subtracting a filter's mean from the filter. The offset belongs to
    # a pixel more, which is always 1.
    centerd = dictionary["filters"] - dictionary["filters"].mean(axis=0, keepdims=True)
    filters = jnp.concatenate([centerd, -dictionary["offset"][None]])

    def few(batch: jax.Array) -> jax.Array:
        images = jnp.moveaxis(to_float(batch).reshape(-1, *image_shape), -1, 0)
        # [patch, positions]: whole rows of pixels are copied
        shifted = [images[:, :, y : y + down, x : x + across] for y in range(side) for x in range(side)]
        patches = jnp.concatenate(shifted).reshape(size["patch"], -1)
        patches = patches * jax.lax.rsqrt(patches.var(axis=0, keepdims=True) + CONTRAST_FLOOR)
        patches = jnp.pad(patches, ((0, 1), (0, 0)), constant_values=1.0)
        responses = jax.nn.relu(patches.T @ filters).reshape(len(batch), down, across, -1)
        return _sum_cells(_sum_cells(responses, 1, size["cells"]), 2, size["cells"]).reshape(len(batch), -1)

    def by(count: int) -> Callable[[jax.Array], jax.Array]:
        count = math.gcd(count, len(rows))
        return lambda rows: jax.lax.map(few, rows.reshape(-1, count, rows.shape[1])).reshape(len(rows), -1)

    with jax.default_matmul_precision("float32"):
        return jax.lax.platform_dependent(rows, cpu=by(CPU_BATCH), default=by(ACCELERATOR_BATCH))


def _sum_cells(responses: jax.Array, axis: int, cells: int) -> jax.Array:
    """Sums over the cells that an axis of positions is cut into."""
    positions = responses.shape[axis]
    edges = [-(-cell * positions // cells) for cell in range(cells + 1)]
    taken = partial(jax.lax.index_in_dim, responses, axis=axis, keepdims=False)
    # One position after another: XLA makes one loop of the additions, and a slow one of a reduction.
    sums = [reduce(jnp.add, map(taken, range(*ends))) for ends in pairwise(edges)]
    return jnp.stack(sums, axis=axis)


def _patches(rows: np.ndarray, image_shape: Shape, side: int, filters: int, numbers: np.random.Generator) -> np.ndarray:
    """Patches from random places, without the flat ones, mean 0 and variance about 1: `[n, patch]`."""
    images = np.lib.stride_tricks.sliding_window_view(rows.reshape(-1, *image_shape), (side, side), axis=(1, 2))
    wanted = PATCHES_PER_FILTER * filters
    places = [numbers.integers(0, length, 4 * wanted) for length in images.shape[:3]]
    # [n, channels, side, side]: channels last, as in `_pooled`
    patches = images[tuple(places)].transpose(0, 2, 3, 1).reshape(4 * wanted, -1).astype(np.float32)
    patches /= 255 if rows.dtype == np.uint8 else 1
    patches = patches[patches.std(axis=1) > FLAT_STD][:wanted]
    patches -= patches.mean(axis=1, keepdims=True)
    return patches / np.sqrt(patches.var(axis=1, keepdims=True) + CONTRAST_FLOOR)


def _whitening(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and the symmetric matrix that makes the covariance nearly the identity (ZCA)."""
    if len(patches) < 2:
        return np.zeros(patches.shape[1]), np.eye(patches.shape[1])
    values, vectors = np.linalg.eigh(np.cov(patches.T))
    return patches.mean(axis=0), (vectors / np.sqrt(np.maximum(values, 0) + WHITENING_FLOOR)) @ vectors.T


def _centroids(patches: np.ndarray, filters: int, numbers: np.random.Generator) -> np.ndarray:
    """Spherical k-means: unit vectors `[filters, patch]`, averages of the patches nearest in angle."""

    def unit(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    centroids = unit(numbers.standard_normal((filters, patches.shape[1])))
    for _ in range(ITERATIONS if len(patches) else 0):
        nearest = (patches @ centroids.T).argmax(axis=1)
        sums = np.zeros_like(centroids)
        np.add.at(sums, nearest, patches)
        counts = np.bincount(nearest, minlength=filters)
        fresh = numbers.standard_normal(sums.shape)
        centroids = unit(np.where((counts >= MIN_PATCHES)[:, None], sums, fresh))
    return centroids
