"""Features of the closed-form recognizer by a second computation, and the dictionary."""

import jax
import numpy as np
import pytest

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.ridge import features

SETTINGS = ClosedFormConfig(num_filters=5, filter_size=3, pool_grid=2, random_features=8)
COLOR = (8, 7, 2)


def random_images(count, shape, seed=0):
    """Uniform noise, uint8 `[count, pixels]`."""
    numbers = np.random.default_rng(seed)
    return numbers.integers(0, 256, (count, np.prod(shape)), np.uint8)


@pytest.fixture(scope="module")
def dictionary():
    return features.fit_dictionary(random_images(40, COLOR), COLOR, SETTINGS, rng=jax.random.key(3))


def extract(dictionary, rows, shape=COLOR, settings=SETTINGS):
    """Features of rows, as numpy."""
    expand = features.expansion_matrix(dictionary, settings, shape)
    return np.asarray(features.extract(dictionary, expand, rows, image_shape=shape, settings=settings))


def extract_by_patch(dictionary, rows):
    """Features by the formulas of the module's docstring, patch by patch in float64."""
    filters, offset, mean, deviation = (
        np.asarray(dictionary[key], np.float64) for key in ("filters", "offset", "mean", "deviation")
    )
    pooled = np.zeros((len(rows), 2, 2, 5))
    for index, image in enumerate(rows.reshape(-1, *COLOR) / 255.0):
        for y in range(6):
            for x in range(5):
                patch = image[y : y + 3, x : x + 3].reshape(-1)
                patch = (patch - patch.mean()) / np.sqrt(patch.var() + features.CONTRAST_FLOOR)
                response = np.maximum(patch @ filters - offset, 0)
                pooled[index, y * 2 // 6, x * 2 // 5] += response
    pooled = (pooled.reshape(len(rows), -1) - mean) / deviation
    pooled /= np.sqrt((pooled**2).mean(axis=1, keepdims=True) + 1e-3)
    expand = np.asarray(features.expansion_matrix(dictionary, SETTINGS, COLOR), np.float64)
    assert expand.shape == (4, 5, 2)
    expanded = np.concatenate([np.maximum(pooled[:, b::4] @ expand[b], 0) for b in range(4)], axis=1)
    return np.concatenate([expanded, np.ones((len(rows), 1))], axis=1)


def test_extract_agrees_with_the_formulas(dictionary):
    rows = random_images(6, COLOR, seed=1)
    np.testing.assert_allclose(extract(dictionary, rows), extract_by_patch(dictionary, rows), rtol=1e-3, atol=1e-4)


def test_extract_accepts_uint8_and_float(dictionary):
    rows = random_images(3, COLOR, seed=1)
    as_float = (rows / 255).astype(np.float32)
    np.testing.assert_allclose(extract(dictionary, as_float), extract(dictionary, rows), atol=1e-5)


def test_extract_treats_images_independently(dictionary):
    rows = random_images(5, COLOR, seed=1)
    np.testing.assert_allclose(extract(dictionary, rows)[3:4], extract(dictionary, rows[3:4]), atol=1e-5)


def test_fit_dictionary_standardizes_pooled_responses(dictionary):
    rows = random_images(40, COLOR)
    pooled = features._pool_responses(dictionary, rows, image_shape=COLOR, settings=SETTINGS)
    np.testing.assert_allclose(np.asarray(pooled).mean(axis=0), dictionary["mean"], rtol=1e-4, atol=1e-4)
    assert (np.asarray(pooled).std(axis=0) <= np.asarray(dictionary["deviation"])).all()


def test_fit_dictionary_is_determined_by_rng(dictionary):
    same, other = (
        features.fit_dictionary(random_images(40, COLOR), COLOR, SETTINGS, rng=jax.random.key(seed)) for seed in (3, 4)
    )
    np.testing.assert_array_equal(same["filters"], dictionary["filters"])
    assert np.abs(other["filters"] - dictionary["filters"]).max() > 1e-3
    assert (other["seed"] != dictionary["seed"]).any()


@pytest.mark.parametrize("level", [0, 255])
def test_fit_dictionary_of_flat_images_gives_random_filters(level):
    flat_images = np.full((3, 64), level, np.uint8)
    fitted = features.fit_dictionary(flat_images, (8, 8, 1), SETTINGS, rng=jax.random.key(0))
    assert all(np.isfinite(values).all() for values in fitted.values())
    assert np.linalg.norm(fitted["filters"], axis=0).min() > 0.5
    assert np.isfinite(extract(fitted, random_images(2, (8, 8, 1)), (8, 8, 1))).all()


def test_fit_centroids_never_returns_a_patch():
    """With fewer patches than a centroid must average, all centroids are random."""
    rows = random_images(2, (6, 6, 1))
    numbers = np.random.default_rng(0)
    patches = features._sample_patches(rows, (6, 6, 1), 3, 1, numbers)
    distinct = np.unique(patches.round(4), axis=0)
    few = distinct[: features.MIN_PATCHES - 1]
    centroids = features._fit_centroids(few, 20, numbers)
    nearest = (centroids @ (few / np.linalg.norm(few, axis=1, keepdims=True)).T).max(axis=1)
    assert nearest.max() < 0.97
    centroid = features._fit_centroids(np.repeat(few[:1], features.MIN_PATCHES, axis=0), 1, numbers)
    assert float(centroid[0] @ few[0] / np.linalg.norm(few[0])) == pytest.approx(1.0)


def test_feature_sizes_shrink_for_small_images():
    size = features.feature_sizes(SETTINGS, (2, 9, 1))
    assert (size["side"], size["cells"], size["patch"], size["pooled"]) == (2, 1, 4, 5)
    assert size["blocks"] == 1
    fitted = features.fit_dictionary(random_images(4, (2, 9, 1)), (2, 9, 1), SETTINGS, rng=jax.random.key(0))
    assert extract(fitted, random_images(3, (2, 9, 1)), (2, 9, 1)).shape == (3, 9)


def test_empty_dictionary_has_the_shapes_of_a_fitted_one(dictionary):
    empty = features.empty_dictionary(SETTINGS, COLOR)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), empty) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), dictionary
    )
