"""Fréchet distance against closed forms, nearest distances against scipy."""

import numpy as np
import pytest
import scipy.linalg
from scipy.spatial.distance import cdist

from lifelong_cvae.evaluation import generation


def test_frechet_distance_of_independent_gaussians_has_a_closed_form():
    numbers = np.random.default_rng(0)
    first = numbers.normal(size=(200_000, 3))
    second = np.asarray([1.0, 0.0, -2.0]) + np.asarray([1.0, 2.0, 0.5]) * numbers.normal(size=(200_000, 3))
    # Per axis: (m1 - m2)^2 + (s1 - s2)^2.
    expected = (1 + 0 + 4) + (0 + 1 + 0.25)
    assert generation.frechet_distance(first, second) == pytest.approx(expected, rel=0.02)


def test_frechet_distance_agrees_with_the_matrix_square_root():
    numbers = np.random.default_rng(1)
    first = (numbers.normal(size=(50, 6)) @ numbers.normal(size=(6, 6))).astype(np.float32)
    second = numbers.normal(size=(80, 6)) @ numbers.normal(size=(6, 6)) + 1
    covariances = [np.cov(x.astype(np.float64), rowvar=False) for x in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(first.mean(0) - second.mean(0)).sum() + np.trace(sum(covariances) - 2 * root)
    assert generation.frechet_distance(first, second) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_accepts_fewer_points_than_dimensions():
    points = np.random.default_rng(2).normal(size=(4, 9))
    assert generation.frechet_distance(points, points) == pytest.approx(0, abs=1e-6)
    assert generation.frechet_distance(points, points + 1) == pytest.approx(9, abs=1e-6)


def test_nearest_distances_agree_with_scipy(digits):
    training, images = digits["3"][:300], digits["5"][:120]
    rows = [x.reshape(len(x), -1) / 255 for x in (images, training)]
    distances = generation.nearest_distances(images, training)
    np.testing.assert_allclose(distances, cdist(*rows).min(axis=1), rtol=1e-3)
    distances_of_floats = generation.nearest_distances(images / np.float32(255), training)
    np.testing.assert_allclose(distances_of_floats, distances, rtol=1e-4)


def test_nearest_neighbor_metrics_detect_copies(digits, mnist5k):
    train = {name: digits[name] for name in "01"}
    held_out = {name: mnist5k.read("test", name) for name in "01"}
    blurred = {n: (0.5 * x + 0.5 * x.mean(axis=0)) / 255 for n, x in held_out.items()}
    copies = {n: x[:50] for n, x in train.items()}
    assert generation.nearest_neighbor_metrics(copies, train, held_out, blurred)["ratio"] < 0.01
    same = generation.nearest_neighbor_metrics(held_out, train, held_out, blurred)
    assert same["ratio"] == 1
    assert same["ratio_reconstructed"] == same["held_out"] / same["reconstructed"]
    noise = {n: np.random.default_rng(0).random((50, 28, 28, 1), np.float32) for n in "01"}
    assert generation.nearest_neighbor_metrics(noise, train, held_out, blurred)["ratio"] > 1.5


def test_nearest_distances_of_vectors_are_euclidean():
    numbers = np.random.default_rng(0)
    vectors, training = numbers.standard_normal((7, 3)), 5 * numbers.standard_normal((9, 3))
    expected = np.linalg.norm(vectors[:, None] - training[None], axis=-1).min(axis=1)
    np.testing.assert_allclose(generation.nearest_distances(vectors, training), expected, rtol=1e-4)
