import jax
import numpy as np
import pytest
from scipy import stats

import lifelong_cvae as lifelong
from lifelong_cvae.model import rejection
from tests.conftest import one_line


def test_thresholds_are_quantiles():
    nats = np.random.default_rng(0).permutation(1001).astype(np.float32)
    np.testing.assert_allclose(rejection.fit_thresholds(nats), 1000 * np.asarray(rejection.RATES), rtol=1e-6)


def test_as_many_are_rejected_as_were_asked_for():
    evidence = stats.norm.rvs(size=(20_000, 2), random_state=0) * [1.0, 30.0] + [0.0, 500.0]
    tables = np.stack([rejection.fit_thresholds(evidence[:, c]) for c in (0, 1)])
    for column in (0, 1):
        answers = np.full(20_000, column)
        for part in (*rejection.RATES, 0.003, 0.07, 0.3):
            rejected = rejection.is_unknown(tables, evidence, answers, part)
            assert rejected.mean() == pytest.approx(part, rel=0.15)
            assert evidence[rejected, column].max() < evidence[~rejected, column].min()


def test_the_threshold_is_that_of_the_category_that_an_image_is_taken_for():
    tables = np.stack([np.full(9, 10.0), np.full(9, 20.0)])
    evidence = np.full((2, 2), 15.0)
    assert rejection.is_unknown(tables, evidence, np.asarray([0, 1]), 0.01).tolist() == [False, True]


def test_a_category_that_nothing_is_known_of_and_a_part_of_zero_reject_nothing():
    evidence = np.asarray([[-1e9], [0.0]])
    assert not rejection.is_unknown([rejection.uncalibrated_thresholds()], evidence, np.zeros(2, int), 0.5).any()
    assert not rejection.is_unknown([np.full(9, 1e9)], evidence, np.zeros(2, int), 0.0).any()


def test_noise_is_unknown_and_most_unseen_digits_are_known(learner, mnist5k):
    def part_unknown(images):
        names, _ = lifelong.recognize(learner, images)
        return lifelong.unknown(learner, lifelong.evidence(learner, images), names).mean()

    noise = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
    digits = np.concatenate([mnist5k.read("test", name) for name in learner.names])
    assert part_unknown(noise) == 1
    assert part_unknown(digits) < 0.1


def test_others_that_come_change_no_thresholds(learner, digits, rng):
    state = lifelong.init(learner.config, (28, 28), rng=rng)
    state, _ = lifelong.learn(state, {"2": digits["2"]}, rng=rng)
    first, second = (s.params["categories"]["2"]["thresholds"] for s in (state, learner))
    np.testing.assert_array_equal(first, second)


def test_vectors_own_no_thresholds_and_reject_nothing(small_config, digits):
    settings = {"conditioning": "one_hot", "mixed_mode": "free"}
    state = lifelong.init(small_config.with_settings(settings), (28, 28), rng=jax.random.key(0))
    state, _ = lifelong.learn(state, {"0": digits["0"]}, rng=jax.random.key(0))
    assert state.params["categories"]["0"]["thresholds"] == {}
    evidence = lifelong.evidence(state, digits["1"][:10])
    assert not lifelong.unknown(state, evidence, np.full(10, "0"), part=0.5).any()


@pytest.mark.parametrize("part", [-0.1, 1.0, float("nan")])
def test_a_part_that_is_none_is_refused(learner, part):
    with pytest.raises(lifelong.InputError) as error:
        lifelong.unknown(learner, np.zeros((1, 3)), np.asarray(["2"]), part=part)
    one_line(error, str(part), "below 1")
