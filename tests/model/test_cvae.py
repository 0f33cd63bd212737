import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import lifelong_cvae as lifelong
from lifelong_cvae.model import cvae, mixture_prior
from lifelong_cvae.state import add_category
from tests.conftest import mixture_log_density

SAMPLES = 100_000


def shrunk(images):
    """Real digits at 7 x 7: averages of 4 x 4 pixels."""
    return images.reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).astype(np.float32) / 255


def briefly_learned(config, images, **settings):
    config = config.with_settings({"min_steps": 100, **settings})
    state = lifelong.init(config, (7, 7), rng=jax.random.key(0))
    return lifelong.learn(state, {"3": images}, rng=jax.random.key(0))[0]


def fresh(config, **settings):
    """A path that has learned nothing: enough for formulas of what a decoder gives."""
    state = lifelong.init(config.with_settings(settings), (7, 7), rng=jax.random.key(0))
    return add_category(state, "3", rng=jax.random.key(0)).model("3")


@pytest.fixture(scope="module", params=["gaussian", "bernoulli"])
def path(request, small_config, digits):
    return briefly_learned(small_config, shrunk(digits["3"]), likelihood=request.param).model("3")


@pytest.fixture(scope="module")
def image(digits):
    return jnp.asarray(shrunk(digits["3"])[:1].reshape(1, -1))


def monte_carlo(path, image, rng, samples=SAMPLES):
    """z ~ q(z|x,c), log p(x|z,c), log p(z|c) - log q(z|x,c), the densities of z by scipy."""
    return monte_carlo_of(cvae.encode(path, image), path, image, rng, samples)


def monte_carlo_of(posterior, path, image, rng, samples=SAMPLES):
    mean, deviation = np.asarray(posterior.mean[0]), np.exp(0.5 * np.asarray(posterior.log_var[0]))
    z = mean + deviation * np.asarray(jax.random.normal(rng, (samples, len(mean))))
    log_ratio = mixture_log_density(path.prior, z) - stats.norm.logpdf(z, mean, deviation).sum(1)
    log_likelihood = cvae.log_likelihood(path, image, cvae.decode(path, jnp.asarray(z, jnp.float32)))
    return np.asarray(log_likelihood, np.float64), log_ratio


def average_elbo(path, image):
    """Mean and spread of the library's ELBO over samples of z."""
    many = jnp.broadcast_to(image, (SAMPLES, image.shape[1]))
    posterior = cvae.encode(path, image)
    repeated = cvae.Posterior(*(jnp.broadcast_to(p, (SAMPLES, p.shape[1])) for p in posterior))
    values = np.asarray(cvae.elbo(path, many, repeated, rng=jax.random.key(7)), np.float64)
    return values.mean(), values.std()


@pytest.mark.parametrize("likelihood", ["gaussian", pytest.param("bernoulli", marks=pytest.mark.slow)])
def test_elbo_and_kl_agree_with_monte_carlo(small_config, digits, image, rng, likelihood):
    settings = {"likelihood": likelihood, "prior_components": 0}
    path = briefly_learned(small_config, shrunk(digits["3"]), **settings).model("3")
    assert path.prior["means"].shape == (1, 4)
    log_likelihood, log_ratio = monte_carlo(path, image, rng)
    kl = float(mixture_prior.kl_to_prior(*cvae.encode(path, image), path.prior)[0])
    assert abs(kl + log_ratio.mean()) < 4 * log_ratio.std() / math.sqrt(SAMPLES)

    expected = log_likelihood + log_ratio
    mean, deviation = average_elbo(path, image)
    assert abs(mean - expected.mean()) < 4 * math.hypot(expected.std(), deviation) / math.sqrt(SAMPLES)


def test_with_a_fitted_mixture_the_elbo_is_not_above_that_of_monte_carlo_and_near_it(path, image, rng):
    used = np.asarray(path.prior["logits"]) > mixture_prior.UNUSED_LOGIT / 2
    assert used.sum() == 3
    assert np.abs(path.prior["means"]).max() > 0.1
    log_likelihood, log_ratio = monte_carlo(path, image, rng)
    expected = log_likelihood + log_ratio
    mean, deviation = average_elbo(path, image)
    error = math.hypot(expected.std(), deviation) / math.sqrt(SAMPLES)
    assert -0.5 - 4 * error < mean - expected.mean() < 4 * error
    kl = float(mixture_prior.kl_to_prior(*cvae.encode(path, image), path.prior)[0])
    assert abs(mean - (log_likelihood.mean() - kl)) < 4 * error


@pytest.mark.slow
def test_averaging_samples_gives_the_same_elbo_with_less_noise(path, image):
    posterior = cvae.encode(path, image)
    keys = jax.random.split(jax.random.key(3), 200)
    ones = np.asarray([cvae.elbo(path, image, posterior, rng=key)[0] for key in keys])
    averaged = cvae.elbo(path, image, posterior, rng=jax.random.key(4), samples=20_000)
    assert abs(float(averaged[0]) - ones.mean()) < 4 * ones.std() / math.sqrt(200)


def test_importance_bound_is_at_least_the_elbo_and_one_sample_gives_the_elbo(path, image):
    # The bounds hold for any q; a broad one leaves more between them.
    posterior = cvae.Posterior(*cvae.encode(path, image))._replace(log_var=jnp.full((1, 4), 2.0))
    bound = jax.jit(cvae.importance_bound, static_argnames="samples")
    keys = jax.random.split(jax.random.key(5), 100)
    by_samples = {s: np.asarray([bound(path, image, posterior, rng=k, samples=s)[0] for k in keys]) for s in (1, 50)}
    elbo = np.sum(monte_carlo_of(posterior, path, image, jax.random.key(6), 20_000), axis=0).mean()
    errors = {s: values.std() / 10 for s, values in by_samples.items()}
    assert abs(by_samples[1].mean() - elbo) < 4 * errors[1]
    assert by_samples[50].mean() > elbo - 4 * errors[50]
    assert by_samples[50].mean() > by_samples[1].mean()


@pytest.mark.slow
def test_importance_bound_reaches_the_integral_over_a_one_dimensional_latent(small_config, digits, image):
    path = briefly_learned(small_config, shrunk(digits["3"]), latent_size=1).model("3")
    grid = np.linspace(-8, 8, 8001)
    log_likelihood = cvae.log_likelihood(path, image, cvae.decode(path, jnp.asarray(grid[:, None], jnp.float32)))
    log_joint = np.asarray(log_likelihood, np.float64) + mixture_log_density(path.prior, grid[:, None])
    exact = special.logsumexp(log_joint) + math.log(grid[1] - grid[0])
    posterior = cvae.encode(path, image)
    bound = cvae.importance_bound(path, image, posterior, rng=jax.random.key(8), samples=20_000)
    assert float(bound[0]) == pytest.approx(exact, abs=0.05)
    elbo = cvae.elbo(path, image, posterior, rng=jax.random.key(9), samples=20_000)
    assert float(elbo[0]) < exact


def test_gaussian_likelihood_agrees_with_scipy(small_config, digits):
    path = fresh(small_config, noise_scale="own", noise_rank=0)
    x = jnp.asarray(shrunk(digits["3"])[:4].reshape(4, -1))
    logits = 3 * jax.random.normal(jax.random.key(0), x.shape)
    log_scale = np.random.default_rng(0).uniform(-4, 1, x.shape[1]).astype(np.float32)
    path.category["scale"]["log_scale"] = jnp.asarray(log_scale)
    scale = np.exp(np.maximum(log_scale, -2.5))
    expected = stats.norm.logpdf(x, special.expit(np.asarray(logits, np.float64)), scale).sum(1)
    np.testing.assert_allclose(cvae.log_likelihood(path, x, logits), expected, rtol=1e-4)


def test_a_shared_scale_is_the_settings_for_every_pixel_and_takes_no_parameters(small_config):
    config = small_config.with_settings({"log_scale": -1.2})
    state = add_category(lifelong.init(config, (7, 7), rng=jax.random.key(0)), "a", rng=jax.random.key(0))
    assert state.params["categories"]["a"]["scale"] == {}
    x, logits = jax.random.uniform(jax.random.key(1), (4, 49)), jax.random.normal(jax.random.key(2), (4, 49))
    means = special.expit(np.asarray(logits, np.float64))
    expected = stats.norm.logpdf(x, means, np.exp(-1.2)).sum(1)
    np.testing.assert_allclose(cvae.log_likelihood(state.model("a"), x, logits), expected, rtol=1e-4)


def test_bernoulli_likelihood_agrees_with_scipy_and_stays_finite(small_config):
    path = fresh(small_config, likelihood="bernoulli")
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (4, 49)), jnp.float32)
    logits = 3 * jax.random.normal(jax.random.key(0), x.shape)
    expected = stats.bernoulli.logpmf(x, special.expit(np.asarray(logits, np.float64))).sum(1)
    np.testing.assert_allclose(cvae.log_likelihood(path, x, logits), expected, rtol=1e-4)
    extreme = jnp.full((4, 49), 200.0)
    values, gradient = jax.value_and_grad(lambda logits: cvae.log_likelihood(path, x, logits).sum())(extreme)
    assert np.isfinite(values)
    assert np.isfinite(gradient).all()
    assert path.category["scale"] == {}


def test_gradient_with_respect_to_another_category_is_exactly_zero(small_config, digits, rng):
    state = lifelong.init(small_config, (28, 28), rng=rng)
    for name in ("a", "b"):
        state = add_category(state, name, rng=rng)
    x = jnp.asarray(digits["3"][:8].reshape(8, -1) / np.float32(255))

    def loss(params):
        path = state.replace(params=params).model("a")
        return cvae.elbo(path, x, cvae.encode(path, x), rng=rng).sum()

    gradient = jax.jit(jax.grad(loss))(state.params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient["categories"]["b"]))
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(gradient["categories"]["a"]["encoder"]))
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(gradient["mixed"]))


def test_precomputed_neurons_change_nothing(path, image):
    neurons = cvae.mixed_activations(path, "encoder", image)
    for ours, expected in zip(cvae.encode(path, image, neurons), cvae.encode(path, image), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_a_turn_of_the_circle_encodes_and_decodes(path, image, rng):
    z0 = jnp.ones((1, path.networks.latent_size))
    z, x = cvae.circulate(path, z0, image, 0, rng=rng)
    np.testing.assert_array_equal(z, z0)
    np.testing.assert_array_equal(x, image)

    z, x = cvae.circulate(path, z0, image, 2, rng=rng)
    expected = image
    for key in jax.random.split(rng, 2):
        expected_z = cvae.encode(path, expected).sample(rng=key)
        expected = cvae.decode_mean(path, expected_z)
    np.testing.assert_allclose(z, expected_z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
    assert 0 <= float(x.min()) <= float(x.max()) <= 1


class LinearNetworks:
    """One pixel, one latent: x = 1/2 + w z, and the posterior for a Gaussian of scale s, in closed form."""

    w, a = 0.05, 0.8  # a = w^2 / (w^2 + s^2)

    def mixed_activations(self, mixed, half, inputs):
        return ()

    def encode(self, mixed, category, x, shared):
        return self.a * (x - 0.5) / self.w, jnp.full_like(x, math.log(1 - self.a))

    def decode(self, mixed, category, z, shared):
        return jax.scipy.special.logit(0.5 + self.w * z)


def test_the_circle_shrinks_the_variance_of_a_linear_model_as_the_formula_says(rng):
    networks = LinearNetworks()
    path = cvae.CategoryModel({}, {}, networks)
    z = jax.random.normal(rng, (20_000, 1))
    for turns, expected in ((1, networks.a**2 + 1 - networks.a), (40, 1 / (1 + networks.a))):
        turned, _ = cvae.circulate(path, z, cvae.decode_mean(path, z), turns, rng=jax.random.key(turns))
        assert float(turned.var()) == pytest.approx(expected, rel=0.04)
