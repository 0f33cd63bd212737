import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lifelong_cvae.model import cvae, low_rank_noise


def sample_residuals(directions, excess, count, seed=0):
    """Samples residuals with variance 1 + excess along the directions and 1 elsewhere."""
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(count, len(excess))) * np.sqrt(excess)
    return (weights @ directions + generator.normal(size=(count, directions.shape[1]))).astype(np.float32)


def orthonormal(count, pixels, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(pixels, count)))[0].T


@settings(max_examples=30)
@given(pixels=st.integers(2, 12), count=st.integers(1, 4), scale=st.floats(0, 50), seed=st.integers(0, 2**32 - 1))
def test_log_likelihood_gain_is_log_ratio_of_normal_densities(pixels, count, scale, seed):
    count = min(count, pixels)
    directions = orthonormal(count, pixels, seed)
    excess = scale * np.random.default_rng(seed + 1).random(count)
    u = np.random.default_rng(seed + 2).normal(size=(5, pixels))
    colored = stats.multivariate_normal(cov=np.eye(pixels) + (directions.T * excess) @ directions)
    white = stats.multivariate_normal(cov=np.eye(pixels))
    noise = {"directions": jnp.asarray(directions, jnp.float32), "excess": jnp.asarray(excess, jnp.float32)}
    expected = colored.logpdf(u) - white.logpdf(u)
    np.testing.assert_allclose(
        low_rank_noise.log_likelihood_gain(noise, jnp.asarray(u, jnp.float32)), expected, rtol=1e-3, atol=1e-3
    )


def test_log_likelihood_gain_of_empty_noise_is_zero():
    u = jnp.asarray(np.random.default_rng(0).normal(size=(4, 9)), jnp.float32)
    np.testing.assert_array_equal(low_rank_noise.log_likelihood_gain(low_rank_noise.empty(3, 9), u), np.zeros(4))


def test_fit_recovers_directions_and_shrinks_excess(rng):
    directions, excess = orthonormal(3, 40), np.asarray([30.0, 12.0, 5.0])
    fitted = low_rank_noise.fit(jnp.asarray(sample_residuals(directions, excess, 20_000)), 20_000, 3, rng=rng)
    np.testing.assert_allclose(fitted["directions"] @ fitted["directions"].T, np.eye(3), atol=1e-5)
    np.testing.assert_allclose(np.abs(fitted["directions"] @ directions.T), np.eye(3), atol=0.05)
    np.testing.assert_allclose(fitted["excess"], low_rank_noise.SHRINKAGE * excess, rtol=0.05)


def test_fit_matches_eigendecomposition(rng, digits):
    residuals = digits["3"].reshape(-1, 784) / np.float32(255)
    fitted = low_rank_noise.fit(jnp.asarray(residuals), len(residuals), 4, rng=rng)
    residuals = residuals.astype(np.float64)
    values, vectors = np.linalg.eigh(residuals.T @ residuals / len(residuals))
    np.testing.assert_allclose(np.abs(np.sum(fitted["directions"] * vectors[:, :-5:-1].T, axis=1)), 1, atol=1e-3)
    np.testing.assert_allclose(
        fitted["excess"], low_rank_noise.SHRINKAGE * np.maximum(values[:-5:-1] - 1, 0), rtol=1e-3
    )


@pytest.mark.parametrize(("images", "used"), [(19, 0), (20, 1), (59, 2), (1000, 4)])
def test_fit_uses_one_direction_per_twenty_images(rng, images, used):
    residuals = np.pad(sample_residuals(orthonormal(4, 30), np.full(4, 20.0), images), ((0, 10), (0, 0)))
    fitted = low_rank_noise.fit(jnp.asarray(residuals), images, 4, rng=rng)
    assert (np.asarray(fitted["excess"]) > 0).sum() == used
    assert (np.abs(fitted["directions"]).max(axis=1) > 0).sum() == used
    padded = low_rank_noise.fit(jnp.asarray(np.pad(residuals, ((0, 500), (0, 0)))), images, 4, rng=rng)
    np.testing.assert_allclose(padded["excess"], fitted["excess"], rtol=1e-4, atol=1e-4)


def test_fit_of_small_residuals_has_no_excess(rng):
    small = 0.3 * sample_residuals(orthonormal(1, 20), np.zeros(1), 400)
    np.testing.assert_array_equal(low_rank_noise.fit(jnp.asarray(small), 400, 3, rng=rng)["excess"], np.zeros(3))


def test_separate_white_recovers_covariance(rng):
    directions = orthonormal(2, 20)
    residuals = sample_residuals(directions, np.asarray([12.0, 6.0]), 20_000)
    residuals /= np.sqrt((residuals**2).mean())
    noise, white = low_rank_noise.separate_white(low_rank_noise.fit(jnp.asarray(residuals), 20_000, 4, rng=rng))
    excess, found = np.asarray(noise["excess"]) / low_rank_noise.SHRINKAGE, np.asarray(noise["directions"])
    covariance = float(white) * (np.eye(20) + (found.T * excess) @ found)
    np.testing.assert_allclose(covariance, residuals.T @ residuals / 20_000, atol=0.03)
    np.testing.assert_allclose(np.trace(covariance), 20, rtol=1e-4)


@pytest.mark.parametrize("pixels", [1, 3])
def test_separate_white_of_all_dimensions_is_finite(pixels):
    noise = {"directions": jnp.eye(pixels), "excess": jnp.full((pixels,), 1e-3)}
    noise, white = low_rank_noise.separate_white(noise)
    assert np.isfinite(np.asarray(noise["excess"])).all()
    assert float(white) > 0


def test_separate_white_of_empty_noise_changes_nothing():
    noise, white = low_rank_noise.separate_white(low_rank_noise.empty(3, 9))
    assert float(white) == 1
    assert not np.asarray(noise["excess"]).any()


def test_low_rank_noise_makes_test_images_more_likely(learner, mnist5k):
    for name in learner.names:
        model = learner.model(name)
        assert (np.asarray(model.low_rank_noise["excess"]) > 0).any()
        x = jnp.asarray(mnist5k.read("test", name).reshape(-1, 784) / np.float32(255))
        logits = cvae.decode(model, cvae.encode(model, x).mean)
        without = cvae.CategoryModel(model.mixed, {**model.category, "low_rank_noise": {}}, model.networks)
        gain = cvae.log_likelihood(model, x, logits) - cvae.log_likelihood(without, x, logits)
        assert gain.mean() > 1
