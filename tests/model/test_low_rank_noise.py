import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lifelong_cvae.model import cvae, low_rank_noise


def planted(directions, excess, count, seed=0):
    """Remainders whose variance is 1, and 1 + excess along the directions."""
    numbers = np.random.default_rng(seed)
    along = numbers.normal(size=(count, len(excess))) * np.sqrt(excess)
    return (along @ directions + numbers.normal(size=(count, directions.shape[1]))).astype(np.float32)


def orthonormal(count, pixels, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(pixels, count)))[0].T


@settings(max_examples=30)
@given(
    pixels=st.integers(2, 12),
    count=st.integers(1, 4),
    spread=st.floats(0, 50),
    seed=st.integers(0, 2**32 - 1),
)
def test_gain_is_the_ratio_of_two_normal_densities(pixels, count, spread, seed):
    count = min(count, pixels)
    directions = orthonormal(count, pixels, seed)
    excess = spread * np.random.default_rng(seed + 1).random(count)
    u = np.random.default_rng(seed + 2).normal(size=(5, pixels))
    colored = stats.multivariate_normal(cov=np.eye(pixels) + (directions.T * excess) @ directions)
    white = stats.multivariate_normal(cov=np.eye(pixels))
    known = {"directions": jnp.asarray(directions, jnp.float32), "excess": jnp.asarray(excess, jnp.float32)}
    expected = colored.logpdf(u) - white.logpdf(u)
    np.testing.assert_allclose(
        low_rank_noise.log_likelihood_gain(known, jnp.asarray(u, jnp.float32)), expected, rtol=1e-3, atol=1e-3
    )


def test_blank_factors_gain_nothing():
    u = jnp.asarray(np.random.default_rng(0).normal(size=(4, 9)), jnp.float32)
    np.testing.assert_array_equal(low_rank_noise.log_likelihood_gain(low_rank_noise.empty(3, 9), u), np.zeros(4))


def test_directions_of_large_variance_are_found_and_half_their_excess_is_believed(rng):
    directions, excess = orthonormal(3, 40), np.asarray([30.0, 12.0, 5.0])
    found = low_rank_noise.fit(jnp.asarray(planted(directions, excess, 20_000)), 20_000, 3, rng=rng)
    np.testing.assert_allclose(found["directions"] @ found["directions"].T, np.eye(3), atol=1e-5)
    np.testing.assert_allclose(np.abs(found["directions"] @ directions.T), np.eye(3), atol=0.05)
    np.testing.assert_allclose(found["excess"], low_rank_noise.SHRINKAGE * excess, rtol=0.05)


def test_directions_are_those_of_an_eigendecomposition(rng, digits):
    remainders = digits["3"].reshape(-1, 784) / np.float32(255)
    found = low_rank_noise.fit(jnp.asarray(remainders), len(remainders), 4, rng=rng)
    remainders = remainders.astype(np.float64)
    values, vectors = np.linalg.eigh(remainders.T @ remainders / len(remainders))
    np.testing.assert_allclose(np.abs(np.sum(found["directions"] * vectors[:, :-5:-1].T, axis=1)), 1, atol=1e-3)
    np.testing.assert_allclose(found["excess"], low_rank_noise.SHRINKAGE * np.maximum(values[:-5:-1] - 1, 0), rtol=1e-3)


@pytest.mark.parametrize(("images", "used"), [(19, 0), (20, 1), (59, 2), (1000, 4)])
def test_a_direction_stands_for_twenty_images_and_padding_counts_for_none(rng, images, used):
    remainders = np.pad(planted(orthonormal(4, 30), np.full(4, 20.0), images), ((0, 10), (0, 0)))
    found = low_rank_noise.fit(jnp.asarray(remainders), images, 4, rng=rng)
    assert (np.asarray(found["excess"]) > 0).sum() == used
    assert (np.abs(found["directions"]).max(axis=1) > 0).sum() == used
    longer = low_rank_noise.fit(jnp.asarray(np.pad(remainders, ((0, 500), (0, 0)))), images, 4, rng=rng)
    np.testing.assert_allclose(longer["excess"], found["excess"], rtol=1e-4, atol=1e-4)


def test_noise_that_is_whiter_than_the_scale_has_no_excess(rng):
    quiet = 0.3 * planted(orthonormal(1, 20), np.zeros(1), 400)
    np.testing.assert_array_equal(low_rank_noise.fit(jnp.asarray(quiet), 400, 3, rng=rng)["excess"], np.zeros(3))


def test_a_learned_category_explains_unseen_images_better_with_its_factors(learner, mnist5k):
    for name in learner.names:
        path = learner.model(name)
        assert (np.asarray(path.low_rank_noise["excess"]) > 0).any()
        x = jnp.asarray(mnist5k.read("test", name).reshape(-1, 784) / np.float32(255))
        logits = cvae.decode(path, cvae.encode(path, x).mean)
        without = cvae.CategoryModel(path.mixed, {**path.category, "low_rank_noise": {}}, path.networks)
        gained = cvae.log_likelihood(path, x, logits) - cvae.log_likelihood(without, x, logits)
        assert gained.mean() > 1
