"""The dictionary: small filters that are learned from dead leaves, never from images of the user.

Filters are centroids of whitened patches (Coates and Ng 2012, "Learning feature representations with k-means"). They
depend on a seed, on the number of channels and on their own number and size, so that no category owns them. Every
filter has its mirror image in the dictionary.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from scipy import sparse

from lifelong_cvae.ridge import dead_leaves

# A response counts as far as it exceeds this.
THRESHOLD = 0.25
PATCHES_PER_FILTER = 100
PATCHES_PER_IMAGE = 256
# Patches with a smaller standard deviation are not used.
FLAT_STD = 0.05
# Added to the variance of a patch that is normalized (gray, color), and to the eigenvalues of the covariance.
CONTRAST_FLOORS = (1e-3, 1e-2)
WHITENING_FLOOR = 0.1
# Iterations of k-means. A centroid of fewer patches is replaced by a random direction.
ITERATIONS = 10
MIN_PATCHES = 20


def contrast_floor(channels: int) -> float:
    """Returns what is added to the variance of a patch before it is normalized."""
    return CONTRAST_FLOORS[channels > 1]


@functools.lru_cache(maxsize=8)
def make_filters(seed: int, channels: int, side: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Learns filters from dead leaves. The arrays are shared by all callers and read-only.

    Args:
        seed: seed of the images and of k-means.
        channels: channels of an image.
        side: side of a filter in pixels, at most that of a synthetic image.
        count: number of filters. Filter count / 2 + k is the mirror image of filter k.

    Returns:
        `filters` `[side * side * channels, count]` and `offset` `[count]`, such that the response to a patch with mean
        0 and variance 1 is `patch . filters - offset`.
    """
    numbers = np.random.default_rng([seed, channels, side, count])
    patches = _sample_patches(PATCHES_PER_FILTER * count, channels, side, numbers)
    mirror = np.arange(side * side * channels).reshape(side, side, channels)[:, ::-1].ravel()
    filters, offset = fit_filters(patches, lambda vectors: vectors[:, mirror], count, numbers)
    # Patches have mean 0, so the mean of a filter has no effect. Without it, patches need not be centered.
    return to_read_only((filters - filters.mean(axis=0), offset))


def fit_filters(
    patches: np.ndarray, mirror: Callable[[np.ndarray], np.ndarray], count: int, numbers: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Fits filters to whitened patches and their mirror images.

    Args:
        patches: `[n, patch]`.
        mirror: from vectors `[k, patch]` to their mirror images.
        count: number of filters.
        numbers: source of random numbers.

    Returns:
        `filters` `[patch, count]` and `offset` `[count]`; the second half of them are mirror images of the first.
    """
    center, whiten = _fit_whitening(np.concatenate([patches, mirror(patches)]))
    centroids = _fit_centroids((patches - center) @ whiten, -(-count // 2), numbers)
    filters = whiten @ np.concatenate([centroids, mirror(centroids)])[:count].T
    return filters, center @ filters


def to_read_only(arrays: Any) -> Any:
    """Converts a tree of arrays to float32 arrays that callers can share."""

    def convert(values: np.ndarray) -> np.ndarray:
        array = np.float32(values)
        array.flags.writeable = False
        return array

    return jax.tree.map(convert, arrays)


def _sample_patches(count: int, channels: int, side: int, numbers: np.random.Generator) -> np.ndarray:
    """Samples patches at random places, without flat ones, with mean 0 and variance about 1: `[n, patch]`."""
    images = dead_leaves.sample_images(-(-count // PATCHES_PER_IMAGE), channels, numbers)
    windows = np.lib.stride_tricks.sliding_window_view(images, (side, side), axis=(1, 2))
    places = [numbers.integers(0, length, 2 * count) for length in windows.shape[:3]]
    # From [n, channels, side, side] to channels last.
    patches = windows[tuple(places)].transpose(0, 2, 3, 1).reshape(2 * count, -1)
    return normalize_patches(patches[patches.std(axis=1) > FLAT_STD][:count], contrast_floor(channels))


def normalize_patches(patches: np.ndarray, floor: float) -> np.ndarray:
    """Scales patches `[n, patch]` to mean 0 and, but for the floor, variance 1."""
    centered = patches - patches.mean(axis=1, keepdims=True)
    return centered / np.sqrt(centered.var(axis=1, keepdims=True) + floor)


def _fit_whitening(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean, and the symmetric matrix that makes the covariance nearly the identity (ZCA)."""
    if len(patches) < 2:  # a gray patch of one pixel is always flat
        return np.zeros(patches.shape[1]), np.eye(patches.shape[1])
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(patches.T, dtype=np.float64)))
    return patches.mean(axis=0), (vectors / np.sqrt(np.maximum(values, 0) + WHITENING_FLOOR)) @ vectors.T


def _fit_centroids(patches: np.ndarray, count: int, numbers: np.random.Generator) -> np.ndarray:
    """Spherical k-means: unit vectors `[count, patch]`, normalized means of the patches nearest in angle."""

    def normalize(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    patches, ones = np.float32(patches), np.ones(len(patches), np.float32)
    centroids = np.float32(normalize(numbers.standard_normal((count, patches.shape[1]))))
    for _ in range(ITERATIONS if len(patches) else 0):
        nearest = (patches @ centroids.T).argmax(axis=1)
        members = sparse.csc_array((ones, nearest, np.arange(len(patches) + 1)), (count, len(patches)))
        random_directions = numbers.standard_normal(centroids.shape)
        has_enough = np.bincount(nearest, minlength=count) >= MIN_PATCHES
        centroids = np.float32(normalize(np.where(has_enough[:, None], members @ patches, random_directions)))
    return centroids
