"""Ridge regression from sums, compared with scikit-learn on all images at once."""

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
def expand(dictionary):
    return features.expansion_matrix(dictionary, SETTINGS, SHAPE)


@pytest.fixture(scope="module")
def phi(rows, dictionary, expand):
    return [
        np.asarray(features.extract(dictionary, expand, r, image_shape=SHAPE, settings=SETTINGS), np.float64)
        for r in rows
    ]


@pytest.fixture(scope="module")
def sums(rows, dictionary, expand):
    return [regression.compute_sums(dictionary, expand, r, image_shape=SHAPE, settings=SETTINGS) for r in rows]


def total_sums(sums):
    """Gram matrix over all categories and vectors `[features, categories]`, by part, in float64."""
    gram = {part: sum(np.asarray(g[part], np.float64) for g, _ in sums) for part in ("fit", "held_out")}
    vectors = {part: np.stack([np.asarray(v[part], np.float64) for _, v in sums], 1) for part in ("fit", "held_out")}
    return gram, vectors


def test_compute_sums_returns_means_and_separates_every_twentieth_image(sums, phi):
    for (gram, vector), values in zip(sums, phi, strict=True):
        held_out = np.arange(len(values)) % 20 == 19
        for part, selected in (("fit", values[~held_out]), ("held_out", values[held_out])):
            expected, unpacked = selected.T @ selected / len(values), regression.unpack_gram(gram[part], 16)
            np.testing.assert_allclose(np.triu(unpacked), np.triu(expected), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(vector[part], selected.sum(axis=0) / len(values), rtol=1e-4, atol=1e-5)


def test_compute_sums_does_not_depend_on_the_batch_size(rows, dictionary, expand, sums, monkeypatch):
    monkeypatch.setattr(features, "BATCH_SIZES", (16, 16))
    in_batches = regression.compute_sums(dictionary, expand, rows[0], image_shape=SHAPE, settings=SETTINGS)
    for first, second in zip(jax.tree.leaves(in_batches), jax.tree.leaves(sums[0]), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_features", [1, 5, 8, 16, 61])
def test_unpack_gram_inverts_packed_gram(num_features):
    phi = np.random.default_rng(num_features).standard_normal((9, num_features)).astype(np.float32)
    gram = regression.packed_gram(phi, phi)
    unpacked = regression.unpack_gram(np.asarray(gram), num_features)
    np.testing.assert_allclose(np.triu(unpacked), np.triu(phi.T @ phi), rtol=1e-4, atol=1e-5)
    assert gram.shape == (regression._packed_size(num_features),)
    for stride in (2, 3, 4):
        selected = np.arange(num_features)[::-1][::stride][::-1]
        part = regression.unpack_gram(np.asarray(gram), num_features, stride)
        np.testing.assert_array_equal(np.triu(part), np.triu(unpacked)[np.ix_(selected, selected)])


def test_packed_size_is_little_more_than_half():
    assert regression._packed_size(5001) / 5001**2 == pytest.approx(9 / 16, abs=1e-3)


def test_solve_equals_joint_regression_with_equal_weight_per_category(sums, phi):
    solved = regression.solve(*total_sums(sums), 0.03)
    weights = np.concatenate([np.full(count, 1 / count) for count in COUNTS])
    model = linear_model.Ridge(alpha=0.03, fit_intercept=False, solver="cholesky")
    model.fit(np.concatenate(phi), np.repeat(np.eye(3), COUNTS, axis=0), sample_weight=weights)
    np.testing.assert_allclose(solved, model.coef_.T, rtol=1e-2, atol=1e-4)


def test_select_ridge_is_half_a_decade_below_the_least_held_out_error(sums, phi, monkeypatch):
    monkeypatch.setattr(regression, "SEARCH_STRIDE", 1)
    gram, vectors = total_sums(sums)
    upper = np.triu(regression.unpack_gram(gram["fit"], 16))
    symmetric = upper + np.triu(upper, 1).T
    errors = []
    for ridge in regression.RIDGES:
        weights = np.linalg.solve(symmetric + ridge * np.eye(16), vectors["fit"])
        held_out = [values[19::20] for values in phi]
        errors.append(
            sum(np.square(values @ weights - np.eye(3)[c]).sum() / COUNTS[c] for c, values in enumerate(held_out))
        )
    ridge, weights = regression.select_ridge(gram, vectors)
    np.testing.assert_allclose(weights, np.linalg.solve(symmetric + ridge * np.eye(16), vectors["fit"]), rtol=1e-6)
    best = regression.RIDGES.index(ridge) + 1
    neighbors = [errors[index] for index in (best - 1, best + 1) if 0 <= index < len(errors)]
    assert errors[best] <= min(neighbors)
    assert errors[best] == pytest.approx(min(errors), rel=0.02)


@pytest.fixture(scope="module")
def four_digits(digits):
    """Features of 300 images of each of four digits, and their total sums."""
    settings = ClosedFormConfig(num_filters=32, filter_size=6, pool_grid=2, random_features=400)
    options = {"image_shape": (28, 28, 1), "settings": settings}
    rows = [digits[name].reshape(-1, 784)[:300] for name in "0123"]
    dictionary = features.fit_dictionary(rows[0], options["image_shape"], settings, rng=jax.random.key(0))
    expand = features.expansion_matrix(dictionary, settings, options["image_shape"])
    totals = total_sums([regression.compute_sums(dictionary, expand, images, **options) for images in rows])
    return features.extract(dictionary, expand, np.concatenate(rows), **options), totals


@pytest.mark.parametrize("ridge", [1e-4, 1e-2, 1.0])
def test_solve_in_float32_is_as_good_as_in_float64(four_digits, ridge):
    phi, (gram, vectors) = four_digits
    in_float64 = regression.solve(gram, vectors, ridge)
    in_float32 = regression.solve(*jax.tree.map(np.float32, (gram, vectors)), ridge)
    assert in_float32.dtype == np.float32
    np.testing.assert_allclose(np.asarray(phi) @ in_float32, np.asarray(phi) @ in_float64, atol=2e-3)


def test_select_ridge_on_a_quarter_of_the_features_is_close_to_all(four_digits, monkeypatch):
    totals = four_digits[1]
    from_quarter, _ = regression.select_ridge(*totals)
    monkeypatch.setattr(regression, "SEARCH_STRIDE", 1)
    from_all, _ = regression.select_ridge(*totals)
    assert 1 / 4 < from_quarter / from_all < 4


def test_select_ridge_is_above_the_rounding_error_of_float32():
    # With fewer images than features, the error on the same images falls with the ridge without end.
    numbers = np.random.default_rng(3)
    phi = np.maximum(numbers.standard_normal((80, 8)) @ numbers.standard_normal((8, 400)), 0).astype(np.float32)
    vector = np.stack([phi[:40].mean(axis=0), phi[40:].mean(axis=0)], axis=1)
    packed = np.asarray(regression.packed_gram(phi / 40, phi))
    gram = {"fit": packed, "held_out": np.zeros_like(packed)}
    ridge, weights = regression.select_ridge(gram, {"fit": vector, "held_out": vector})
    assert ridge >= 0.999 * np.finfo(np.float32).eps * np.square(phi).sum() / 40
    assert ridge < regression.FIRST_RIDGE
    assert np.isfinite(weights).all()


def test_select_ridge_without_held_out_images_returns_the_first(rows, dictionary, expand):
    few = [regression.compute_sums(dictionary, expand, r[:19], image_shape=SHAPE, settings=SETTINGS) for r in rows]
    gram, vectors = total_sums(few)
    assert not gram["held_out"].any()
    ridge, weights = regression.select_ridge(gram, vectors)
    assert ridge == regression.FIRST_RIDGE
    assert np.isfinite(weights).all()


def test_empty_sums_have_the_shapes_of_computed_ones(sums):
    gram, vector = sums[0]
    own_gram = ClosedFormConfig(num_filters=4, filter_size=3, pool_grid=2, random_features=15, gram_sharing="own")
    like = jax.tree.map(jnp.zeros_like, {"gram": gram, "sum": vector, "calibration": temperature_scaling.empty_grid()})
    assert jax.tree.map(jnp.shape, regression.empty_category_sums(own_gram)) == jax.tree.map(jnp.shape, like)
    assert set(regression.empty_category_sums(SETTINGS)) == {"sum", "calibration"}
    assert set(regression.empty_common_sums(SETTINGS, SHAPE)) == {"dictionary", "gram", "ridge"}
    assert set(regression.empty_common_sums(own_gram, SHAPE)) == {"dictionary", "ridge"}
