"""Precision, recall, density and coverage against their definitions, spelt out, and known values."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong_cvae.errors import InputError
from lifelong_cvae.evaluation import prdc
from tests.conftest import one_line

# On a small grid distances tie, points coincide and rounding plays no part.
POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=9)


def radius(members, i, k):
    """From member i to its k-th nearest neighbor in its set, or to the farthest where there are fewer."""
    others = sorted(math.dist(members[i], other) for j, other in enumerate(members) if j != i)
    return others[min(k, len(others)) - 1]


def in_balls(members, centers, k):
    """Which of the members lie in which ball of the centers: rows of members."""
    radii = [radius(centers, i, k) for i in range(len(centers))]
    return [[math.dist(m, c) <= r for c, r in zip(centers, radii, strict=True)] for m in members]


def spelt_out(imagined, real):
    precise, recalled = in_balls(imagined, real, 3), in_balls(real, imagined, 3)
    held = in_balls(imagined, real, 5)
    return {
        "precision": sum(any(row) for row in precise) / len(imagined),
        "recall": sum(any(row) for row in recalled) / len(real),
        "density": sum(map(sum, held)) / (min(5, len(real) - 1) * len(imagined)),
        "coverage": sum(any(column) for column in zip(*held, strict=True)) / len(real),
    }


def pixels(images):
    return images.reshape(len(images), -1) / 255


@pytest.mark.parametrize("dimensions", [1, 2, 7])
@pytest.mark.parametrize(("imagined", "real"), [(40, 40), (25, 60), (60, 25), (4, 9), (9, 4), (2, 2)])
def test_all_four_agree_with_their_definitions(imagined, real, dimensions):
    noise = np.random.default_rng(10 * imagined + real)
    first = 0.3 + noise.normal(size=(imagined, dimensions))
    second = noise.normal(size=(real, dimensions))
    assert prdc.prdc(first, second) == pytest.approx(spelt_out(first, second), rel=1e-12)


@settings(max_examples=40)
@given(POINTS, POINTS)
def test_a_point_on_the_edge_of_a_ball_is_inside_also_where_points_coincide(imagined, real):
    found = prdc.prdc(np.asarray(imagined), np.asarray(real))
    assert found == pytest.approx(spelt_out(imagined, real), rel=1e-12)


def test_by_hand():
    # Of three real ones each ball reaches to the farther other: radii 3, 2, 3. Of the imagined, 5 lies in the
    # ball of 3 alone, 7 in none, -2 in that of 0 alone.
    real = np.asarray([[0.0], [1], [3]])
    found = prdc.prdc(np.asarray([[5.0], [7], [-2]]), real)
    # The imagined reach 7, 9 and 9, to all real ones. Density: 2 hits over 2 neighbors and 3 imagined.
    assert found == pytest.approx({"precision": 2 / 3, "recall": 1, "density": 2 / 6, "coverage": 2 / 3})


def test_sets_of_one_distribution_are_covered_as_often_as_theory_says():
    noise, n, k = np.random.default_rng(0), 1000, 5
    runs = [prdc.prdc(*noise.normal(size=(2, n, 2))) for _ in range(5)]
    found = {key: np.mean([run[key] for run in runs]) for key in runs[0]}
    # Naeem et al. 2020, section 3.3: a ball is missed if a real point's k nearest of the 2n - 1 others are
    # all real.
    expected = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    assert expected == pytest.approx(1 - 2**-k, abs=1e-3)
    assert found["coverage"] == pytest.approx(expected, abs=0.006)
    assert found["density"] == pytest.approx(1, abs=0.04)
    assert min(found["precision"], found["recall"]) > 0.96


def test_real_images_lie_in_their_own_manifold(digits):
    rows = pixels(digits["3"][:150])
    found = prdc.prdc(rows, rows.copy())
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)
    # A ball holds its center and five neighbors, the fifth on its edge, over 5.
    assert found["density"] == pytest.approx(6 / 5, abs=0.01)


def test_noise_lies_outside_the_manifold_of_real_images(digits):
    noise = np.random.default_rng(0).random((100, 28 * 28))
    found = prdc.prdc(noise, pixels(digits["3"][:150]))
    assert (found["precision"], found["density"], found["coverage"]) == (0, 0, 0)


def test_digits_of_another_kind_cover_less_than_those_of_the_same(digits):
    real = pixels(digits["3"][:200])
    same, others = (prdc.prdc(pixels(x), real) for x in (digits["3"][200:], digits["0"][:200]))
    assert same["coverage"] > 0.8
    assert others["coverage"] < 0.1
    assert others["precision"] < 0.5 < same["precision"]


def test_a_dropped_mode_costs_recall_and_coverage_but_not_precision():
    noise = np.random.default_rng(1)
    real = noise.normal(size=(400, 2)) + np.repeat([[0.0], [100]], 200, axis=0)
    found = prdc.prdc(noise.normal(size=(400, 2)), real)
    assert found["precision"] > 0.9
    assert 0.45 < found["recall"] <= 0.5
    assert 0.45 < found["coverage"] <= 0.5


def test_swapping_the_sets_swaps_precision_and_recall():
    noise = np.random.default_rng(2)
    first, second = noise.normal(size=(70, 3)), 2 * noise.normal(size=(50, 3))
    there, back = prdc.prdc(first, second), prdc.prdc(second, first)
    assert (there["precision"], there["recall"]) == (back["recall"], back["precision"])
    assert there["precision"] != there["recall"]


def test_one_outlier_among_the_real_leaves_density_but_not_precision():
    # The failure of precision that density mends (Naeem et al. 2020, figure 2): one huge ball holds all.
    noise = np.random.default_rng(3)
    real = np.concatenate([noise.normal(size=(100, 2)), [[60.0, 0]]])
    found = prdc.prdc(noise.normal(size=(100, 2)) + np.asarray([30, 0]), real)
    assert found["precision"] == 1
    # One ball of 101 each, over 5.
    assert found["density"] == pytest.approx(1 / 5)
    assert found["coverage"] == pytest.approx(1 / 101)


@pytest.mark.parametrize("block", [1, 7, 30])
def test_the_block_does_not_matter(block, monkeypatch):
    noise = np.random.default_rng(4)
    sets = noise.normal(size=(30, 3)), 1 + noise.normal(size=(20, 3))
    expected = prdc.prdc(*sets)
    assert 0 < expected["precision"] < 1
    monkeypatch.setattr(prdc, "BLOCK", block)
    assert prdc.prdc(*sets) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("imagined", "real", "words"), [(1, 9, ["imagined", "got 1"]), (9, 0, ["real", "got 0"])])
def test_a_set_without_neighbors_is_refused_in_one_line(imagined, real, words):
    with pytest.raises(InputError) as error:
        prdc.prdc(np.zeros((imagined, 2)), np.zeros((real, 2)))
    one_line(error, *words)


def test_copies_lie_on_the_edges_of_balls_and_in_them_duplicates_too():
    one = np.repeat(np.random.default_rng(1).normal(size=(1, 8)), 7, axis=0)
    real = np.concatenate([one, one + 1, one + 3.3])
    found = prdc.prdc(real, real.copy())
    assert found == {"precision": 1, "recall": 1, "density": 7 / 5, "coverage": 1}
