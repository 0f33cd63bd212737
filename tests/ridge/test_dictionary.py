"""The dictionary: mirrored, whitened filters, and k-means that keeps no patch."""

import numpy as np
import pytest

from lifelong_cvae.ridge import dead_leaves, dictionary

GRAY, COLOR = (0, 1, 3, 6), (0, 2, 4, 8)
ARGUMENTS = pytest.mark.parametrize("arguments", [GRAY, COLOR, (0, 1, 3, 5), (0, 3, 1, 4), (3, 1, 2, 1)])


def mirrored(filters, side):
    """Mirror images of filters `[patch, filters]`."""
    return filters.reshape(side, side, -1, filters.shape[1])[:, ::-1].reshape(filters.shape)


def sample_patches(channels, side, count=3000, seed=17):
    """Patches of other synthetic images, cut in a loop, with mean 0 and variance about 1, in float64."""
    numbers = np.random.default_rng(seed)
    images = np.float64(dead_leaves.sample_images(20, channels, numbers))
    patches = []
    while len(patches) < count:
        index, y, x = numbers.integers(0, (20, 49 - side, 49 - side))
        patch = images[index, y : y + side, x : x + side].ravel()
        if patch.std() > dictionary.FLAT_STD:
            patches.append((patch - patch.mean()) / np.sqrt(patch.var() + dictionary.contrast_floor(channels)))
    return np.array(patches)


@ARGUMENTS
def test_make_filters_returns_float32_of_mean_zero(arguments):
    _, channels, side, count = arguments
    filters, offset = dictionary.make_filters(*arguments)
    assert filters.shape == (side * side * channels, count)
    assert offset.shape == (count,)
    assert (filters.dtype, offset.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(filters.mean(axis=0), 0, atol=1e-6)
    assert np.linalg.norm(filters, axis=0).min() > 0.2


def test_make_filters_of_random_directions_have_mean_zero(monkeypatch):
    monkeypatch.setattr(dictionary, "MIN_PATCHES", 10**6)
    filters, _ = dictionary.make_filters.__wrapped__(*GRAY)
    np.testing.assert_allclose(filters.mean(axis=0), 0, atol=1e-6)


@ARGUMENTS
def test_make_filters_appends_mirror_images(arguments):
    filters, offset = dictionary.make_filters(*arguments)
    first = -(-len(offset) // 2)
    rest = len(offset) - first
    np.testing.assert_allclose(filters[:, first:], mirrored(filters, arguments[2])[:, :rest], atol=1e-5)
    np.testing.assert_allclose(offset[first:], offset[:rest], atol=1e-5)


def test_make_filters_is_determined_by_its_arguments():
    filters, offset = dictionary.make_filters(*GRAY)
    again, offset_again = dictionary.make_filters.__wrapped__(*GRAY)
    assert again is not filters
    np.testing.assert_array_equal(again, filters)
    np.testing.assert_array_equal(offset_again, offset)
    other, _ = dictionary.make_filters(1, *GRAY[1:])
    assert abs(other - filters).max() > 0.1


def test_make_filters_returns_shared_arrays_that_are_read_only():
    first, second = dictionary.make_filters(*GRAY), dictionary.make_filters(*GRAY)
    for array, same in zip(first, second, strict=True):
        assert array is same
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


@pytest.mark.parametrize("arguments", [GRAY, COLOR])
def test_make_filters_whitens(arguments):
    _, channels, side, _ = arguments
    filters, offset = dictionary.make_filters(*arguments)
    responses = sample_patches(channels, side) @ filters - offset
    assert responses.std(axis=0).min() > 0.8
    assert responses.std(axis=0).max() < 1.1


@pytest.mark.parametrize("arguments", [GRAY, COLOR])
def test_make_filters_offsets_the_mean_response_to_its_patches_and_their_mirror_images(arguments):
    _, channels, side, count = arguments
    filters, offset = dictionary.make_filters(*arguments)
    numbers = np.random.default_rng(list(arguments))
    patches = dictionary._sample_patches(dictionary.PATCHES_PER_FILTER * count, channels, side, numbers)
    both = np.concatenate([patches, mirrored(patches.T, side).T])
    assert abs(offset).max() > 1e-3
    np.testing.assert_allclose((both @ filters).mean(axis=0), offset, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_sample_patches_cuts_windows_that_are_not_flat(channels, monkeypatch):
    images = np.random.default_rng(2).random((2, 7, 6, channels), np.float32)
    images[:, :, 3:] = 0.5
    monkeypatch.setattr(dead_leaves, "sample_images", lambda *_: images)
    patches = dictionary._sample_patches(30, channels, 2, np.random.default_rng(0))
    assert patches.shape == (30, 4 * channels)
    windows = [image[y : y + 2, x : x + 2].ravel() for image in images for y in range(6) for x in range(3)]
    for patch in patches:
        distances = [
            abs(patch - (w - w.mean()) / np.sqrt(w.var() + dictionary.contrast_floor(channels))).max() for w in windows
        ]
        assert min(distances) < 1e-5


def test_normalize_patches_gives_mean_0_and_variance_1_but_for_the_floor():
    patches = np.random.default_rng(0).random((5, 8)) * np.array([[1e-3], [0.1], [1], [1], [1]])
    normalized = dictionary.normalize_patches(patches, 1e-3)
    np.testing.assert_allclose(normalized.mean(axis=1), 0, atol=1e-12)
    variances = np.array([np.var(patch) for patch in patches])
    np.testing.assert_allclose(normalized.var(axis=1), variances / (variances + 1e-3), rtol=1e-9)
    assert normalized[0].std() < 0.02


def test_fit_whitening_shrinks_the_eigenvalues_of_the_covariance():
    numbers = np.random.default_rng(1)
    patches = numbers.standard_normal((200, 6)) @ numbers.standard_normal((6, 6)) + 3
    center, whiten = dictionary._fit_whitening(patches)
    np.testing.assert_allclose(center, patches.mean(axis=0))
    np.testing.assert_allclose(whiten, whiten.T, atol=1e-12)
    centered = patches - patches.mean(axis=0)
    eigenvalues = np.linalg.svd(centered, compute_uv=False) ** 2 / 199
    whitened = np.linalg.svd(centered @ whiten, compute_uv=False) ** 2 / 199
    expected = eigenvalues / (eigenvalues + dictionary.WHITENING_FLOOR)
    np.testing.assert_allclose(np.sort(whitened), np.sort(expected))


def test_fit_centroids_returns_normalized_means_of_the_nearest_patches():
    numbers = np.random.default_rng(0)
    groups = [axis + 0.1 * numbers.standard_normal((30 + 10 * k, 5)) for k, axis in enumerate(np.eye(5)[:3])]
    patches = np.concatenate(groups)[numbers.permutation(120)]
    centroids = dictionary._fit_centroids(patches, 3, numbers)
    nearest = np.array([np.argmax([centroid @ patch for centroid in centroids]) for patch in patches])
    assert sorted(np.bincount(nearest)) == [30, 40, 50]
    for index, centroid in enumerate(centroids):
        mean = patches[nearest == index].mean(axis=0)
        np.testing.assert_allclose(centroid, mean / np.linalg.norm(mean), atol=1e-5)


def nearest_to_the_outlier():
    """Largest cosine between a patch far from all others and the centroids, over some seeds."""
    largest = []
    for seed in range(8):
        numbers = np.random.default_rng(seed)
        patches = numbers.standard_normal((41, 12)) * 0.05 + np.eye(12)[0]
        patches[20] = -np.eye(12)[0]
        largest.append((dictionary._fit_centroids(patches, 3, numbers) @ patches[20]).max())
    return max(largest)


def test_fit_centroids_replaces_a_centroid_of_few_patches(monkeypatch):
    assert nearest_to_the_outlier() < 0.9
    monkeypatch.setattr(dictionary, "MIN_PATCHES", 1)
    assert nearest_to_the_outlier() > 0.999


def test_fit_centroids_of_few_patches_are_random():
    few = np.repeat(np.eye(8)[:1], dictionary.MIN_PATCHES - 1, axis=0)
    centroids = dictionary._fit_centroids(few, 6, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, rtol=1e-5)
    assert (centroids @ few[0]).max() < 0.97
    enough = np.repeat(np.eye(8)[:1], dictionary.MIN_PATCHES, axis=0)
    assert dictionary._fit_centroids(enough, 1, np.random.default_rng(0))[0, 0] == pytest.approx(1)
