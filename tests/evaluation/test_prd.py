"""Precision and recall of distributions against the definition, and on clusters with a known result."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong_cvae.errors import InputError
from lifelong_cvae.evaluation import prd
from tests.conftest import one_line

CENTERS = np.asarray([[0.0, 0], [100, 0], [0, 100]])


def histograms(size=4):
    """Shares of clusters."""
    counts = st.lists(st.integers(0, 9), min_size=size, max_size=size).filter(any)
    return counts.map(lambda values: np.asarray(values) / sum(values))


def distant_clusters(*centers, each=100, seed=0):
    """`each` points around each of the centers with these indices."""
    return np.concatenate(
        [CENTERS[c] + np.random.default_rng([seed, index]).normal(size=(each, 2)) for index, c in enumerate(centers)]
    )


def f_score(precision, recall, weight):
    return (1 + weight**2) * precision * recall / (weight**2 * precision + recall)


def values_at_slope_one(real, imagined):
    """Precision and recall at 45 degrees."""
    precision, recall = prd.curve(np.asarray(real), np.asarray(imagined))
    return precision[prd.ANGLES // 2], recall[prd.ANGLES // 2]


def half_size_pixels(images):
    """Every second pixel, as rows in [0, 1]."""
    return images[:, ::2, ::2].reshape(len(images), -1) / 255


@pytest.mark.parametrize(
    ("real", "imagined", "expected"),
    [
        ([0.5, 0.5], [0.5, 0.5], 1),
        ([1.0, 0.0], [0.0, 1.0], 0),
        ([0.5, 0.5], [1.0, 0.0], 0.5),
        # min(0.5, 0.25) + min(0.3, 0.25) + min(0.2, 0.5)
        ([0.5, 0.3, 0.2], [0.25, 0.25, 0.5], 0.7),
    ],
)
def test_curve_at_slope_one_by_hand(real, imagined, expected):
    assert values_at_slope_one(real, imagined) == pytest.approx((expected, expected))


def test_curve_agrees_with_the_definition_at_each_angle():
    real, imagined = [0.5, 0.3, 0.2], [0.25, 0.25, 0.5]
    precision, recall = prd.curve(np.asarray(real), np.asarray(imagined))
    assert precision.shape == recall.shape == (1001,)
    for index in (1, 250, 500, 750, 999):
        slope = np.tan(index / 1000 * np.pi / 2)
        alpha = sum(min(slope * p, q) for p, q in zip(real, imagined, strict=True))
        beta = sum(min(p, q / slope) for p, q in zip(real, imagined, strict=True))
        assert precision[index] == pytest.approx(alpha, rel=1e-3)
        assert recall[index] == pytest.approx(beta, rel=1e-3)


def test_curve_ends_at_the_shares_of_common_clusters():
    # 0.6 of the imagined images are in clusters with real ones, 0.75 of the real in clusters with imagined ones.
    precision, recall = prd.curve(np.asarray([0.25, 0.25, 0.5, 0.0]), np.asarray([0.0, 0.5, 0.1, 0.4]))
    assert precision[-1] == pytest.approx(0.6)
    assert recall[0] == pytest.approx(0.75)


@given(histograms(), histograms())
def test_curve_of_swapped_sets_swaps_precision_and_recall(real, imagined):
    (precision, recall), swapped = prd.curve(real, imagined), prd.curve(imagined, real)
    np.testing.assert_allclose(precision, swapped[1][::-1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(recall, swapped[0][::-1], rtol=1e-9, atol=1e-12)


@given(histograms(), histograms())
def test_curve_is_monotonic_and_at_most_one(real, imagined):
    precision, recall = prd.curve(real, imagined)
    assert (np.diff(precision) >= -1e-12).all()
    assert (np.diff(recall) <= 1e-12).all()
    assert max(precision.max(), recall.max()) <= 1 + 1e-12


@given(histograms(), histograms())
def test_curve_at_slope_one_is_one_minus_total_variation(real, imagined):
    expected = 1 - 0.5 * np.abs(real - imagined).sum()
    assert values_at_slope_one(real, imagined) == pytest.approx((expected, expected))


def test_precision_and_recall_separate_invented_from_dropped_clusters():
    # k-means may split the clusters, but never joins two of them with 20 available. Within a cluster the shares of
    # real and imagined images differ by chance, so the scores are below those of a single k-means cluster.
    two_clusters, one_cluster = distant_clusters(0, 1), distant_clusters(0, 0, seed=1)
    dropped = prd.precision_and_recall(one_cluster, two_clusters)
    # On the curve of an unsplit cluster recall is 0.5 wherever precision is 1, so F_8 is at most this.
    highest = f_score(1, 0.5, 8)
    assert highest - 0.03 < dropped["recall"] <= highest
    assert 0.85 < dropped["precision"] <= f_score(1, 0.5, 1 / 8)
    invented = prd.precision_and_recall(two_clusters, one_cluster)
    assert highest - 0.03 < invented["precision"] <= highest
    assert 0.85 < invented["recall"] <= f_score(1, 0.5, 1 / 8)


def test_precision_and_recall_of_coinciding_points_agree_with_the_curve():
    # Each cluster is one point, so the shares are 1/2, 1/4, 1/4 and 1/4, 3/4, 0.
    real, imagined = np.repeat(CENTERS, [40, 20, 20], axis=0), np.repeat(CENTERS, [20, 60, 0], axis=0)
    slopes = np.tan(np.linspace(1e-4, np.pi / 2 - 1e-4, 20_001))
    precision = np.minimum(slopes / 2, 1 / 4) + np.minimum(slopes / 4, 3 / 4)
    scores = prd.precision_and_recall(imagined, real)
    expected = {
        "precision": f_score(precision, precision / slopes, 1 / 8).max(),
        "recall": f_score(precision, precision / slopes, 8).max(),
    }
    assert scores == pytest.approx(expected, rel=1e-3)
    assert scores["recall"] < 0.76 < 0.9 < scores["precision"]


def test_precision_and_recall_of_identical_sets_are_one(digits):
    rows = half_size_pixels(digits["3"][:200])
    assert prd.precision_and_recall(rows, rows.copy()) == pytest.approx({"precision": 1, "recall": 1})


def test_precision_and_recall_of_distant_sets_are_zero():
    scores = prd.precision_and_recall(distant_clusters(1, 2), distant_clusters(0, 0, seed=1))
    assert scores == pytest.approx({"precision": 0, "recall": 0}, abs=1e-9)


def test_precision_and_recall_separate_noise_from_digits(digits):
    real = half_size_pixels(digits["3"][:200])
    noise = prd.precision_and_recall(np.random.default_rng(0).random((200, 14 * 14)), real)
    assert max(noise.values()) < 0.01
    assert min(prd.precision_and_recall(half_size_pixels(digits["3"][200:]), real).values()) > 0.85


def test_precision_and_recall_depend_on_the_seed():
    sets = distant_clusters(0, 1, each=60), distant_clusters(0, 0, each=60, seed=1)
    first = prd.precision_and_recall(*sets, seed=3)
    assert prd.precision_and_recall(*sets, seed=3) == first
    assert prd.precision_and_recall(*sets, seed=4) != first


def test_precision_and_recall_accept_sorted_sets_of_different_sizes():
    real, imagined = distant_clusters(0, 2, each=200), distant_clusters(0, 2, each=60, seed=1)
    assert min(prd.precision_and_recall(imagined, real).values()) > 0.85
    assert min(prd.precision_and_recall(real, imagined).values()) > 0.85


def test_precision_and_recall_reject_an_empty_set():
    with pytest.raises(InputError) as error:
        prd.precision_and_recall(np.zeros((0, 2)), np.zeros((3, 2)))
    one_line(error, "expected at least one imagined and one real image, got 0 and 3")


def test_precision_and_recall_accept_fewer_images_than_clusters():
    points = distant_clusters(0, 1, 2, each=2)
    assert prd.precision_and_recall(points, points.copy()) == pytest.approx({"precision": 1, "recall": 1})
