import jax
import numpy as np
import pytest
from scipy import stats

import lifelong_cvae as lifelong
from lifelong_cvae.model import rejection
from tests.conftest import one_line


def test_fit_thresholds_returns_quantiles():
    evidence = np.random.default_rng(0).permutation(1001).astype(np.float32)
    np.testing.assert_allclose(rejection.fit_thresholds(evidence), 1000 * np.asarray(rejection.RATES), rtol=1e-6)


@pytest.mark.parametrize("count", [3, 10, 40])
def test_fit_thresholds_of_few_images_rejects_about_the_requested_rate(count):
    numbers = np.random.default_rng(0)
    rejected = []
    for _ in range(2000):
        values = 5 + 3 * numbers.standard_normal(count)
        rejected.append(stats.norm.cdf(rejection.fit_thresholds(values), 5, 3))
    for rate, found in zip(rejection.RATES, np.mean(rejected, axis=0), strict=True):
        if rate * count < 1:
            assert found == pytest.approx(rate, rel=0.4)


def test_fit_thresholds_of_one_image_rejects_nothing():
    assert (rejection.fit_thresholds(np.asarray([3.0])) == rejection.NEVER).all()


def test_is_unknown_rejects_requested_rate():
    evidence = stats.norm.rvs(size=(20_000, 2), random_state=0) * [1.0, 30.0] + [0.0, 500.0]
    thresholds = np.stack([rejection.fit_thresholds(evidence[:, c]) for c in (0, 1)])
    for column in (0, 1):
        predictions = np.full(20_000, column)
        for rate in (*rejection.RATES, 0.003, 0.07, 0.3):
            rejected = rejection.is_unknown(thresholds, evidence, predictions, rate)
            assert rejected.mean() == pytest.approx(rate, rel=0.15)
            assert evidence[rejected, column].max() < evidence[~rejected, column].min()


def test_is_unknown_uses_threshold_of_predicted_category():
    thresholds = np.stack([np.full(9, 10.0), np.full(9, 20.0)])
    evidence = np.full((2, 2), 15.0)
    assert rejection.is_unknown(thresholds, evidence, np.asarray([0, 1]), 0.01).tolist() == [False, True]


def test_is_unknown_rejects_nothing_uncalibrated_or_at_rate_zero():
    evidence = np.asarray([[-1e9], [0.0]])
    assert not rejection.is_unknown([rejection.uncalibrated_thresholds()], evidence, np.zeros(2, int), 0.5).any()
    assert not rejection.is_unknown([np.full(9, 1e9)], evidence, np.zeros(2, int), 0.0).any()


def test_pool_gives_every_category_the_mean_of_calibrated_thresholds():
    first, second = np.arange(9.0), np.arange(9.0) + 4
    pooled = rejection.pool([first, rejection.uncalibrated_thresholds(), second])
    np.testing.assert_array_equal(pooled, [np.arange(9.0) + 2] * 3)
    uncalibrated = np.stack([rejection.uncalibrated_thresholds()] * 2)
    np.testing.assert_array_equal(rejection.pool(uncalibrated), uncalibrated)


def test_familiarity_is_zero_at_the_median_and_minus_one_at_the_quantile():
    known = stats.norm.rvs(size=(50_000, 2), random_state=1) * [2.0, 5.0] + [10.0, -3.0]
    thresholds = np.stack([rejection.fit_thresholds(known[:, c]) for c in (0, 1)])
    values = np.asarray([[10.0, 0.0], [0.0, -3.0 - 1.645 * 5]])
    familiar = rejection.familiarity(thresholds, values, np.asarray([0, 1]))
    np.testing.assert_allclose(familiar, [0.0, -1.0], atol=0.03)
    uncalibrated = np.stack([rejection.uncalibrated_thresholds()] * 2)
    assert np.isposinf(rejection.familiarity(uncalibrated, values, np.asarray([0, 1]))).all()


def test_unknown_flags_noise_but_few_test_digits(learner, mnist5k):
    def unknown_rate(images):
        names, _ = lifelong.recognize(learner, images)
        return lifelong.unknown(learner, lifelong.evidence(learner, images), names).mean()

    noise = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
    digits = np.concatenate([mnist5k.read("test", name) for name in learner.names])
    assert unknown_rate(noise) == 1
    assert unknown_rate(digits) < 0.1


def test_thresholds_do_not_depend_on_other_categories(learner, digits, rng):
    state = lifelong.init(learner.config, (28, 28), rng=rng)
    state, _ = lifelong.learn(state, {"2": digits["2"]}, rng=rng)
    alone, among_others = (s.params["categories"]["2"]["thresholds"] for s in (state, learner))
    np.testing.assert_array_equal(alone, among_others)


def test_unknown_rejects_nothing_with_one_hot_conditioning(small_config, digits):
    settings = {"conditioning": "one_hot", "mixed_mode": "free"}
    state = lifelong.init(small_config.with_settings(settings), (28, 28), rng=jax.random.key(0))
    state, _ = lifelong.learn(state, {"0": digits["0"]}, rng=jax.random.key(0))
    assert state.params["categories"]["0"]["thresholds"] == {}
    evidence = lifelong.evidence(state, digits["1"][:10])
    assert not lifelong.unknown(state, evidence, np.full(10, "0"), rate=0.5).any()


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_unknown_rejects_invalid_rate(learner, rate):
    with pytest.raises(lifelong.InputError) as error:
        lifelong.unknown(learner, np.zeros((1, 3)), np.asarray(["2"]), rate=rate)
    one_line(error, f"rejection rate: expected at least 0 and below 1, got {rate}")
