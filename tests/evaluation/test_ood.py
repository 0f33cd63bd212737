"""The area under the ROC curve against closed forms and scipy; leave-one-out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lifelong_cvae.evaluation import ood

NAMES = ("a", "b", "c")
# log p(x|c) with columns a, b and c.
EVIDENCE = {
    "a": np.asarray([[-1.0, -5, -3], [-2, -1, -9]]),
    "b": np.asarray([[-7.0, -1, -4]]),
    "c": np.asarray([[-6.0, -4, 0], [-2, -8, -1]]),
}


def scores(low, high):
    return st.lists(st.integers(low, high), min_size=1, max_size=12)


@pytest.mark.parametrize("shift", [-0.5, 0.0, 1.0, 2.5])
def test_auroc_of_shifted_gaussians_has_a_closed_form(shift):
    numbers = np.random.default_rng(0)
    known, unknown = shift + numbers.normal(size=100_000), numbers.normal(size=60_000)
    # P(known > unknown): the difference is Gaussian with mean `shift` and variance 2.
    assert ood.auroc(known, unknown) == pytest.approx(stats.norm.cdf(shift / np.sqrt(2)), abs=0.005)


@pytest.mark.parametrize(
    ("known", "unknown", "expected"),
    [
        ([3.0, 2], [1.0, 0], 1),
        ([0.0], [1.0, 2], 0),
        ([1.0, 1], [1.0], 0.5),
        # 2 > 1, 2 = 2 and 1 = 1, 1 < 2: (1 + 0.5 + 0.5 + 0) / 4
        ([2.0, 1], [1.0, 2], 0.5),
        # 5 = 5 counts one half, 5 > 1 one, 0 none: 1.5 / 4
        ([5.0, 0], [5.0, 1], 0.375),
    ],
)
def test_auroc_counts_pairs_and_half_of_ties(known, unknown, expected):
    assert ood.auroc(np.asarray(known), np.asarray(unknown)) == pytest.approx(expected)


@settings(max_examples=50)
@given(scores(-3, 3), scores(-3, 3))
def test_auroc_is_the_normalized_mann_whitney_statistic(known, unknown):
    expected = stats.mannwhitneyu(known, unknown, method="asymptotic").statistic / (len(known) * len(unknown))
    assert ood.auroc(np.asarray(known), np.asarray(unknown)) == pytest.approx(expected)


def test_auroc_compares_in_the_precision_of_the_scores():
    known, unknown = np.asarray([1e9 + 1]), np.asarray([1e9])
    assert ood.auroc(known, unknown) == 1
    assert ood.auroc(known.astype(np.float32), unknown.astype(np.float32)) == 0.5


def test_leave_one_out_auroc_by_hand():
    # Without a: its images score -3 and -1; known b -1, known c 0, -1.
    #   b: 1 + 1/2, c: 2 and 1 + 1/2, of 6 pairs: 5 / 6.
    # Without b: its image scores -4; known a -1, -2 and known c 0, -1 are all above: 1.
    # Without c: its images score -4 and -2; known a -1, -1 and known b -1 are all above: 1.
    assert ood.leave_one_out_auroc(EVIDENCE, NAMES) == pytest.approx((5 / 6 + 1 + 1) / 3)


def test_leave_one_out_auroc_reads_columns_in_the_order_of_names():
    shuffled = {name: EVIDENCE[name][:, [2, 0, 1]] for name in "bca"}
    assert ood.leave_one_out_auroc(shuffled, ("c", "a", "b")) == pytest.approx(ood.leave_one_out_auroc(EVIDENCE, NAMES))


def test_leave_one_out_auroc_agrees_with_a_loop_over_pairs():
    numbers = np.random.default_rng(1)
    names = ("x", "y", "z", "w")
    evidence = {name: numbers.normal(size=(3 + i, 4)) + 2 * np.eye(4)[i] for i, name in enumerate(names)}
    areas = []
    for index, name in enumerate(names):
        columns = [i for i in range(4) if i != index]
        wins = [
            float(max(row[columns]) > max(other[columns]))
            for category in names
            if category != name
            for row in evidence[category]
            for other in evidence[name]
        ]
        areas.append(np.mean(wins))
    assert 0.6 < np.mean(areas) < 1
    assert ood.leave_one_out_auroc(evidence, names) == pytest.approx(np.mean(areas))


def test_leave_one_out_auroc_is_one_if_only_the_own_category_explains_an_image():
    # Images of the left-out category score -9, all others 0.
    evidence = {name: np.full((4, 3), -9.0) + 9 * np.eye(3)[i] for i, name in enumerate(NAMES)}
    assert ood.leave_one_out_auroc(evidence, NAMES) == 1


def test_leave_one_out_auroc_leaves_out_the_column_of_the_unknown_category():
    # b explains all of its images best; a explains them better than its own, so unknown b looks known.
    evidence = {"a": np.asarray([[-5.0, -6]] * 3), "b": np.asarray([[-4.0, 10]] * 2)}
    # Without a: its images score -6, those of b 10: 1. Without b: its images score -4, those of a -5: 0.
    assert ood.leave_one_out_auroc(evidence, ("a", "b")) == 0.5


def test_leave_one_out_auroc_of_one_category_is_none():
    assert ood.leave_one_out_auroc({"a": np.zeros((3, 1))}, ("a",)) is None
