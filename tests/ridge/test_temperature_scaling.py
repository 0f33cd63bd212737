"""Temperatures: tables computed a second time, and the pair that serves."""

import numpy as np
import pytest
from scipy import special

from lifelong_cvae.ridge import temperature_scaling


def judged(count, sure, seed):
    """Evidence or scores of images, their own category first, that are `sure` times as sure as is right."""
    numbers = np.random.default_rng(seed)
    logits = numbers.normal(0, 2, (count, 3))
    drawn = np.array([numbers.choice(3, p=p) for p in special.softmax(logits, axis=1)])
    order = (drawn[:, None] + np.arange(3)) % 3
    return np.take_along_axis(logits, order, axis=1) * sure


def test_a_table_holds_the_mean_loss_of_every_pair():
    evidence, scores = judged(5, 30, 0), judged(5, 0.1, 1)
    table = temperature_scaling.loss_grid(evidence, scores, 2)
    assert table.shape == temperature_scaling.GRID_SHAPE
    for first, second in ((0, 0), (0, 3), (4, 0), (7, 5)):
        logits = evidence / temperature_scaling.ELBO_TEMPERATURES[first]
        logits = logits + scores / temperature_scaling.SCORE_TEMPERATURES[second]
        probabilities = special.softmax(logits, axis=1)[:, 2]
        assert table[first, second] == pytest.approx(-np.log(probabilities).mean(), rel=1e-4)
    assert table[0, 0] == pytest.approx(np.log(3))


def test_what_was_too_sure_gets_its_temperature_back():
    scores = judged(4000, 0.1, 1)
    tables = [temperature_scaling.loss_grid(np.zeros((4000, 3)), scores, 0)]
    assert temperature_scaling.expert_weights(tables, "closed_form") == (0, pytest.approx(10, rel=0.3))
    # Evidence that says the same as the scores, 30 times too sure: together they are as sure as is right.
    tables = [temperature_scaling.loss_grid(300 * scores, scores, 0)]
    elbo, score = temperature_scaling.expert_weights(tables, "combined")
    assert elbo > 0
    assert score > 0
    assert 300 * elbo + score == pytest.approx(10, rel=0.3)


def test_an_expert_that_knows_nothing_is_left_with_little_weight():
    noise = np.random.default_rng(3).normal(0, 50, (4000, 3))
    elbo, score = temperature_scaling.expert_weights(
        [temperature_scaling.loss_grid(noise, judged(4000, 0.1, 1), 0)], "combined"
    )
    assert elbo * 50 < 0.1 * score * 0.2


def test_every_category_counts_the_same():
    sure, unsure = (temperature_scaling.loss_grid(np.zeros((500, 3)), judged(500, s, 4), 0) for s in (0.05, 0.4))
    alone = [temperature_scaling.expert_weights([table], "closed_form")[1] for table in (sure, unsure)]
    both = temperature_scaling.expert_weights([sure, unsure], "closed_form")[1]
    assert min(alone) < both < max(alone)


def test_without_any_table_the_least_confident_answer_wins():
    elbo, score = temperature_scaling.expert_weights([temperature_scaling.empty_grid()] * 3, "combined")
    assert elbo == 1 / max(t for t in temperature_scaling.ELBO_TEMPERATURES if np.isfinite(t))
    assert score == 1 / max(t for t in temperature_scaling.SCORE_TEMPERATURES if np.isfinite(t))
