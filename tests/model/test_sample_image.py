"""What drawings show besides the decoder's mean: the texture that a category's factors know."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import sampling
from lifelong_cvae.model import cvae, low_rank_noise
from lifelong_cvae.state import add_category, category_rng


@pytest.fixture(scope="module")
def known():
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 3)))[0].T
    return {"directions": jnp.asarray(directions, jnp.float32), "excess": jnp.asarray([4.0, 1.0, 0.0])}


@pytest.mark.parametrize("noise", [False, True])
def test_samples_have_the_covariance_of_what_was_found(known, rng, noise):
    drawn = np.asarray(low_rank_noise.sample(known, 100_000, noise=noise, rng=rng), np.float64)
    variances = np.asarray(known["excess"]) / low_rank_noise.SHRINKAGE + (noise * np.asarray([1, 1, 0]))
    expected = (np.asarray(known["directions"]).T * variances) @ np.asarray(known["directions"])
    np.testing.assert_allclose(drawn.T @ drawn / len(drawn), expected, atol=0.1)


def test_spread_is_the_root_mean_square_of_what_the_decoder_is_unsure_of(learner, digits):
    for name in learner.names:
        path, x = learner.model(name), digits[name].reshape(-1, 784) / np.float32(255)
        z = cvae.encode(path, x).sample(rng=jax.random.key(3))
        mean = np.asarray(cvae.decode_mean(path, z), np.float64)
        expected = np.sqrt((mean * (1 - mean)).mean(axis=0) + cvae.STD_FLOOR**2)
        np.testing.assert_allclose(path.rms_uncertainty, expected, rtol=0.3)
        assert np.corrcoef(path.rms_uncertainty, expected)[0, 1] > 0.99


def test_a_texture_is_large_where_the_decoder_is_unsure(learner, rng):
    path = learner.model("2")
    z = jax.random.normal(rng, (5, learner.config.network.latent_size))
    texture_rng = jax.random.key(9)
    remainders = np.asarray(low_rank_noise.sample(path.low_rank_noise, 5, noise=True, rng=texture_rng), np.float64)
    mean, plain = (np.asarray(f(path, z), np.float64) for f in (cvae.decode_mean, cvae.sample_image))
    unsure = np.sqrt(mean * (1 - mean) + cvae.STD_FLOOR**2) / np.asarray(path.rms_uncertainty)
    expected = np.clip(plain + np.exp(learner.config.network.log_scale) * unsure * remainders, 0, 1)
    drawn = cvae.sample_image(path, z, rng=texture_rng)
    np.testing.assert_allclose(drawn, expected, atol=1e-4)
    assert np.abs(drawn - plain).mean() > 1e-3


def test_what_is_imagined_has_texture_and_memory_has_none(learner, rng):
    path = learner.model("0")
    imagined = lifelong.imagine(learner, ["0"], 200, rng=rng)["0"].reshape(200, -1)
    key = category_rng(rng, "0", 0)
    z, x = sampling.sample_pairs(path, 200, 0, rng=key)
    plain = np.asarray(cvae.sample_image(path, z))
    assert 1e-3 < np.abs(imagined - plain).mean() < 0.1
    assert imagined.min() >= 0
    assert imagined.max() <= 1
    np.testing.assert_allclose(x, cvae.decode_mean(path, z), atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"sample_style": "contrast"}, {"noise_rank": 0}, {"likelihood": "bernoulli"}], ids=str
)
def test_without_texture_a_category_owns_no_spread(small_config, rng, digits, settings):
    config = small_config.with_settings({"noise_rank": 3, **settings})
    state = add_category(lifelong.init(config, (28, 28), rng=rng), "0", rng=rng)
    path = state.model("0")
    assert path.rms_uncertainty is None
    z = jax.random.normal(rng, (2, config.network.latent_size))
    np.testing.assert_array_equal(cvae.sample_image(path, z, rng=rng), cvae.sample_image(path, z))
