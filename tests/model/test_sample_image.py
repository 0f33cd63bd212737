"""Texture of sampled images, and samples of low-rank noise."""

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import sampling
from lifelong_cvae.model import cvae, low_rank_noise
from lifelong_cvae.state import add_category, category_rng
from tests.compiled import decode_mean, encode_and_sample, sample_image

sample_noise = jax.jit(low_rank_noise.sample, static_argnums=1, static_argnames="noise")


@pytest.fixture(scope="module")
def noise_params():
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 3)))[0].T
    return {"directions": np.float32(directions), "excess": np.float32([4.0, 1.0, 0.0])}


@pytest.mark.parametrize("noise", [False, True])
def test_sample_has_unshrunk_covariance(noise_params, rng, noise):
    samples = np.asarray(sample_noise(noise_params, 100_000, noise=noise, rng=rng), np.float64)
    variances = np.asarray(noise_params["excess"]) / low_rank_noise.SHRINKAGE + (noise * np.asarray([1, 1, 0]))
    expected = (np.asarray(noise_params["directions"]).T * variances) @ np.asarray(noise_params["directions"])
    np.testing.assert_allclose(samples.T @ samples / len(samples), expected, atol=0.1)


def test_rms_uncertainty_matches_decoder_uncertainty(learner, digits):
    for name in learner.names:
        model, x = learner.model(name), digits[name].reshape(-1, 784) / np.float32(255)
        z = encode_and_sample(model, x, rng=jax.random.key(3))
        mean = np.asarray(decode_mean(model, z), np.float64)
        expected = np.sqrt((mean * (1 - mean)).mean(axis=0) + cvae.STD_FLOOR**2)
        np.testing.assert_allclose(model.rms_uncertainty, expected, rtol=0.3)
        assert np.corrcoef(model.rms_uncertainty, expected)[0, 1] > 0.99


def test_sample_image_has_texture_where_decoder_is_uncertain(learner, rng):
    model = learner.model("2")
    z = jax.random.normal(rng, (5, learner.config.network.latent_size))
    texture_rng = jax.random.key(9)
    residuals = np.asarray(sample_noise(model.low_rank_noise, 5, noise=True, rng=texture_rng), np.float64)
    mean, plain = (np.asarray(f(model, z), np.float64) for f in (decode_mean, sample_image))
    relative_uncertainty = np.sqrt(mean * (1 - mean) + cvae.STD_FLOOR**2) / np.asarray(model.rms_uncertainty)
    expected = np.clip(plain + np.exp(learner.config.network.log_scale) * relative_uncertainty * residuals, 0, 1)
    image = sample_image(model, z, rng=texture_rng)
    np.testing.assert_allclose(image, expected, atol=1e-4)
    assert np.abs(image - plain).mean() > 1e-3


def test_imagine_has_texture_and_sample_pairs_has_none(learner, rng):
    model = learner.model("0")
    imagined = lifelong.imagine(learner, ["0"], 200, rng=rng)["0"].reshape(200, -1)
    key = category_rng(rng, "0", 0)
    z, x = jax.jit(sampling.sample_pairs, static_argnums=(1, 2))(model, 200, 0, rng=key)
    plain = np.asarray(sample_image(model, z))
    assert 1e-3 < np.abs(imagined - plain).mean() < 0.1
    assert imagined.min() >= 0
    assert imagined.max() <= 1
    np.testing.assert_allclose(x, decode_mean(model, z), atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"sample_style": "contrast"}, {"noise_rank": 0}, {"likelihood": "bernoulli"}], ids=str
)
def test_sample_image_without_texture_ignores_rng(small_config, rng, digits, settings):
    config = small_config.with_settings({"noise_rank": 3, **settings})
    state = add_category(lifelong.init(config, (28, 28), rng=rng), "0", rng=rng)
    model = state.model("0")
    assert model.rms_uncertainty is None
    z = jax.random.normal(rng, (2, config.network.latent_size))
    np.testing.assert_array_equal(sample_image(model, z, rng=rng), sample_image(model, z))
