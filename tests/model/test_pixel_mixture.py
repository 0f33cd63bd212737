import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lifelong_cvae.model import pixel_mixture

LEVELS = np.arange(256) / 255
log_prob = jax.jit(pixel_mixture.log_prob)


def random_mixture(channels, *, seed=0, count=1):
    outputs = np.random.default_rng(seed).normal(size=(count, pixel_mixture.num_outputs(channels)))
    outputs += np.asarray(pixel_mixture.initial_outputs(channels)) * np.float32(0.7)
    make = jax.jit(pixel_mixture.mixture, static_argnums=1)
    return jax.device_get(make(np.float32(outputs), channels))


def repeat(params, count):
    """Repeats the first mixture."""
    return jax.tree.map(lambda leaf: np.repeat(leaf[:1], count, axis=0), params)


def expected_probability(params, x, center):
    """Computes the probability of one pixel by the integrals of scipy's logistic distribution."""
    logits, offsets, log_scales, slopes = (np.asarray(part[0], np.float64) for part in params)
    weights = np.exp(logits) / np.exp(logits).sum()
    total = 0.0
    for k, weight in enumerate(weights):
        probability = weight
        for channel in range(len(x)):
            pairs = [i for i, pair in enumerate([(1, 0), (2, 0), (2, 1)]) if pair[0] == channel]
            mean = center[channel] + offsets[k, channel]
            mean += sum(slopes[k, pair] * (x[j] - center[j]) for j, pair in enumerate(pairs))
            noise = stats.logistic(mean, np.exp(log_scales[k, channel]))
            low = 0 if x[channel] == 0 else noise.cdf(x[channel] - 0.5 / 255)
            high = 1 if x[channel] == 1 else noise.cdf(x[channel] + 0.5 / 255)
            probability *= high - low
        total += probability
    return total


@pytest.mark.parametrize("x", [(0.0, 1.0, 100 / 255), (20 / 255, 128 / 255, 1.0), (90 / 255, 70 / 255, 80 / 255)])
def test_log_prob_is_the_integral_of_logistic_densities(x):
    params, center = random_mixture(3), np.array([0.3, 0.4, 0.2])
    found = log_prob(params, np.float32([x]), np.float32([center]))[0]
    assert np.exp(float(found)) == pytest.approx(expected_probability(params, x, center), rel=1e-3)


@pytest.mark.parametrize("channels", [1, 2])
def test_log_prob_sums_to_one(channels):
    values = np.float32(list(itertools.product(LEVELS, repeat=channels)))
    params = repeat(random_mixture(channels), len(values))
    assert np.exp(log_prob(params, values, np.full_like(values, 0.4))).sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_log_prob_has_finite_gradients_for_extreme_outputs(size):
    outputs = size * np.random.default_rng(0).choice([-1, 1], (50, pixel_mixture.num_outputs(3)))
    x = np.float32(np.random.default_rng(1).choice([0, 0.2, 1], (50, 3)))

    def total(outputs):
        return pixel_mixture.log_prob(pixel_mixture.mixture(outputs, 3), x, jnp.full_like(x, 0.5)).sum()

    value, gradient = jax.device_get(jax.jit(jax.value_and_grad(total))(np.float32(outputs)))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_sample_has_the_probabilities_of_log_prob():
    count = 20_000
    params = random_mixture(2, seed=1)
    center = np.full((count, 2), 0.3, np.float32)
    samples = np.asarray(jax.jit(pixel_mixture.sample)(repeat(params, count), center, rng=jax.random.key(0)))
    assert samples.min() >= 0
    assert samples.max() <= 1
    np.testing.assert_allclose(samples * 255, np.round(samples * 255), atol=1e-3)
    values = np.float32(list(itertools.product(LEVELS, repeat=2)))
    log_probs = log_prob(repeat(params, len(values)), values, np.full_like(values, 0.3))
    probability = np.exp(log_probs).reshape(256, 256)
    cells = probability.reshape(8, 32, 8, 32).sum(axis=(1, 3))
    found = np.histogram2d(*np.round(samples.T * 255), bins=8, range=[(-0.5, 255.5)] * 2)[0] / count
    np.testing.assert_allclose(found, cells, atol=4 * np.sqrt(0.25 / count))
