"""Precision and recall of distributions against the definition, and of clusters whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong_cvae.errors import InputError
from lifelong_cvae.evaluation import prd
from tests.conftest import one_line

CENTRES = np.asarray([[0.0, 0], [100, 0], [0, 100]])


def histograms(size=4):
    counts = st.lists(st.integers(0, 9), min_size=size, max_size=size).filter(any)
    return counts.map(lambda values: np.asarray(values) / sum(values))


def around(*centers, each=100, seed=0):
    """Clusters of points, far from each other."""
    return np.concatenate(
        [CENTRES[c] + np.random.default_rng([seed, index]).normal(size=(each, 2)) for index, c in enumerate(centers)]
    )


def scores(precision, recall, weight):
    return (1 + weight**2) * precision * recall / (weight**2 * precision + recall)


def middle(real, imagined):
    """The point of the curve at 45 degrees, slope 1."""
    precision, recall = prd.curve(np.asarray(real), np.asarray(imagined))
    return precision[prd.ANGLES // 2], recall[prd.ANGLES // 2]


def pixels(images):
    """Every other one."""
    return images[:, ::2, ::2].reshape(len(images), -1) / 255


class TestCurve:
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
    def test_at_slope_one_by_hand(self, real, imagined, expected):
        assert middle(real, imagined) == pytest.approx((expected, expected))

    def test_at_each_angle_by_the_definition(self):
        real, imagined = [0.5, 0.3, 0.2], [0.25, 0.25, 0.5]
        precision, recall = prd.curve(np.asarray(real), np.asarray(imagined))
        assert precision.shape == recall.shape == (1001,)
        for index in (1, 250, 500, 750, 999):
            slope = np.tan(index / 1000 * np.pi / 2)
            alpha = sum(min(slope * p, q) for p, q in zip(real, imagined, strict=True))
            beta = sum(min(p, q / slope) for p, q in zip(real, imagined, strict=True))
            assert precision[index] == pytest.approx(alpha, rel=1e-3)
            assert recall[index] == pytest.approx(beta, rel=1e-3)

    def test_its_ends_are_the_shares_of_the_common_clusters(self):
        # Of the imagined, 0.6 lie where there are real; of the real, 0.75 where there are imagined.
        precision, recall = prd.curve(np.asarray([0.25, 0.25, 0.5, 0.0]), np.asarray([0.0, 0.5, 0.1, 0.4]))
        assert precision[-1] == pytest.approx(0.6)
        assert recall[0] == pytest.approx(0.75)

    @given(histograms(), histograms())
    def test_swapping_the_two_swaps_precision_and_recall(self, real, imagined):
        there, back = prd.curve(real, imagined), prd.curve(imagined, real)
        np.testing.assert_allclose(there[0], back[1][::-1], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(there[1], back[0][::-1], rtol=1e-9, atol=1e-12)

    @given(histograms(), histograms())
    def test_precision_is_bought_with_recall(self, real, imagined):
        precision, recall = prd.curve(real, imagined)
        assert (np.diff(precision) >= -1e-12).all()
        assert (np.diff(recall) <= 1e-12).all()
        assert max(precision.max(), recall.max()) <= 1 + 1e-12

    @given(histograms(), histograms())
    def test_at_slope_one_it_is_what_total_variation_leaves(self, real, imagined):
        expected = 1 - 0.5 * np.abs(real - imagined).sum()
        assert middle(real, imagined) == pytest.approx((expected, expected))


class TestPrecisionAndRecall:
    def test_an_invented_or_dropped_cluster_costs_one_and_not_the_other(self):
        # k-means may split the clusters, but never joins two of them with 20 to give. Within A the shares
        # of real and imagined differ by chance, so the figures are below those of one cluster for A.
        both, one = around(0, 1), around(0, 0, seed=1)
        dropped = prd.precision_and_recall(one, both)
        # On the curve of one cluster for A recall is 0.5 wherever precision is 1, so F_8 is at most this.
        highest = scores(1, 0.5, 8)
        assert highest - 0.03 < dropped["recall"] <= highest
        assert 0.85 < dropped["precision"] <= scores(1, 0.5, 1 / 8)
        invented = prd.precision_and_recall(both, one)
        assert highest - 0.03 < invented["precision"] <= highest
        assert 0.85 < invented["recall"] <= scores(1, 0.5, 1 / 8)

    def test_points_that_coincide_give_the_figures_of_the_curve(self):
        # Each cluster is one point, so the shares are 1/2, 1/4, 1/4 and 1/4, 3/4, 0.
        real, imagined = np.repeat(CENTRES, [40, 20, 20], axis=0), np.repeat(CENTRES, [20, 60, 0], axis=0)
        slopes = np.tan(np.linspace(1e-4, np.pi / 2 - 1e-4, 20_001))
        precision = np.minimum(slopes / 2, 1 / 4) + np.minimum(slopes / 4, 3 / 4)
        found = prd.precision_and_recall(imagined, real)
        expected = {
            "precision": scores(precision, precision / slopes, 1 / 8).max(),
            "recall": scores(precision, precision / slopes, 8).max(),
        }
        assert found == pytest.approx(expected, rel=1e-3)
        assert found["recall"] < 0.76 < 0.9 < found["precision"]

    def test_a_set_and_itself_agree(self, digits):
        rows = pixels(digits["3"][:200])
        assert prd.precision_and_recall(rows, rows.copy()) == pytest.approx({"precision": 1, "recall": 1})

    def test_sets_apart_share_nothing(self):
        found = prd.precision_and_recall(around(1, 2), around(0, 0, seed=1))
        assert found == pytest.approx({"precision": 0, "recall": 0}, abs=1e-9)

    def test_noise_is_not_like_digits_but_more_digits_of_their_kind_are(self, digits):
        real = pixels(digits["3"][:200])
        noise = prd.precision_and_recall(np.random.default_rng(0).random((200, 14 * 14)), real)
        assert max(noise.values()) < 0.01
        assert min(prd.precision_and_recall(pixels(digits["3"][200:]), real).values()) > 0.85

    def test_the_seed_decides(self):
        sets = around(0, 1, each=60), around(0, 0, each=60, seed=1)
        first = prd.precision_and_recall(*sets, seed=3)
        assert prd.precision_and_recall(*sets, seed=3) == first
        assert prd.precision_and_recall(*sets, seed=4) != first

    def test_sorted_sets_of_different_sizes_are_compared_fairly(self):
        real, imagined = around(0, 2, each=200), around(0, 2, each=60, seed=1)
        assert min(prd.precision_and_recall(imagined, real).values()) > 0.85
        assert min(prd.precision_and_recall(real, imagined).values()) > 0.85

    def test_an_empty_set_is_refused_in_one_line(self):
        with pytest.raises(InputError) as error:
            prd.precision_and_recall(np.zeros((0, 2)), np.zeros((3, 2)))
        one_line(error, "at least one")

    def test_fewer_members_than_clusters_will_do(self):
        few = around(0, 1, 2, each=2)
        assert prd.precision_and_recall(few, few.copy()) == pytest.approx({"precision": 1, "recall": 1})
