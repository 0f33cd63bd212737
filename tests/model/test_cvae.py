import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import lifelong_cvae as lifelong
from lifelong_cvae.model import cvae, elbo, mixture_prior
from lifelong_cvae.state import add_category
from tests.compiled import (
    circulate,
    decode,
    decode_mean,
    encode,
    encode_and_sample,
    importance_bound,
    kl_to_prior,
    log_likelihood,
    mixed_activations,
    sampled_elbo,
)
from tests.conftest import mixture_log_density

SAMPLES = 100_000


def kl_of_posterior(model, image):
    return float(kl_to_prior(*encode(model, image), model.prior)[0])


def downsample(images):
    """Returns digits at 7 x 7 pixels, means over 4 x 4 pixels."""
    return images.reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).astype(np.float32) / 255


def learned_state(config, images, **settings):
    """Returns a state that has learned 3 in 100 steps."""
    config = config.with_settings({"min_steps": 100, **settings})
    state = lifelong.init(config, (7, 7), rng=jax.random.key(0))
    return lifelong.learn(state, {"3": images}, rng=jax.random.key(0))[0]


def untrained_model(config, **settings):
    """Returns the model of a new category."""
    state = lifelong.init(config.with_settings(settings), (7, 7), rng=jax.random.key(0))
    return add_category(state, "3", rng=jax.random.key(0)).model("3")


@pytest.fixture(scope="module", params=["gaussian", "bernoulli"])
def model(request, small_config, digits):
    return learned_state(small_config, downsample(digits["3"]), likelihood=request.param).model("3")


@pytest.fixture(scope="module")
def image(digits):
    return downsample(digits["3"])[:1].reshape(1, -1)


def monte_carlo(model, image, rng, samples=SAMPLES):
    """Samples z ~ q(z|x,c) of the model's posterior; see `monte_carlo_with`."""
    return monte_carlo_with(encode(model, image), model, image, rng, samples)


def monte_carlo_with(posterior, model, image, rng, samples=SAMPLES):
    """Returns log p(x|z,c) and log p(z|c) - log q(z|x,c) of samples z ~ q; densities of z by scipy."""
    mean, log_var = (np.asarray(part)[0] for part in posterior)
    deviation = np.exp(0.5 * log_var)
    z = mean + deviation * np.asarray(jax.random.normal(rng, (samples, len(mean))))
    log_ratio = mixture_log_density(model.prior, z) - stats.norm.logpdf(z, mean, deviation).sum(1)
    values = log_likelihood(model, image, decode(model, np.float32(z)))
    return np.asarray(values, np.float64), log_ratio


def average_elbo(model, image):
    """Returns the mean and standard deviation of the library's ELBO over samples of z."""
    images, *posterior = (np.repeat(values, SAMPLES, axis=0) for values in (image, *encode(model, image)))
    values = np.asarray(sampled_elbo(model, images, cvae.Posterior(*posterior), rng=jax.random.key(7)), np.float64)
    return values.mean(), values.std()


@pytest.mark.parametrize("likelihood", ["gaussian", pytest.param("bernoulli", marks=pytest.mark.slow)])
def test_elbo_matches_monte_carlo_with_standard_normal_prior(small_config, digits, image, rng, likelihood):
    settings = {"likelihood": likelihood, "prior_components": 0}
    model = learned_state(small_config, downsample(digits["3"]), **settings).model("3")
    assert model.prior["means"].shape == (1, 4)
    log_likelihoods, log_ratio = monte_carlo(model, image, rng)
    assert abs(kl_of_posterior(model, image) + log_ratio.mean()) < 4 * log_ratio.std() / math.sqrt(SAMPLES)

    expected = log_likelihoods + log_ratio
    mean, deviation = average_elbo(model, image)
    assert abs(mean - expected.mean()) < 4 * math.hypot(expected.std(), deviation) / math.sqrt(SAMPLES)


def test_elbo_is_slightly_below_monte_carlo_with_mixture_prior(model, image, rng):
    used = np.asarray(model.prior["logits"]) > mixture_prior.UNUSED_LOGIT / 2
    assert used.sum() == 3
    assert np.abs(model.prior["means"]).max() > 0.1
    log_likelihoods, log_ratio = monte_carlo(model, image, rng)
    expected = log_likelihoods + log_ratio
    mean, deviation = average_elbo(model, image)
    error = math.hypot(expected.std(), deviation) / math.sqrt(SAMPLES)
    assert -0.5 - 4 * error < mean - expected.mean() < 4 * error
    assert abs(mean - (log_likelihoods.mean() - kl_of_posterior(model, image))) < 4 * error


@pytest.mark.slow
def test_elbo_of_many_samples_is_mean_of_single_samples(model, image):
    posterior = encode(model, image)
    keys = jax.random.split(jax.random.key(3), 200)
    single = np.asarray([sampled_elbo(model, image, posterior, rng=key)[0] for key in keys])
    averaged = sampled_elbo(model, image, posterior, rng=jax.random.key(4), samples=20_000)
    assert abs(float(averaged[0]) - single.mean()) < 4 * single.std() / math.sqrt(200)


def test_importance_bound_is_elbo_for_one_sample_and_larger_for_many(model, image):
    # The bounds hold for any q; with a broad q they are further apart.
    posterior = encode(model, image)._replace(log_var=np.full((1, 4), 2.0, np.float32))
    keys = jax.random.split(jax.random.key(5), 100)

    def bounds(samples):
        by_key = [importance_bound(model, image, posterior, rng=key, samples=samples) for key in keys]
        return np.asarray(jax.device_get(by_key))[:, 0]

    by_samples = {samples: bounds(samples) for samples in (1, 50)}
    expected = np.sum(monte_carlo_with(posterior, model, image, jax.random.key(6), 20_000), axis=0).mean()
    errors = {s: values.std() / 10 for s, values in by_samples.items()}
    assert abs(by_samples[1].mean() - expected) < 4 * errors[1]
    assert by_samples[50].mean() > expected - 4 * errors[50]
    assert by_samples[50].mean() > by_samples[1].mean()


@pytest.mark.slow
def test_importance_bound_matches_integral_over_one_dimensional_latent(small_config, digits, image):
    model = learned_state(small_config, downsample(digits["3"]), latent_size=1).model("3")
    grid = np.linspace(-8, 8, 8001)
    log_likelihoods = log_likelihood(model, image, decode(model, np.float32(grid[:, None])))
    log_joint = np.asarray(log_likelihoods, np.float64) + mixture_log_density(model.prior, grid[:, None])
    exact = special.logsumexp(log_joint) + math.log(grid[1] - grid[0])
    posterior = encode(model, image)
    bound = importance_bound(model, image, posterior, rng=jax.random.key(8), samples=20_000)
    assert float(bound[0]) == pytest.approx(exact, abs=0.05)
    lower = sampled_elbo(model, image, posterior, rng=jax.random.key(9), samples=20_000)
    assert float(lower[0]) < exact


def test_log_likelihood_gaussian_matches_scipy(small_config, digits):
    model = untrained_model(small_config, noise_scale="own", noise_rank=0)
    x, rng = downsample(digits["3"])[:4].reshape(4, -1), np.random.default_rng(0)
    logits = np.float32(3 * rng.normal(size=x.shape))
    log_scale = np.float32(rng.uniform(-4, 1, x.shape[1]))
    model.category["scale"]["log_scale"] = log_scale
    scale = np.exp(np.maximum(log_scale, -2.5))
    expected = stats.norm.logpdf(x, special.expit(np.asarray(logits, np.float64)), scale).sum(1)
    np.testing.assert_allclose(log_likelihood(model, x, logits), expected, rtol=1e-4)


def test_log_likelihood_with_shared_scale_needs_no_parameters(small_config):
    config = small_config.with_settings({"log_scale": -1.2})
    state = add_category(lifelong.init(config, (7, 7), rng=jax.random.key(0)), "a", rng=jax.random.key(0))
    assert state.params["categories"]["a"]["scale"] == {}
    rng = np.random.default_rng(1)
    x, logits = np.float32(rng.random((4, 49))), np.float32(rng.normal(size=(4, 49)))
    means = special.expit(np.asarray(logits, np.float64))
    expected = stats.norm.logpdf(x, means, np.exp(-1.2)).sum(1)
    np.testing.assert_allclose(log_likelihood(state.model("a"), x, logits), expected, rtol=1e-4)


def test_log_likelihood_bernoulli_matches_scipy_and_stays_finite(small_config):
    model = untrained_model(small_config, likelihood="bernoulli")
    rng = np.random.default_rng(0)
    x, logits = np.float32(rng.integers(0, 2, (4, 49))), np.float32(3 * rng.normal(size=(4, 49)))
    expected = stats.bernoulli.logpmf(x, special.expit(np.asarray(logits, np.float64))).sum(1)
    np.testing.assert_allclose(log_likelihood(model, x, logits), expected, rtol=1e-4)
    extreme = np.full((4, 49), 200.0, np.float32)
    value_and_gradient = jax.value_and_grad(lambda logits: cvae.log_likelihood(model, x, logits).sum())
    values, gradient = jax.device_get(jax.jit(value_and_gradient)(extreme))
    assert np.isfinite(values)
    assert np.isfinite(gradient).all()
    assert model.category["scale"] == {}


def test_elbo_gradient_of_other_category_is_exactly_zero(small_config, digits, rng):
    state = lifelong.init(small_config, (28, 28), rng=rng)
    for name in ("a", "b"):
        state = add_category(state, name, rng=rng)
    x = digits["3"][:8].reshape(8, -1) / np.float32(255)

    def loss(params):
        model = state.replace(params=params).model("a")
        return elbo.sampled_elbo(model, x, cvae.encode(model, x), rng=rng).sum()

    gradient = jax.device_get(jax.jit(jax.grad(loss))(state.params))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient["categories"]["b"]))
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(gradient["categories"]["a"]["encoder"]))
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(gradient["mixed"]))


def test_encode_with_precomputed_activations_is_equal(model, image):
    activations = mixed_activations(model, "encoder", image)
    for value, expected in zip(encode(model, image, activations), encode(model, image), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_circulate_encodes_and_decodes(model, image, rng):
    z0 = np.ones((1, model.networks.latent_size), np.float32)
    z, x = circulate(model, z0, image, 0, rng=rng)
    np.testing.assert_array_equal(z, z0)
    np.testing.assert_array_equal(x, image)

    z, x = circulate(model, z0, image, 2, rng=rng)
    expected = image
    for key in jax.random.split(rng, 2):
        expected_z = encode_and_sample(model, expected, rng=key)
        expected = decode_mean(model, expected_z)
    np.testing.assert_allclose(z, expected_z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
    assert 0 <= np.min(x) <= np.max(x) <= 1


class LinearNetworks:
    """One pixel and one latent: x = 1/2 + w z, with the closed-form posterior for a Gaussian of scale s."""

    w, a = 0.05, 0.8  # a = w^2 / (w^2 + s^2)

    def mixed_activations(self, mixed, half, inputs):
        return ()

    def encode(self, mixed, category, x, activations):
        return self.a * (x - 0.5) / self.w, jnp.full_like(x, math.log(1 - self.a))

    def decode(self, mixed, category, z, activations):
        return jax.scipy.special.logit(0.5 + self.w * z)

    def mean(self, outputs):
        return jax.nn.sigmoid(outputs)


def test_circulate_shrinks_variance_of_linear_model():
    networks = LinearNetworks()
    model = cvae.CategoryModel({}, {}, networks)
    z = np.float32(np.random.default_rng(0).normal(size=(20_000, 1)))
    for cycles, expected in ((1, networks.a**2 + 1 - networks.a), (40, 1 / (1 + networks.a))):
        circulated, _ = circulate(model, z, decode_mean(model, z), cycles, rng=jax.random.key(cycles))
        assert np.var(circulated) == pytest.approx(expected, rel=0.04)
