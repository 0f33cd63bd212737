"""Ridge regression from sums, compared with scikit-learn on all images at once."""

import dataclasses
from functools import reduce

import jax
import numpy as np
import pytest
from sklearn import linear_model

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.model import rejection
from lifelong_cvae.ridge import (
    cholesky,
    features,
    initial_sums,
    moments,
    penalty,
    regression,
    sums,
    temperature_scaling,
)
from tests.compiled import extract_features

SETTINGS = ClosedFormConfig(num_filters=4, filter_size=3, pool_grid=2, random_features=226)
SHAPE, FEATURES = (8, 7, 1), 258
COUNTS = (120, 65, 41)


@pytest.fixture(autouse=True)
def one_batch_size(monkeypatch):
    """Less is compiled."""
    monkeypatch.setattr(features, "BATCH_SIZES", (64, 64))


@pytest.fixture(scope="module")
def rows():
    """Three categories of unequal size: stripes of three directions in noise."""
    numbers = np.random.default_rng(0)
    y, x = np.mgrid[:8, :7]
    images = []
    for category, count in enumerate(COUNTS):
        phases = numbers.uniform(0, 6, (count, 1, 1))
        stripes = 40 * np.sin(1.5 * (np.cos(category) * x + np.sin(category) * y) + phases)
        images.append(np.uint8((128 + stripes + 20 * numbers.standard_normal(stripes.shape)).clip(0, 255)))
    return [image.reshape(-1, 56) for image in images]


@pytest.fixture(scope="module")
def options():
    return {"image_shape": SHAPE, "settings": SETTINGS}


@pytest.fixture(scope="module")
def made():
    return features.make_dictionary(SETTINGS, SHAPE), features.expansion_matrix(SETTINGS, SHAPE)


@pytest.fixture(scope="module")
def phi(rows, made, options):
    """Features by category, float64."""
    return [np.float64(extract_features(*made, images, **options)) for images in rows]


def packed(gram):
    """A Gram matrix, rounded, as an exact sum."""
    whole = np.int64(np.rint(np.ldexp(gram, sums.GRAM_BITS)))
    values = np.concatenate([whole[part, part.start :].ravel() for part in sums.row_blocks(len(gram))])
    return {"high": np.int32(values >> 16), "low": np.uint16(values & 0xFFFF)}


def sums_of_images(images, made, options, weight):
    batches = features.feature_batches(*made, images, **options)
    return sums.compute_sums(batches, len(images), weight, num_features=FEATURES)


def solve(*arguments):
    return jax.device_get(regression.solve(*arguments)[0])


def standardize(gram, vectors):
    """Moments, and the matrix of correlations."""

    @jax.jit
    def compute(gram, vectors):
        found = moments.compute_moments(gram, None, vectors, 0.0)
        return found, moments.correlations(gram, None, found, *moments.all_indices(len(found.mean)))

    with jax.enable_x64(True):
        return jax.device_get(compute(gram, vectors))


def sums_of(phi, weights=None):
    """Gram matrix and vectors of features by category: means, multiplied by the weights of the categories."""
    weighted = list(zip(phi, np.ones(len(phi)) if weights is None else weights, strict=True))
    gram = sum(weight * values.T @ values / len(values) for values, weight in weighted)
    vectors = np.stack([weight * np.append(values.mean(axis=0), 1) for values, weight in weighted], axis=1)
    return packed(gram), np.int64(np.rint(np.ldexp(vectors, sums.VECTOR_BITS)))


def joint_regression(phi, ridge, weights=None):
    """scikit-learn's regression on all images, standardized, with the same total weight per category.

    Returns a function from features to scores.
    """
    stacked = np.concatenate(phi)
    targets = np.repeat(np.eye(len(phi)), [len(values) for values in phi], axis=0)
    per_category = np.ones(len(phi)) if weights is None else weights
    weights = np.concatenate([np.full(len(v), w / len(v)) for v, w in zip(phi, per_category, strict=True)])
    weights /= weights.sum()
    mean = weights @ stacked
    scale = np.sqrt(weights @ (stacked - mean) ** 2)
    scale = scale + 0.1 * scale.mean()
    model = linear_model.Ridge(ridge, solver="cholesky")
    model.fit(stacked / scale, targets, sample_weight=weights)
    return lambda values: model.predict(values / scale)


def test_solve_equals_joint_regression_with_equal_weight_per_category(rows, made, options, phi):
    computed = [sums_of_images(images, made, options, len(images)) for images in rows]
    gram = reduce(sums.add, [gram for gram, _ in computed])
    vectors = np.stack([sums.decode(vector) for _, vector in computed], axis=1)
    solution = solve(gram, vectors, 0.003)
    predict = joint_regression(phi, 0.003)
    for values in phi:
        scores = values @ np.float64(solution.weights) + solution.intercept
        np.testing.assert_allclose(scores, predict(values), atol=1e-4)
    own_scores = [predict(values)[:, category].mean() for category, values in enumerate(phi)]
    assert solution.own_mean == pytest.approx(np.mean(own_scores), abs=1e-4)
    assert solution.weights.dtype == solution.intercept.dtype == np.float32


@pytest.fixture(scope="module")
def correlated():
    """Features of two categories that depend on few directions, whole numbers: more of them than images."""
    numbers = np.random.default_rng(3)
    signal = np.maximum(numbers.standard_normal((120, 12)) @ numbers.standard_normal((12, 140)), 0)
    signal[60:] += 0.3 * numbers.random(140)
    levels = np.rint(20 * signal + numbers.standard_normal(signal.shape)).clip(0, 254) - features.MAX_LEVEL
    return [levels[:60], levels[60:]]


@pytest.mark.parametrize("ridge", [1e-4, 1e-2, 1.0])
def test_solve_in_float32_is_as_good_as_in_float64(correlated, ridge):
    solution = solve(*sums_of(correlated), ridge)
    predict = joint_regression(correlated, ridge)
    for values in correlated:
        scores = values @ np.float64(solution.weights) + solution.intercept
        np.testing.assert_allclose(scores, predict(values), atol=1e-4)


def test_solve_with_fewer_images_than_features_is_finite():
    few = [np.random.default_rng(c).integers(-127, 128, (2, 40)).astype(np.float64) for c in range(3)]
    solution = solve(*sums_of(few), penalty.RIDGES[0])
    predict = joint_regression(few, penalty.RIDGES[0])
    for values in few:
        scores = values @ np.float64(solution.weights) + solution.intercept
        np.testing.assert_allclose(scores, predict(values), atol=1e-3)


def test_solve_weights_categories_by_their_visits(correlated):
    solution = solve(*sums_of(correlated, (1, 3)), 0.01)
    predict = joint_regression(correlated, 0.01, (1, 3))
    for values in correlated:
        scores = values @ np.float64(solution.weights) + solution.intercept
        np.testing.assert_allclose(scores, predict(values), atol=3e-5)
    own_scores = [predict(values)[:, category].mean() for category, values in enumerate(correlated)]
    assert solution.own_mean == pytest.approx(np.mean(own_scores), abs=3e-5)


def test_solve_of_one_category_scores_1(phi):
    solution = solve(*sums_of(phi[:1]), 1e-3)
    np.testing.assert_allclose(phi[1] @ solution.weights + solution.intercept, 1, atol=1e-5)


@pytest.mark.parametrize("ridge", [1e-3, 0.1])
def test_solve_refines_the_solution_of_its_matrix(correlated, ridge):
    gram, vectors = sums_of(correlated)
    moments, matrix = standardize(gram, vectors)
    expected = np.linalg.solve(matrix + ridge * np.eye(len(matrix)), moments.targets) / moments.scale[:, None]
    np.testing.assert_allclose(solve(gram, vectors, ridge).weights, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-3), (np.float64, 1e-11)])
def test_cholesky_reads_the_upper_triangle_and_solves_in_its_type(dtype, tolerance):
    numbers = np.random.default_rng(0)
    factor = numbers.standard_normal((50, 80))
    matrix, targets = factor @ factor.T / 80, numbers.standard_normal((50, 3))
    with jax.enable_x64(True):
        upper = np.triu(matrix).astype(dtype)
        found = jax.jit(lambda upper: cholesky.solve(cholesky.factorize(upper), targets))(upper)
        np.testing.assert_allclose(found, np.linalg.solve(matrix, targets), rtol=0, atol=tolerance)


def test_scores_are_those_of_the_solution(correlated):
    gram, vectors = sums_of(correlated)
    solution, phi = solve(gram, vectors, 1e-3), np.concatenate(correlated)[::7]
    scores, own_mean = regression.scores(gram, vectors, 1e-3, phi)
    np.testing.assert_allclose(scores, phi @ solution.weights + solution.intercept, atol=1e-4)
    assert own_mean == pytest.approx(solution.own_mean, abs=1e-4)


def test_standardize_equals_standardizing_all_images(correlated):
    moments, matrix = standardize(*sums_of(correlated))
    stacked = np.concatenate(correlated)
    scale = stacked.std(axis=0) + 0.1 * stacked.std(axis=0).mean()
    standardized = (stacked - stacked.mean(axis=0)) / scale
    np.testing.assert_allclose(moments.scale, scale, rtol=1e-5)
    np.testing.assert_allclose(moments.mean, stacked.mean(axis=0), atol=1e-6)
    expected = standardized.T @ standardized / len(stacked)
    np.testing.assert_allclose(matrix, expected, atol=1e-5)
    targets = standardized.T @ np.repeat(np.eye(2), 60, axis=0) / len(stacked)
    np.testing.assert_allclose(moments.targets, targets, atol=1e-6)


def test_standardize_bounds_the_scale_of_constant_features(correlated):
    constant = [values.copy() for values in correlated]
    for values in constant:
        values[:, 5] = 127
    moments, _ = standardize(*sums_of(constant))
    deviations = np.concatenate(constant).std(axis=0)
    assert moments.scale[5] == pytest.approx(0.1 * deviations.mean(), rel=1e-3)
    solution = solve(*sums_of(constant), 1e-3)
    predict = joint_regression(constant, 1e-3)
    for values in constant:
        np.testing.assert_allclose(values @ solution.weights + solution.intercept, predict(values), atol=1e-4)


def test_standardize_takes_a_variance_below_zero_for_zero():
    """Rounding of sums over a part of the images makes some of these variances negative."""
    constant = [np.tile(np.arange(1.0, 100), (20, 1))] * 2
    gram, vectors = sums_of(constant, (19 / 20, 22 / 23))
    mean, total = np.ldexp(vectors[:-1].sum(axis=1), -32), np.ldexp(vectors[-1].sum(), -32)
    with jax.enable_x64(True):
        squares = np.ldexp(sums.gram_elements(gram, *[np.arange(99, dtype=np.int32)] * 2, 99), -sums.GRAM_BITS)
    assert (squares / total - (mean / total) ** 2).min() < 0
    assert (standardize(gram, vectors)[0].scale > 0).all()


def test_solve_of_constant_features_scores_alike():
    solution = solve(*sums_of([np.full((3, 9), -127.0)] * 2), 1e-4)
    np.testing.assert_array_equal(solution.weights, 0)
    np.testing.assert_array_equal(solution.intercept, 0.5)


def test_solve_permutes_with_the_categories(correlated):
    """What categories have in common is equal bit for bit; LAPACK's columns may differ in rounding."""
    phi = np.split(np.concatenate(correlated)[np.random.default_rng(0).permutation(120)], 15)
    order = np.random.default_rng(1).permutation(15)
    _, vectors = sums_of(phi)
    columns = vectors, vectors[:, order]
    (moments, matrix), (permuted_moments, permuted_matrix) = (standardize(sums_of(phi)[0], v) for v in columns)
    np.testing.assert_array_equal(permuted_matrix, matrix)
    for name in ("mean", "scale"):
        np.testing.assert_array_equal(getattr(permuted_moments, name), getattr(moments, name))
    for name in ("targets", "prior"):
        np.testing.assert_array_equal(getattr(permuted_moments, name), getattr(moments, name)[..., order])
    first, second = (solve(sums_of(phi)[0], values, 1e-2) for values in columns)
    for array, permuted in zip(first[:2], second[:2], strict=True):
        np.testing.assert_allclose(permuted, array[..., order], rtol=1e-5, atol=1e-7)


def split(phi):
    """Every fourth feature of images that are not held out, and of every twentieth, which is."""
    is_held_out = [np.arange(len(values)) % 20 == 19 for values in phi]
    fit = [values[~mask, ::4] for values, mask in zip(phi, is_held_out, strict=True)]
    return fit, [values[mask, ::4] for values, mask in zip(phi, is_held_out, strict=True)]


def split_weights(phi, visits):
    """Weights of the categories, by part: visits, times the part of the images."""
    return [[len(part) / len(p) * v for part, p, v in zip(parts, phi, visits, strict=True)] for parts in split(phi)]


def held_out_errors(phi, visits=(1, 1, 1)):
    """Squared error of held-out images for each ridge, with the same weight per image of a category."""
    fit, held_out = split(phi)
    errors = []
    for ridge in penalty.RIDGES:
        predict = joint_regression(fit, ridge / 4, split_weights(phi, visits)[0])
        squares = [
            visits[c] * np.square(predict(values) - np.eye(len(phi))[c]).sum() / len(phi[c])
            for c, values in enumerate(held_out)
        ]
        errors.append(sum(squares))
    return np.array(errors)


def select_from_images(rows, made, options):
    """The ridge selected from sums of images, with every fourth feature as in the recognizer."""
    grams, vectors = {True: [], False: []}, {True: [], False: []}
    for images in rows:
        mask = initial_sums.held_out_mask(len(images))
        for is_held_out in (True, False):
            gram, vector = sums_of_images(images[mask == is_held_out], made, options, len(images))
            grams[is_held_out].append(sums.strided_gram(gram, FEATURES, 4))
            vectors[is_held_out].append(sums.decode(sums.strided_vector(vector, 4)))
    fit, held_out = (reduce(sums.add, grams[part]) for part in (False, True))
    columns = (np.stack(vectors[part], axis=1) for part in (False, True))
    return penalty.select_ridge(sums.add(fit, held_out), held_out, *columns)


def test_select_ridge_is_half_a_decade_below_the_least_held_out_error(rows, made, options, phi):
    errors = held_out_errors(phi)
    least = np.argmin(errors)
    assert least > penalty.RIDGES.index(penalty.FIRST_RIDGE)
    assert select_from_images(rows, made, options) == pytest.approx(penalty.RIDGES[least] / 10**0.5)


def sample_features(num_features, noise, rank):
    """Features of three categories that depend on some directions, whole numbers."""
    numbers = np.random.default_rng(0)
    mix, phi = numbers.standard_normal((rank, num_features)), []
    for center, count in zip(numbers.standard_normal((3, rank)), (80, 60, 40), strict=True):
        directions = (center + noise * numbers.standard_normal((count, rank))) @ mix / np.sqrt(rank)
        errors = 0.3 * numbers.standard_normal((count, num_features))
        phi.append(np.rint(10 * (directions + errors)).clip(-127, 127))
    return phi


@pytest.mark.parametrize(
    ("num_features", "noise", "rank", "least"), [(120, 0.3, 100, 0), (240, 4, 6, 4), (480, 2, 20, 6), (120, 4, 6, 10)]
)
def test_select_ridge_goes_downhill(num_features, noise, rank, least):
    """Also to the first ridge, below which there is none, and to the last."""
    phi = sample_features(num_features, noise, rank)
    assert np.argmin(held_out_errors(phi)) == least
    (fit, held_out), vectors = zip(*map(sums_of, split(phi), split_weights(phi, (1, 1, 1))), strict=True)
    selected = penalty.select_ridge(sums.add(fit, held_out), held_out, *vectors)
    assert selected == penalty.RIDGES[max(least - 1, 0)]


def test_held_out_error_is_that_of_images_but_for_a_constant():
    phi, visits = sample_features(120, 2, 20), (1, 2, 5)
    (fit, held_out), vectors = zip(*map(sums_of, split(phi), split_weights(phi, visits)), strict=True)
    with jax.enable_x64(True):
        problem = penalty._held_out_problem(sums.add(fit, held_out), held_out, *vectors, rounding=0.0)
        errors = np.array([float(penalty._held_out_error(problem, ridge)) for ridge in penalty.RIDGES])
    expected = held_out_errors(phi, visits)
    np.testing.assert_allclose(errors - errors[0], expected - expected[0], atol=1e-5)
    assert np.ptp(expected) > 0.01


def test_select_ridge_without_held_out_images_returns_the_first(phi):
    gram, vectors = sums_of(phi)
    nothing = sums.zeros_gram(FEATURES)
    assert penalty.select_ridge(gram, nothing, vectors, np.zeros_like(vectors)) == penalty.FIRST_RIDGE


def test_solve_ignores_columns_of_zeros(correlated):
    gram, vectors = sums_of(correlated)
    solution = solve(gram, vectors, 0.01)
    padded = solve(gram, np.pad(vectors, ((0, 0), (0, 2))), 0.01)
    for array, expected in zip(padded[:2], solution[:2], strict=True):
        np.testing.assert_allclose(array[..., :2], expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(array[..., 2:], 0)
    assert padded.own_mean == pytest.approx(float(solution.own_mean), rel=1e-6)


def test_held_out_mask_is_true_for_every_twentieth_image():
    assert np.flatnonzero(initial_sums.held_out_mask(60)).tolist() == [19, 39, 59]
    counts = [np.count_nonzero(initial_sums.held_out_mask(count)) for count in (3, 4, 7, 8, 19, 20, 39, 40, 59, 60)]
    assert counts == [0, 1, 1, 2, 2, 2, 2, 2, 2, 3]


@pytest.mark.parametrize("gram_sharing", ["mixed", "own"])
def test_empty_sums_have_the_shapes_of_computed_ones(rows, made, options, gram_sharing):
    settings = dataclasses.replace(SETTINGS, gram_sharing=gram_sharing)
    gram, vector = sums_of_images(rows[0], made, options, len(rows[0]))
    stride = penalty.SEARCH_STRIDE
    gram = {"gram": {"all": gram, "held_out": sums.strided_gram(gram, FEATURES, stride)}}
    vector = {"all": vector, "held_out": sums.strided_vector(vector, stride)}
    common = {"dictionary": made[0], "ridge": np.float32(0)}
    grid = temperature_scaling.loss_grid(np.zeros((1, 2)), np.zeros((1, 2)), 0)
    category = {"sum": vector, "calibration": grid, "thresholds": rejection.fit_thresholds(np.arange(9.0))}
    if gram_sharing == "own":
        category |= gram
    else:
        common |= gram

    def described(tree):
        return jax.tree.map(lambda leaf: (np.shape(leaf), leaf.dtype), tree)

    assert described(initial_sums.empty_common_sums(settings, SHAPE)) == described(common)
    assert described(initial_sums.empty_category_sums(settings, SHAPE)) == described(category)
