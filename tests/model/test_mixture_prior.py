import jax
import numpy as np
import pytest
from scipy import special, stats

from lifelong_cvae.model import mixture_prior
from tests.compiled import kl_to_prior, prior_log_prob, sample_prior
from tests.conftest import mixture_log_density


@pytest.fixture
def mixture():
    return {
        "logits": np.float32([0.3, -1.0, 0.8]),
        "means": np.float32([[0.0, 1.0], [2.0, -1.0], [-3.0, 0.5]]),
        "log_vars": np.float32([[0.0, -1.0], [0.5, 0.2], [-0.7, 1.0]]),
    }


def test_log_prob_matches_scipy(mixture):
    z = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    weights = special.softmax(np.asarray(mixture["logits"]))
    expected = np.log(
        sum(
            weight * stats.multivariate_normal(mean, np.diag(np.exp(log_var))).pdf(z)
            for weight, mean, log_var in zip(weights, mixture["means"], mixture["log_vars"], strict=True)
        )
    )
    np.testing.assert_allclose(prior_log_prob(mixture, z), expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 1.3])
def test_sample_has_mean_and_variance_of_mixture(mixture, temperature, rng):
    z = np.asarray(sample_prior(mixture, 200_000, temperature=temperature, rng=rng), np.float64)
    weights = special.softmax(np.asarray(mixture["logits"], np.float64))
    means, variances = np.asarray(mixture["means"]), np.exp(np.asarray(mixture["log_vars"]))
    mean = weights @ means
    variance = temperature**2 * (weights @ (variances + means**2) - mean**2)
    np.testing.assert_allclose(z.mean(0), mean, atol=4 * np.sqrt(variance.max() / len(z)))
    np.testing.assert_allclose(z.var(0), variance, rtol=0.02)


def test_standard_normal_matches_scipy():
    z = np.float32(np.random.default_rng(0).normal(size=(20, 3)))
    expected = stats.norm.logpdf(z).sum(axis=1)
    np.testing.assert_allclose(prior_log_prob(mixture_prior.standard_normal(3), z), expected, rtol=1e-5)


def test_kl_to_prior_matches_monte_carlo_and_numerical_integration(rng):
    mean, log_var = np.float32([[0.7, -1.5, 0.1]]), np.float32([[-1.0, 0.4, -3.0]])
    other = {
        "logits": np.zeros(1, np.float32),
        "means": np.float32([[0.5, 0.0, -0.2]]),
        "log_vars": np.float32([[0.3, -0.4, 0.0]]),
    }
    kl = float(kl_to_prior(mean, log_var, other)[0])

    deviation = np.exp(0.5 * np.asarray(log_var[0]))
    z = np.asarray(mean) + deviation * np.asarray(jax.random.normal(rng, (100_000, 3)))
    log_q = stats.norm.logpdf(z, mean, deviation).sum(axis=1)
    log_p = stats.norm.logpdf(z, other["means"], np.exp(0.5 * np.asarray(other["log_vars"]))).sum(axis=1)
    assert abs(kl - (log_q - log_p).mean()) < 4 * (log_q - log_p).std() / np.sqrt(len(z))

    grid = np.linspace(-12, 12, 20_001)
    total = 0.0
    for d in range(3):
        q = stats.norm(float(mean[0, d]), deviation[d])
        p = stats.norm(float(other["means"][0, d]), float(np.exp(0.5 * other["log_vars"][0, d])))
        total += np.trapezoid(q.pdf(grid) * (q.logpdf(grid) - p.logpdf(grid)), grid)
    assert kl == pytest.approx(total, rel=1e-5)


def test_kl_to_prior_of_prior_is_zero():
    zeros = np.zeros((4, 5), np.float32)
    np.testing.assert_array_equal(kl_to_prior(zeros, zeros, mixture_prior.standard_normal(5)), np.zeros(4))


def test_kl_to_prior_of_mixture_is_upper_bound(mixture):
    for seed, mean in enumerate(np.asarray([[0.0, 1.0], [1.0, 0.0], [-3.0, 0.5], [4.0, 4.0]])):
        deviation = np.asarray([0.3, 1.2])
        z = mean + deviation * np.random.default_rng(seed).normal(size=(50_000, 2))
        log_ratio = stats.norm.logpdf(z, mean, deviation).sum(axis=1) - mixture_log_density(mixture, z)
        error = log_ratio.std() / np.sqrt(len(z))
        kl = kl_to_prior(np.float32(mean[None]), np.float32(2 * np.log(deviation)[None]), mixture)
        assert log_ratio.mean() - 4 * error < float(kl[0])


def test_kl_to_prior_is_below_bound_of_each_component(mixture):
    mean, log_var = np.float32(np.random.default_rng(0).normal(size=(2, 20, 2)))
    kl = np.asarray(kl_to_prior(mean, log_var, mixture))
    weights = special.softmax(np.asarray(mixture["logits"]))
    for k in range(3):
        one = {name: values[k : k + 1] for name, values in mixture.items()}
        assert (kl < np.asarray(kl_to_prior(mean, log_var, one)) - np.log(weights[k])).all()


@pytest.mark.parametrize("unused", [0, 2])
def test_kl_to_prior_of_equal_components_is_that_of_one(unused):
    mean, log_var = np.float32(np.random.default_rng(0).normal(size=(2, 10, 2)))
    one = {"means": np.float32([[0.5, -1.0]]), "log_vars": np.float32([[0.3, -0.7]]), "logits": np.zeros(1, np.float32)}
    repeated = {name: np.concatenate([np.repeat(v, 4, axis=0)] + [v + 9] * unused) for name, v in one.items()}
    repeated["logits"] = np.float32([0.7] * 4 + [mixture_prior.UNUSED_LOGIT] * unused)
    expected = kl_to_prior(mean, log_var, one)
    np.testing.assert_allclose(kl_to_prior(mean, log_var, repeated), expected, rtol=1e-5, atol=1e-5)
    between = jax.jit(mixture_prior.kl_between)(mean, log_var, one["means"], one["log_vars"])
    np.testing.assert_allclose(expected, between)


def test_mean_and_covariance_match_samples():
    mixture = {
        "logits": np.float32([0.0, 1.0, mixture_prior.UNUSED_LOGIT]),
        "means": np.float32([[1.0, 2.0], [-1.0, 0.5], [90.0, 90.0]]),
        "log_vars": np.float32([[0.0, -1.0], [0.5, 0.2], [5.0, 5.0]]),
    }
    z = np.asarray(sample_prior(mixture, 200_000, rng=jax.random.key(0)))
    mean, covariance = mixture_prior.mean_and_covariance(mixture)
    np.testing.assert_allclose(mean, z.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(covariance, np.cov(z, rowvar=False), atol=0.03)
