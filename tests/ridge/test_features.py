"""Features of the closed-form recognizer, computed a second time; what a dictionary is made of."""

import jax
import numpy as np
import pytest

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.ridge import features

SETTINGS = ClosedFormConfig(num_filters=5, filter_size=3, pool_grid=2, random_features=8)
COLOR = (8, 7, 2)


def pictures(count, shape, seed=0):
    numbers = np.random.default_rng(seed)
    return numbers.integers(0, 256, (count, np.prod(shape)), np.uint8)


@pytest.fixture(scope="module")
def dictionary():
    return features.fit_dictionary(pictures(40, COLOR), COLOR, SETTINGS, rng=jax.random.key(3))


def compute(dictionary, rows, shape=COLOR, settings=SETTINGS):
    expand = features.expansion_matrix(dictionary, settings, shape)
    values = features.extract(dictionary, expand, rows, image_shape=shape, settings=settings)
    return np.asarray(values)


def by_hand(dictionary, rows):
    """The formulas of the module's head, patch by patch in float64."""
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


def test_features_agree_with_the_formulas_computed_patch_by_patch(dictionary):
    rows = pictures(6, COLOR, seed=1)
    np.testing.assert_allclose(compute(dictionary, rows), by_hand(dictionary, rows), rtol=1e-3, atol=1e-4)


def test_uint8_and_float_images_have_the_same_features(dictionary):
    rows = pictures(3, COLOR, seed=1)
    as_float = (rows / 255).astype(np.float32)
    np.testing.assert_allclose(compute(dictionary, as_float), compute(dictionary, rows), atol=1e-5)


def test_an_images_features_do_not_depend_on_the_others(dictionary):
    rows = pictures(5, COLOR, seed=1)
    np.testing.assert_allclose(compute(dictionary, rows)[3:4], compute(dictionary, rows[3:4]), atol=1e-5)


def test_pooled_responses_of_the_first_images_are_standardised(dictionary):
    rows = pictures(40, COLOR)
    pooled = features._pool_responses(dictionary, rows, image_shape=COLOR, settings=SETTINGS)
    np.testing.assert_allclose(np.asarray(pooled).mean(axis=0), dictionary["mean"], rtol=1e-4, atol=1e-4)
    assert (np.asarray(pooled).std(axis=0) <= np.asarray(dictionary["deviation"])).all()


def test_the_same_rng_gives_the_same_dictionary_and_another_one_another(dictionary):
    again, other = (
        features.fit_dictionary(pictures(40, COLOR), COLOR, SETTINGS, rng=jax.random.key(seed)) for seed in (3, 4)
    )
    np.testing.assert_array_equal(again["filters"], dictionary["filters"])
    assert np.abs(other["filters"] - dictionary["filters"]).max() > 1e-3
    assert (other["seed"] != dictionary["seed"]).any()


@pytest.mark.parametrize("level", [0, 255])
def test_images_without_any_contrast_give_a_dictionary_of_random_filters(level):
    blank = np.full((3, 64), level, np.uint8)
    learned = features.fit_dictionary(blank, (8, 8, 1), SETTINGS, rng=jax.random.key(0))
    assert all(np.isfinite(values).all() for values in learned.values())
    assert np.linalg.norm(learned["filters"], axis=0).min() > 0.5
    assert np.isfinite(compute(learned, pictures(2, (8, 8, 1)), (8, 8, 1))).all()


def test_no_filter_is_a_patch_however_few_images_there_are():
    """Two images have fewer patches than a filter must be an average of: all filters are random."""
    rows = pictures(2, (6, 6, 1))
    numbers = np.random.default_rng(0)
    patches = features._patches(rows, (6, 6, 1), 3, 1, numbers)
    distinct = np.unique(patches.round(4), axis=0)
    few = distinct[: features.MIN_PATCHES - 1]
    centroids = features._centroids(few, 20, numbers)
    nearest = (centroids @ (few / np.linalg.norm(few, axis=1, keepdims=True)).T).max(axis=1)
    assert nearest.max() < 0.97
    one_filter = features._centroids(np.repeat(few[:1], features.MIN_PATCHES, axis=0), 1, numbers)
    assert float(one_filter[0] @ few[0] / np.linalg.norm(few[0])) == pytest.approx(1.0)


def test_filters_and_grid_shrink_with_the_image():
    size = features.feature_sizes(SETTINGS, (2, 9, 1))
    assert (size["side"], size["cells"], size["patch"], size["pooled"]) == (2, 1, 4, 5)
    assert size["blocks"] == 1
    learned = features.fit_dictionary(pictures(4, (2, 9, 1)), (2, 9, 1), SETTINGS, rng=jax.random.key(0))
    assert compute(learned, pictures(3, (2, 9, 1)), (2, 9, 1)).shape == (3, 9)


def test_a_blank_dictionary_has_the_shapes_of_a_learned_one(dictionary):
    blank = features.empty_dictionary(SETTINGS, COLOR)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), blank) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), dictionary
    )
