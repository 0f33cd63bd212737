"""Image features of the closed-form recognizer: responses of small filters, pooled, then expanded at random.

    r_k   = max(0, filter_k . whiten(patch) - threshold)        at every position
    p     = sums of r over the cells of a grid, standardized, divided by their root mean square
    phi   = [max(0, R p), 1]                                     R random, block by block

The filters are centroids of whitened patches of the first task's images (Coates and Ng 2012, "Learning feature
representations with k-means"); later tasks reuse them. Random expansions for ridge regression: McDonnell et al. 2023
(arXiv 2307.02251). Each random feature reads the responses of only a few filters, which costs little and recognizes
as well. No patch is stored: a filter is an average over at least `MIN_PATCHES` patches, or random.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.images import Shape, padded_batches, to_float
from lifelong_cvae.model import cpu

# A centroid of fewer patches is replaced by a random direction.
MIN_PATCHES = 50
PATCHES_PER_FILTER = 100
# Iterations of k-means.
ITERATIONS = 10
# Added to the variance of a patch that is normalized, and to the eigenvalues of the covariance of normalized patches.
CONTRAST_FLOOR = 1e-3
WHITENING_FLOOR = 0.1
# Patches with a smaller standard deviation are not used for k-means.
FLAT_STD = 0.05
THRESHOLD = 0.25
# Largest number of blocks of the random matrix.
BLOCKS = 16
# Smallest and largest number of images per batch.
BATCH_SIZES = (8, 1024)
# Largest number of images from which the standardization is estimated.
STANDARDIZATION_IMAGES = 2048

Dictionary = dict[str, jax.Array]


def feature_sizes(settings: ClosedFormConfig, image_shape: Shape) -> dict[str, int]:
    """Returns the sides of filters and grid, reduced for small images, and the sizes of the features."""
    height, width, channels = image_shape
    side = min(settings.filter_size, height, width)
    cells = min(settings.pool_grid, height - side + 1, width - side + 1)
    pooled = cells * cells * settings.num_filters
    return {
        "side": side,
        "cells": cells,
        "patch": side * side * channels,
        "pooled": pooled,
        "blocks": _num_blocks(math.gcd(pooled, settings.random_features)),
        "features": settings.random_features + 1,
    }


def _num_blocks(size: int) -> int:
    return max(count for count in range(1, BLOCKS + 1) if size % count == 0)


def empty_dictionary(settings: ClosedFormConfig, image_shape: Shape) -> Dictionary:
    """Returns the dictionary before the first task: zeros."""
    size = feature_sizes(settings, image_shape)
    return {
        "filters": jnp.zeros((size["patch"], settings.num_filters)),
        "offset": jnp.zeros((settings.num_filters,)),
        "mean": jnp.zeros((size["pooled"],)),
        "deviation": jnp.zeros((size["pooled"],)),
        "seed": jnp.zeros((2,), jnp.uint32),
    }


def fit_dictionary(rows: np.ndarray, image_shape: Shape, settings: ClosedFormConfig, *, rng: jax.Array) -> Dictionary:
    """Fits filters to images, and the standardization of their pooled responses.

    Args:
        rows: images `[n, pixels]`, uint8 or float in [0, 1].
        image_shape: shape of an image.
        settings: number and size of the filters, and the grid.
        rng: key of the patches and of the random expansion.

    Returns:
        `filters` `[patch, filters]` and `offset` `[filters]`, such that the response to a normalized patch is
        `patch . filters - offset`; `mean` and `deviation` `[pooled]`; `seed` of the expansion, uint32 `[2]`.
    """
    patch_rng, expansion_rng = jax.random.split(rng)
    numbers = np.random.default_rng(np.asarray(jax.random.key_data(patch_rng)))
    side = feature_sizes(settings, image_shape)["side"]
    patches = _sample_patches(rows, image_shape, side, settings.num_filters, numbers)
    center, whiten = _fit_whitening(patches)
    filters = whiten @ _fit_centroids((patches - center) @ whiten, settings.num_filters, numbers).T
    dictionary = {
        "filters": jnp.asarray(filters, jnp.float32),
        "offset": jnp.asarray(center @ filters + THRESHOLD, jnp.float32),
        "seed": jax.random.key_data(expansion_rng),
    }
    # A fixed number of images, spread evenly over all of them.
    count = min(len(rows), STANDARDIZATION_IMAGES)
    sample = rows[np.arange(count) * len(rows) // count]
    pool = partial(_pool_responses, dictionary, image_shape=image_shape, settings=settings)
    pooled = np.concatenate(
        [np.asarray(pool(batch))[: count - start] for start, batch in padded_batches(sample, *BATCH_SIZES)]
    )
    deviation = pooled.std(axis=0)
    return {
        **dictionary,
        "mean": jnp.asarray(pooled.mean(axis=0)),
        "deviation": jnp.asarray(deviation + max(0.1 * deviation.mean(), 1e-6)),
    }


def expansion_matrix(dictionary: Dictionary, settings: ClosedFormConfig, image_shape: Shape) -> jax.Array:
    """Samples the random matrix R from its seed: `[blocks, pooled / blocks, random_features / blocks]`."""
    size = feature_sizes(settings, image_shape)
    inputs, blocks = size["pooled"] // size["blocks"], size["blocks"]
    rng = jax.random.wrap_key_data(dictionary["seed"])
    return jax.random.normal(rng, (blocks, inputs, settings.random_features // blocks)) / math.sqrt(inputs)


def extract(
    dictionary: Dictionary, expand: jax.Array, rows: jax.Array, *, image_shape: Shape, settings: ClosedFormConfig
) -> jax.Array:
    """Computes the features of images, float32 `[n, random_features + 1]`. The last one is 1. Traceable.

    Args:
        dictionary: from `fit_dictionary`.
        expand: from `expansion_matrix`.
        rows: images `[n, pixels]`, uint8 or float in [0, 1].
        image_shape: shape of an image.
        settings: settings that the dictionary was fitted with.
    """
    with jax.default_matmul_precision("float32"):
        pooled = _pool_responses(dictionary, rows, image_shape=image_shape, settings=settings)
        pooled = (pooled - dictionary["mean"][None]) / dictionary["deviation"][None]
        pooled = pooled * jax.lax.rsqrt(jnp.mean(jnp.square(pooled), axis=1, keepdims=True) + 1e-3)
        # Block b reads the values b, b + blocks, ...
        inputs = pooled.reshape(len(rows), -1, len(expand))
        expanded = [jax.nn.relu(inputs[:, :, block] @ matrix) for block, matrix in enumerate(expand)]
        return jnp.concatenate([*expanded, jnp.ones((len(rows), 1))], axis=1)


@partial(jax.jit, static_argnames=("image_shape", "settings"))
def _pool_responses(
    dictionary: Dictionary, rows: jax.Array, *, image_shape: Shape, settings: ClosedFormConfig
) -> jax.Array:
    """Sums the filter responses over the cells of the grid: `[n, cells * cells * filters]`."""
    size = feature_sizes(settings, image_shape)
    side, (height, width, _) = size["side"], image_shape
    down, across = height - side + 1, width - side + 1
    # Centering the filters has the effect of centering every patch. The offset is the weight of a constant pixel of 1.
    centered = dictionary["filters"] - dictionary["filters"].mean(axis=0, keepdims=True)
    filters = jnp.concatenate([centered, -dictionary["offset"][None]])

    def pool_batch(batch: jax.Array) -> jax.Array:
        images = jnp.moveaxis(to_float(batch).reshape(-1, *image_shape), -1, 0)
        # [patch, positions], so that contiguous runs of pixels are copied.
        shifted = [images[:, :, y : y + down, x : x + across] for y in range(side) for x in range(side)]
        patches = jnp.concatenate(shifted).reshape(size["patch"], -1)
        patches = patches * jax.lax.rsqrt(patches.var(axis=0, keepdims=True) + CONTRAST_FLOOR)
        patches = jnp.pad(patches, ((0, 1), (0, 0)), constant_values=1.0)
        responses = jax.nn.relu(patches.T @ filters).reshape(len(batch), down, across, -1)
        return cpu.sum_cells(cpu.sum_cells(responses, 1, size["cells"]), 2, size["cells"]).reshape(len(batch), -1)

    with jax.default_matmul_precision("float32"):
        return cpu.map_images(pool_batch, rows)


def _sample_patches(
    rows: np.ndarray, image_shape: Shape, side: int, num_filters: int, numbers: np.random.Generator
) -> np.ndarray:
    """Samples patches at random places, without flat ones, with mean 0 and variance about 1: `[n, patch]`."""
    windows = np.lib.stride_tricks.sliding_window_view(rows.reshape(-1, *image_shape), (side, side), axis=(1, 2))
    count = PATCHES_PER_FILTER * num_filters
    places = [numbers.integers(0, length, 4 * count) for length in windows.shape[:3]]
    # From [n, channels, side, side] to channels last, as in `_pool_responses`.
    patches = windows[tuple(places)].transpose(0, 2, 3, 1).reshape(4 * count, -1).astype(np.float32)
    patches /= 255 if rows.dtype == np.uint8 else 1
    patches = patches[patches.std(axis=1) > FLAT_STD][:count]
    patches -= patches.mean(axis=1, keepdims=True)
    return patches / np.sqrt(patches.var(axis=1, keepdims=True) + CONTRAST_FLOOR)


def _fit_whitening(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean, and the symmetric matrix that makes the covariance nearly the identity (ZCA)."""
    if len(patches) < 2:
        return np.zeros(patches.shape[1]), np.eye(patches.shape[1])
    values, vectors = np.linalg.eigh(np.cov(patches.T))
    return patches.mean(axis=0), (vectors / np.sqrt(np.maximum(values, 0) + WHITENING_FLOOR)) @ vectors.T


def _fit_centroids(patches: np.ndarray, num_filters: int, numbers: np.random.Generator) -> np.ndarray:
    """Spherical k-means: unit vectors `[filters, patch]`, each an average of the patches nearest in angle."""

    def normalize(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    centroids = normalize(numbers.standard_normal((num_filters, patches.shape[1])))
    for _ in range(ITERATIONS if len(patches) else 0):
        nearest = (patches @ centroids.T).argmax(axis=1)
        sums = np.zeros_like(centroids)
        np.add.at(sums, nearest, patches)
        counts = np.bincount(nearest, minlength=num_filters)
        random_directions = numbers.standard_normal(sums.shape)
        centroids = normalize(np.where((counts >= MIN_PATCHES)[:, None], sums, random_directions))
    return centroids
