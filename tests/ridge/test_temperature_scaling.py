"""Temperature scaling: grids by a second computation, and the selected temperatures."""

import numpy as np
import pytest
from scipy import special

from lifelong_cvae.ridge import temperature_scaling


def sample_logits(count, overconfidence, seed):
    """Logits of images with the true category in column 0, calibrated and then multiplied by `overconfidence`."""
    numbers = np.random.default_rng(seed)
    logits = numbers.normal(0, 2, (count, 3))
    categories = np.array([numbers.choice(3, p=p) for p in special.softmax(logits, axis=1)])
    order = (categories[:, None] + np.arange(3)) % 3
    return np.take_along_axis(logits, order, axis=1) * overconfidence


def test_loss_grid_holds_the_mean_loss_of_every_pair():
    evidence, scores = sample_logits(5, 30, 0), sample_logits(5, 0.1, 1)
    grid = temperature_scaling.loss_grid(evidence, scores, 2)
    assert grid.shape == temperature_scaling.GRID_SHAPE
    for row, column in ((0, 0), (0, 3), (4, 0), (7, 5)):
        logits = evidence / temperature_scaling.ELBO_TEMPERATURES[row]
        logits = logits + scores / temperature_scaling.SCORE_TEMPERATURES[column]
        probabilities = special.softmax(logits, axis=1)[:, 2]
        assert grid[row, column] == pytest.approx(-np.log(probabilities).mean(), rel=1e-4)
    assert grid[0, 0] == pytest.approx(np.log(3))


@pytest.mark.parametrize("count", [1, 40])
def test_loss_grid_does_not_depend_on_the_capacity(count):
    # Sure answers, whose small losses would show another order of addition.
    evidence, scores = sample_logits(count, 30, 0), sample_logits(count, 5, 1)
    expected = temperature_scaling.loss_grid(evidence, scores, 0)
    for capacity in (3, 4, 8, 64):
        grid = temperature_scaling.loss_grid(evidence, scores, 0, capacity=capacity)
        np.testing.assert_array_equal(grid, expected)


@pytest.mark.parametrize(("row", "column"), [(0, 1), (3, 5), (20, 25)])
def test_expert_weights_are_those_of_the_lowest_summed_loss(row, column):
    grids = np.random.default_rng(0).uniform(1, 2, (3, *temperature_scaling.GRID_SHAPE))
    grids[:, row, column] = 1, 0.9, 1
    # Scores are always used: the first column counts for nothing.
    grids[:, :, 0] = 0.1
    expected = temperature_scaling.ELBO_TEMPERATURES[row], temperature_scaling.SCORE_TEMPERATURES[column]
    assert temperature_scaling.expert_weights(list(grids)) == (1 / expected[0], 1 / expected[1])


def test_expert_weights_correct_overconfidence():
    scores = sample_logits(2000, 0.1, 1)
    # The evidence is proportional to the scores and 30 times overconfident. Together the experts are calibrated.
    grids = [temperature_scaling.loss_grid(300 * scores, scores, 0)]
    elbo_weight, score_weight = temperature_scaling.expert_weights(grids)
    assert elbo_weight > 0
    assert score_weight > 0
    assert 300 * elbo_weight + score_weight == pytest.approx(10, rel=0.2)


@pytest.mark.parametrize("temperature", [0.03, 0.1, 0.4])
def test_expert_weights_calibrate_scores_without_evidence(temperature):
    grids = [temperature_scaling.loss_grid(np.zeros((2000, 3)), sample_logits(2000, temperature, 1), 0)]
    assert temperature_scaling.expert_weights(grids) == (0, pytest.approx(1 / temperature, rel=0.2))


@pytest.mark.parametrize("size", [500, 5000])
def test_expert_weights_are_zero_for_an_uninformative_elbo(size):
    noise = np.random.default_rng(3).normal(0, size, (2000, 3))
    grids = [temperature_scaling.loss_grid(noise, sample_logits(2000, 0.1, 1), 0)]
    assert temperature_scaling.expert_weights(grids) == (0, pytest.approx(10, rel=0.2))


def test_expert_weights_prefer_an_informative_elbo():
    scores = np.random.default_rng(3).normal(0, 0.1, (2000, 3))
    grids = [temperature_scaling.loss_grid(sample_logits(2000, 30, 1), scores, 0)]
    elbo_weight, score_weight = temperature_scaling.expert_weights(grids)
    assert elbo_weight == pytest.approx(1 / 30, rel=0.3)
    # Scores are never dropped, so that they get the least weight.
    assert score_weight == 1 / max(t for t in temperature_scaling.SCORE_TEMPERATURES if np.isfinite(t))


def test_expert_weights_count_every_category_equally():
    grids = [temperature_scaling.loss_grid(np.zeros((500, 3)), sample_logits(500, s, 4), 0) for s in (0.05, 0.4)]
    alone = [temperature_scaling.expert_weights([grid])[1] for grid in grids]
    both = temperature_scaling.expert_weights(grids)[1]
    assert min(alone) < both < max(alone)


def test_expert_weights_of_empty_grids_are_those_of_scores_alone():
    grids = [temperature_scaling.empty_grid()] * 3
    assert temperature_scaling.expert_weights(grids) == (0, 1 / temperature_scaling.CLOSED_FORM_TEMPERATURE)
    grids.append(temperature_scaling.loss_grid(np.zeros((2000, 3)), sample_logits(2000, 0.4, 1), 0))
    assert temperature_scaling.expert_weights(grids) == temperature_scaling.expert_weights(grids[-1:])
