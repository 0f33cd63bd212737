import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lifelong_cvae.model import cvae, low_rank_noise

fit = jax.jit(low_rank_noise.fit, static_argnums=2)
log_likelihood_gain = jax.jit(low_rank_noise.log_likelihood_gain)
separate_white = jax.jit(low_rank_noise.separate_white)


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
    noise = {"directions": np.float32(directions), "excess": np.float32(excess)}
    expected = colored.logpdf(u) - white.logpdf(u)
    np.testing.assert_allclose(log_likelihood_gain(noise, np.float32(u)), expected, rtol=1e-3, atol=1e-3)


def test_log_likelihood_gain_of_empty_noise_is_zero():
    u = np.float32(np.random.default_rng(0).normal(size=(4, 9)))
    np.testing.assert_array_equal(log_likelihood_gain(low_rank_noise.empty(3, 9), u), np.zeros(4))


def test_fit_recovers_directions_and_shrinks_excess(rng):
    directions, excess = orthonormal(3, 40), np.asarray([30.0, 12.0, 5.0])
    fitted = jax.device_get(fit(sample_residuals(directions, excess, 20_000), 20_000, 3, rng=rng))
    np.testing.assert_allclose(fitted["directions"] @ fitted["directions"].T, np.eye(3), atol=1e-5)
    np.testing.assert_allclose(np.abs(fitted["directions"] @ directions.T), np.eye(3), atol=0.05)
    np.testing.assert_allclose(fitted["excess"], low_rank_noise.SHRINKAGE * excess, rtol=0.05)


def test_fit_matches_eigendecomposition(rng, digits):
    residuals = digits["3"].reshape(-1, 784) / np.float32(255)
    fitted = jax.device_get(fit(residuals, len(residuals), 4, rng=rng))
    residuals = residuals.astype(np.float64)
    values, vectors = np.linalg.eigh(residuals.T @ residuals / len(residuals))
    np.testing.assert_allclose(np.abs(np.sum(fitted["directions"] * vectors[:, :-5:-1].T, axis=1)), 1, atol=1e-3)
    np.testing.assert_allclose(
        fitted["excess"], low_rank_noise.SHRINKAGE * np.maximum(values[:-5:-1] - 1, 0), rtol=1e-3
    )


@pytest.mark.parametrize(("images", "used"), [(19, 0), (20, 1), (59, 2), (1000, 4)])
def test_fit_uses_one_direction_per_twenty_images(rng, images, used):
    residuals = np.zeros((1010, 30), np.float32)
    residuals[:images] = sample_residuals(orthonormal(4, 30), np.full(4, 20.0), images)
    fitted = fit(residuals, images, 4, rng=rng)
    assert (np.asarray(fitted["excess"]) > 0).sum() == used
    assert (np.abs(fitted["directions"]).max(axis=1) > 0).sum() == used
    padded = fit(np.pad(residuals, ((0, 500), (0, 0))), images, 4, rng=rng)
    np.testing.assert_allclose(padded["excess"], fitted["excess"], rtol=1e-4, atol=1e-4)


def test_fit_of_small_residuals_has_no_excess(rng):
    small = 0.3 * sample_residuals(orthonormal(1, 20), np.zeros(1), 400)
    np.testing.assert_array_equal(fit(small, 400, 3, rng=rng)["excess"], np.zeros(3))


def test_separate_white_recovers_covariance(rng):
    directions = orthonormal(2, 20)
    residuals = sample_residuals(directions, np.asarray([12.0, 6.0]), 20_000)
    residuals /= np.sqrt((residuals**2).mean())
    noise, white = separate_white(fit(residuals, 20_000, 4, rng=rng))
    excess, found = np.asarray(noise["excess"]) / low_rank_noise.SHRINKAGE, np.asarray(noise["directions"])
    covariance = float(white) * (np.eye(20) + (found.T * excess) @ found)
    np.testing.assert_allclose(covariance, residuals.T @ residuals / 20_000, atol=0.03)
    np.testing.assert_allclose(np.trace(covariance), 20, rtol=1e-4)


@pytest.mark.parametrize("pixels", [1, 3])
def test_separate_white_of_all_dimensions_is_finite(pixels):
    noise = {"directions": np.eye(pixels, dtype=np.float32), "excess": np.full(pixels, 1e-3, np.float32)}
    noise, white = separate_white(noise)
    assert np.isfinite(np.asarray(noise["excess"])).all()
    assert float(white) > 0


def test_separate_white_of_empty_noise_changes_nothing():
    noise, white = separate_white(low_rank_noise.empty(3, 9))
    assert float(white) == 1
    assert not np.asarray(noise["excess"]).any()


def test_low_rank_noise_makes_test_images_more_likely(learner, mnist5k):
    @jax.jit
    def mean_gain(model, x):
        logits = cvae.decode(model, cvae.encode(model, x).mean)
        without = cvae.CategoryModel(model.mixed, {**model.category, "low_rank_noise": {}}, model.networks)
        return (cvae.log_likelihood(model, x, logits) - cvae.log_likelihood(without, x, logits)).mean()

    for name in learner.names:
        model = learner.model(name)
        assert (np.asarray(model.low_rank_noise["excess"]) > 0).any()
        assert mean_gain(model, mnist5k.read("test", name).reshape(-1, 784) / np.float32(255)) > 1
