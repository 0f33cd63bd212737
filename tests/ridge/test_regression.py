"""Ridge regression from sums, against scikit-learn on all images at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import linear_model

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.ridge import features, regression, temperature_scaling

SETTINGS = ClosedFormConfig(num_filters=4, filter_size=3, pool_grid=2, random_features=15)
SHAPE = (7, 7, 1)
COUNTS = (100, 45, 21)


@pytest.fixture(scope="module")
def rows():
    """Three categories of unequal size: noise of growing strength."""
    numbers = np.random.default_rng(0)
    return [numbers.integers(0, 100 + 70 * c, (count, 49), np.uint8) for c, count in enumerate(COUNTS)]


@pytest.fixture(scope="module")
def dictionary(rows):
    return features.fit_dictionary(rows[0], SHAPE, SETTINGS, rng=jax.random.key(1))


@pytest.fixture(scope="module")
def phi(rows, dictionary):
    expand = features.expansion_matrix(dictionary, SETTINGS, SHAPE)
    return [
        np.asarray(features.extract(dictionary, expand, r, image_shape=SHAPE, settings=SETTINGS), np.float64)
        for r in rows
    ]


@pytest.fixture(scope="module")
def sums(rows, dictionary):
    expand = features.expansion_matrix(dictionary, SETTINGS, SHAPE)
    return [regression.compute_sums(dictionary, expand, r, image_shape=SHAPE, settings=SETTINGS) for r in rows]


def together(sums):
    gram = {part: sum(np.asarray(g[part], np.float64) for g, _ in sums) for part in ("fit", "held_out")}
    vectors = {part: np.stack([np.asarray(v[part], np.float64) for _, v in sums], 1) for part in ("fit", "held_out")}
    return gram, vectors


def test_sums_are_means_and_every_twentieth_image_is_apart(sums, phi):
    for (gram, vector), values in zip(sums, phi, strict=True):
        apart = np.arange(len(values)) % 20 == 19
        for part, chosen in (("fit", values[~apart]), ("held_out", values[apart])):
            expected, found = chosen.T @ chosen / len(values), regression.unpack_gram(gram[part], 16)
            np.testing.assert_allclose(np.triu(found), np.triu(expected), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(vector[part], chosen.sum(axis=0) / len(values), rtol=1e-4, atol=1e-5)


def test_blocks_change_nothing(rows, dictionary, sums, monkeypatch):
    monkeypatch.setattr(features, "BATCH_SIZES", (16, 16))
    expand = features.expansion_matrix(dictionary, SETTINGS, SHAPE)
    in_blocks = regression.compute_sums(dictionary, expand, rows[0], image_shape=SHAPE, settings=SETTINGS)
    for first, second in zip(jax.tree.leaves(in_blocks), jax.tree.leaves(sums[0]), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("features", [1, 5, 8, 16, 61])
def test_a_gram_matrix_has_little_more_than_half_of_its_values(features):
    phi = np.random.default_rng(features).standard_normal((9, features)).astype(np.float32)
    gram = regression.packed_gram(phi, phi)
    found = regression.unpack_gram(np.asarray(gram), features)
    np.testing.assert_allclose(np.triu(found), np.triu(phi.T @ phi), rtol=1e-4, atol=1e-5)
    assert gram.shape == (regression._packed_size(features),)
    for every in (2, 3, 4):
        kept = np.arange(features)[::-1][::every][::-1]
        part = regression.unpack_gram(np.asarray(gram), features, every)
        np.testing.assert_array_equal(np.triu(part), np.triu(found)[np.ix_(kept, kept)])


def test_five_thousand_features_take_half_the_room():
    assert regression._packed_size(5001) / 5001**2 == pytest.approx(9 / 16, abs=1e-3)


def test_weights_are_those_of_joint_ridge_regression_with_categories_weighing_the_same(sums, phi):
    solved = regression.solve(*together(sums), 0.03)
    weights = np.concatenate([np.full(count, 1 / count) for count in COUNTS])
    model = linear_model.Ridge(alpha=0.03, fit_intercept=False, solver="cholesky")
    model.fit(np.concatenate(phi), np.repeat(np.eye(3), COUNTS, axis=0), sample_weight=weights)
    np.testing.assert_allclose(solved, model.coef_.T, rtol=1e-2, atol=1e-4)


def test_the_ridge_has_the_least_squared_error_on_what_was_held_out(sums, phi, monkeypatch):
    monkeypatch.setattr(regression, "SEARCH_STRIDE", 1)
    gram, vectors = together(sums)
    upper = np.triu(regression.unpack_gram(gram["fit"], 16))
    symmetric = upper + np.triu(upper, 1).T
    errors = []
    for value in regression.RIDGES:
        weights = np.linalg.solve(symmetric + value * np.eye(16), vectors["fit"])
        apart = [values[19::20] for values in phi]
        errors.append(
            sum(np.square(values @ weights - np.eye(3)[c]).sum() / COUNTS[c] for c, values in enumerate(apart))
        )
    value, weights = regression.select_ridge(gram, vectors)
    np.testing.assert_allclose(weights, np.linalg.solve(symmetric + value * np.eye(16), vectors["fit"]), rtol=1e-6)
    # Half a decade below the least error.
    chosen = regression.RIDGES.index(value) + 1
    neighbors = [errors[index] for index in (chosen - 1, chosen + 1) if 0 <= index < len(errors)]
    assert errors[chosen] <= min(neighbors)
    assert errors[chosen] == pytest.approx(min(errors), rel=0.02)


@pytest.fixture(scope="module")
def four_digits(digits):
    """Features of 300 images of each, and their sums."""
    settings = ClosedFormConfig(num_filters=32, filter_size=6, pool_grid=2, random_features=400)
    options = {"image_shape": (28, 28, 1), "settings": settings}
    rows = [digits[name].reshape(-1, 784)[:300] for name in "0123"]
    dictionary = features.fit_dictionary(rows[0], options["image_shape"], settings, rng=jax.random.key(0))
    expand = features.expansion_matrix(dictionary, settings, options["image_shape"])
    found = together([regression.compute_sums(dictionary, expand, images, **options) for images in rows])
    return features.extract(dictionary, expand, np.concatenate(rows), **options), found


@pytest.mark.parametrize("value", [1e-4, 1e-2, 1.0])
def test_float32_solves_as_well_as_float64(four_digits, value):
    phi, (gram, vectors) = four_digits
    precise = regression.solve(gram, vectors, value)
    sums = jax.tree.map(np.float32, (gram, vectors))
    found = regression.solve(*sums, value)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.asarray(phi) @ found, np.asarray(phi) @ precise, atol=2e-3)


def test_a_quarter_of_the_features_tells_the_ridge_of_all(four_digits, monkeypatch):
    found = four_digits[1]
    quarter, _ = regression.select_ridge(*found)
    monkeypatch.setattr(regression, "SEARCH_STRIDE", 1)
    searched, _ = regression.select_ridge(*found)
    assert 1 / 4 < quarter / searched < 4


def test_no_ridge_is_below_what_float32_rounds():
    # Fewer images than features, and an error that falls with the ridge for ever.
    numbers = np.random.default_rng(3)
    images = np.maximum(numbers.standard_normal((80, 8)) @ numbers.standard_normal((8, 400)), 0)
    phi = images.astype(np.float32)
    vector = np.stack([phi[:40].mean(axis=0), phi[40:].mean(axis=0)], axis=1)
    packed = np.asarray(regression.packed_gram(phi / 40, phi))
    gram = {"fit": packed, "held_out": np.zeros_like(packed)}
    value, weights = regression.select_ridge(gram, {"fit": vector, "held_out": vector})
    assert value >= 0.999 * np.finfo(np.float32).eps * np.square(phi).sum() / 40
    assert value < regression.FIRST_RIDGE
    assert np.isfinite(weights).all()


def test_too_few_images_to_hold_one_out_leave_the_ridge_as_it_is(rows, dictionary):
    expand = features.expansion_matrix(dictionary, SETTINGS, SHAPE)
    few = [regression.compute_sums(dictionary, expand, r[:19], image_shape=SHAPE, settings=SETTINGS) for r in rows]
    gram, vectors = together(few)
    assert not gram["held_out"].any()
    value, weights = regression.select_ridge(gram, vectors)
    assert value == regression.FIRST_RIDGE
    assert np.isfinite(weights).all()


def test_blanks_have_the_shapes_of_sums(sums):
    gram, vector = sums[0]
    own = ClosedFormConfig(num_filters=4, filter_size=3, pool_grid=2, random_features=15, gram_sharing="own")
    like = jax.tree.map(jnp.zeros_like, {"gram": gram, "sum": vector, "calibration": temperature_scaling.empty_grid()})
    assert jax.tree.map(jnp.shape, regression.empty_category_sums(own)) == jax.tree.map(jnp.shape, like)
    assert set(regression.empty_category_sums(SETTINGS)) == {"sum", "calibration"}
    assert set(regression.empty_common_sums(SETTINGS, SHAPE)) == {"dictionary", "gram", "ridge"}
    assert set(regression.empty_common_sums(own, SHAPE)) == {"dictionary", "ridge"}
