"""Precision, recall, density and coverage against loops over their definitions, and known values."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong_cvae.errors import InputError
from lifelong_cvae.evaluation import prdc
from tests.conftest import one_line

# Points on a small grid have equal distances and duplicates, without rounding errors.
POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=9)


def radius(members, i, k):
    """Distance of member i to its k-th nearest neighbor in its set, or to the farthest if there are fewer."""
    others = sorted(math.dist(members[i], other) for j, other in enumerate(members) if j != i)
    return others[min(k, len(others)) - 1]


def membership(points, centers, k):
    """Whether each point lies in each center's ball: one row per point."""
    radii = [radius(centers, i, k) for i in range(len(centers))]
    return [[math.dist(p, c) <= r for c, r in zip(centers, radii, strict=True)] for p in points]


def prdc_by_loops(imagined, real):
    """The four metrics from their definitions."""
    in_real, in_imagined = membership(imagined, real, 3), membership(real, imagined, 3)
    in_wider_real = membership(imagined, real, 5)
    return {
        "precision": sum(any(row) for row in in_real) / len(imagined),
        "recall": sum(any(row) for row in in_imagined) / len(real),
        "density": sum(map(sum, in_wider_real)) / (min(5, len(real) - 1) * len(imagined)),
        "coverage": sum(any(column) for column in zip(*in_wider_real, strict=True)) / len(real),
    }


def pixels(images):
    """Rows of pixels in [0, 1]."""
    return images.reshape(len(images), -1) / 255


@pytest.mark.parametrize("dimensions", [1, 2, 7])
@pytest.mark.parametrize(("imagined", "real"), [(40, 40), (25, 60), (60, 25), (4, 9), (9, 4), (2, 2)])
def test_prdc_agrees_with_loops(imagined, real, dimensions):
    numbers = np.random.default_rng(10 * imagined + real)
    first = 0.3 + numbers.normal(size=(imagined, dimensions))
    second = numbers.normal(size=(real, dimensions))
    assert prdc.prdc(first, second) == pytest.approx(prdc_by_loops(first, second), rel=1e-12)


@settings(max_examples=40)
@given(POINTS, POINTS)
def test_prdc_counts_points_on_the_edge_as_inside(imagined, real):
    values = prdc.prdc(np.asarray(imagined), np.asarray(real))
    assert values == pytest.approx(prdc_by_loops(imagined, real), rel=1e-12)


def test_prdc_by_hand():
    # The ball of each of three real points reaches to the farther neighbor: radii 3, 2, 3. Of the imagined points,
    # 5 lies in the ball of 3 only, 7 in none, -2 in the ball of 0 only.
    real = np.asarray([[0.0], [1], [3]])
    values = prdc.prdc(np.asarray([[5.0], [7], [-2]]), real)
    # Balls of imagined points have radii 7, 9 and 9, and hold all real points. Density: 2 memberships, divided by 2
    # neighbors and 3 imagined points.
    assert values == pytest.approx({"precision": 2 / 3, "recall": 1, "density": 2 / 6, "coverage": 2 / 3})


def test_prdc_of_one_distribution_agrees_with_theory():
    numbers, n, k = np.random.default_rng(0), 1000, 5
    runs = [prdc.prdc(*numbers.normal(size=(2, n, 2))) for _ in range(5)]
    means = {key: np.mean([run[key] for run in runs]) for key in runs[0]}
    # Naeem et al. 2020, section 3.3: a ball is empty if the k nearest of the 2n - 1 other points are all real.
    expected = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    assert expected == pytest.approx(1 - 2**-k, abs=1e-3)
    assert means["coverage"] == pytest.approx(expected, abs=0.006)
    assert means["density"] == pytest.approx(1, abs=0.04)
    assert min(means["precision"], means["recall"]) > 0.96


def test_prdc_of_identical_sets(digits):
    rows = pixels(digits["3"][:150])
    values = prdc.prdc(rows, rows.copy())
    assert (values["precision"], values["recall"], values["coverage"]) == (1, 1, 1)
    # A ball holds its center and five neighbors, the fifth on its edge; divided by 5.
    assert values["density"] == pytest.approx(6 / 5, abs=0.01)


def test_prdc_of_noise_is_zero(digits):
    noise = np.random.default_rng(0).random((100, 28 * 28))
    values = prdc.prdc(noise, pixels(digits["3"][:150]))
    assert (values["precision"], values["density"], values["coverage"]) == (0, 0, 0)


def test_prdc_separates_the_same_digit_from_another(digits):
    real = pixels(digits["3"][:200])
    same, other = (prdc.prdc(pixels(x), real) for x in (digits["3"][200:], digits["0"][:200]))
    assert same["coverage"] > 0.8
    assert other["coverage"] < 0.1
    assert other["precision"] < 0.5 < same["precision"]


def test_prdc_lowers_recall_and_coverage_for_a_dropped_mode():
    numbers = np.random.default_rng(1)
    real = numbers.normal(size=(400, 2)) + np.repeat([[0.0], [100]], 200, axis=0)
    values = prdc.prdc(numbers.normal(size=(400, 2)), real)
    assert values["precision"] > 0.9
    assert 0.45 < values["recall"] <= 0.5
    assert 0.45 < values["coverage"] <= 0.5


def test_prdc_of_swapped_sets_swaps_precision_and_recall():
    numbers = np.random.default_rng(2)
    first, second = numbers.normal(size=(70, 3)), 2 * numbers.normal(size=(50, 3))
    values, swapped = prdc.prdc(first, second), prdc.prdc(second, first)
    assert (values["precision"], values["recall"]) == (swapped["recall"], swapped["precision"])
    assert values["precision"] != values["recall"]


def test_prdc_density_is_robust_to_an_outlier_but_precision_is_not():
    # The failure of precision that density corrects (Naeem et al. 2020, figure 2): one large ball holds all points.
    numbers = np.random.default_rng(3)
    real = np.concatenate([numbers.normal(size=(100, 2)), [[60.0, 0]]])
    values = prdc.prdc(numbers.normal(size=(100, 2)) + np.asarray([30, 0]), real)
    assert values["precision"] == 1
    # Each imagined point lies in one of 101 balls; divided by 5.
    assert values["density"] == pytest.approx(1 / 5)
    assert values["coverage"] == pytest.approx(1 / 101)


@pytest.mark.parametrize("block", [1, 7, 30])
def test_prdc_does_not_depend_on_the_block_size(block, monkeypatch):
    numbers = np.random.default_rng(4)
    sets = numbers.normal(size=(30, 3)), 1 + numbers.normal(size=(20, 3))
    expected = prdc.prdc(*sets)
    assert 0 < expected["precision"] < 1
    monkeypatch.setattr(prdc, "BLOCK", block)
    assert prdc.prdc(*sets) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("imagined", "real", "message"),
    [(1, 9, "imagined images: expected at least two, got 1"), (9, 0, "real images: expected at least two, got 0")],
)
def test_prdc_rejects_a_set_without_neighbors(imagined, real, message):
    with pytest.raises(InputError) as error:
        prdc.prdc(np.zeros((imagined, 2)), np.zeros((real, 2)))
    one_line(error, message)


def test_prdc_of_duplicates_counts_copies_on_the_edge():
    copies = np.repeat(np.random.default_rng(1).normal(size=(1, 8)), 7, axis=0)
    real = np.concatenate([copies, copies + 1, copies + 3.3])
    assert prdc.prdc(real, real.copy()) == {"precision": 1, "recall": 1, "density": 7 / 5, "coverage": 1}
