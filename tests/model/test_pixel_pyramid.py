import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.model import cvae, pixel_model, pixel_pyramid

SIDE, COUNT = 8, 256
PYRAMID = pixel_pyramid.PixelPyramid((10, 9, 1), (4,), 2)
SETTINGS = {
    "mixed_mode": "none",
    "mixed_widths": "8",
    "category_widths": "8",
    "pixel_widths": "32",
    "latent_size": 2,
    "prior_components": 1,
    "noise_rank": 0,
    "sample_style": "pixels",
    "bound": "pixels",
    "recognizer": "elbo",
    "random_features": 0,
    "min_steps": 300,
    "epochs": 1,
    "batch_size": 32,
    "learning_rate": 0.005,
}


def stripes(count, *, seed):
    """Returns images of horizontal stripes of random phase and period, whose mean is gray."""
    rng = np.random.default_rng(seed)
    phase, period = rng.integers(0, 4, (count, 1, 1)), rng.integers(3, 5, (count, 1, 1))
    images = (np.arange(SIDE)[None, :, None] + phase) // 2 % period % 2 * np.ones((1, 1, SIDE))
    return (200 * images + rng.integers(0, 40, images.shape)).astype(np.uint8)[..., None]


@pytest.fixture(scope="module")
def learner():
    """Learned horizontal stripes, then vertical ones."""
    state = lifelong.init(lifelong.preset("default").with_settings(SETTINGS), (SIDE, SIDE, 1), rng=jax.random.key(0))
    images = stripes(COUNT, seed=0)
    first, _ = lifelong.learn(state, {"rows": images}, rng=jax.random.key(0))
    both, _ = lifelong.learn(first, {"columns": images.swapaxes(1, 2)}, rng=jax.random.key(0))
    return first, both


def test_pixels_recognize_textures(learner):
    images = stripes(100, seed=1)
    for name, values in [("rows", images), ("columns", images.swapaxes(1, 2))]:
        names, _ = lifelong.recognize(learner[1], values)
        assert np.mean(names == name) > 0.95


def test_evidence_by_pixels_adds_the_likelihood_of_the_decoder(learner):
    images, state = stripes(5, seed=3), learner[1]
    model, x = state.model("rows"), images.reshape(5, -1).astype(np.float32) / 255

    @jax.jit
    def posterior_and_likelihood(model, x):
        posterior = cvae.encode(model, x)
        data = (model.pixels, x, cvae.decode_mean(model, posterior.mean), posterior.mean)
        return posterior, pixel_pyramid.image_log_prob(model.networks.pixel_pyramid, *data, partial=True)

    posterior, likelihood = jax.device_get(posterior_and_likelihood(model, x))
    prior_mean, prior_log_var = (np.asarray(model.prior[key][0], np.float64) for key in ("means", "log_vars"))
    squares = np.exp(posterior.log_var) + np.square(posterior.mean - prior_mean[None])
    kl = 0.5 * np.sum(squares / np.exp(prior_log_var) - 1 + prior_log_var - posterior.log_var, axis=1)
    by_decoder = state.replace(config=state.config.with_settings({"bound": "mean"}))
    expected = likelihood - kl + 0.5 * lifelong.evidence(by_decoder, images)[:, 0]
    np.testing.assert_allclose(lifelong.evidence(state, images)[:, 0], expected, rtol=1e-4)


def test_pixels_draw_textures(learner):
    imagined = lifelong.imagine(learner[1], ["rows", "columns"], 64, rng=jax.random.key(1))
    real = stripes(64, seed=2) / 255
    for images in (np.asarray(imagined["rows"]), np.asarray(imagined["columns"]).swapaxes(1, 2)):
        across, along = (np.abs(np.diff(images, axis=axis)).mean() for axis in (1, 2))
        assert across > 2 * along
        assert across == pytest.approx(np.abs(np.diff(real, axis=1)).mean(), rel=0.4)


def test_pixels_of_a_learned_category_stay_the_same(learner):
    first, both = (state.params["categories"]["rows"]["pixels"] for state in learner)
    jax.tree.map(np.testing.assert_array_equal, first, both)


image_log_prob = jax.jit(functools.partial(pixel_pyramid.image_log_prob, PYRAMID), static_argnames="partial")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32),
        jax.device_get(jax.jit(PYRAMID.init)(rng=jax.random.key(0))),
    )
    x = (rng.integers(0, 256, (3, 90)) / 255).astype(np.float32)
    return params, x, rng.random((3, 90)).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32)


def resize(rows, before, after):
    return jax.image.resize(rows.reshape(3, *before, 1), (3, *after, 1), "cubic").reshape(3, -1)


def all_levels(x, mean):
    """Returns values, centers and parameters' names of the three levels, step by step."""
    sizes = {"small": (3, 3), "middle": (5, 5), "full": (10, 9)}
    values = {level: jnp.round(jnp.clip(resize(x, (10, 9), size), 0, 1) * 255) / 255 for level, size in sizes.items()}
    means = {level: resize(mean, (10, 9), size) for level, size in sizes.items()}
    centers = {"small": means["small"]}
    for before, level in (("small", "middle"), ("middle", "full")):
        enlarged = (resize(images[before], sizes[before], sizes[level]) for images in (values, means))
        centers[level] = means[level] + next(enlarged) - next(enlarged)
    return [(level, values[level], centers[level]) for level in sizes]


def test_image_log_prob_adds_all_levels(data):
    @jax.jit
    def step_by_step(params, x, mean, z):
        return sum(
            pixel_model.image_log_prob(PYRAMID.networks[level], params[level], values, center, z)
            for level, values, center in all_levels(x, mean)
        )

    np.testing.assert_allclose(image_log_prob(*data), step_by_step(*data), rtol=1e-5)


def test_image_log_prob_in_part_has_fewer_factors_of_larger_images(data):
    rows_and_columns = {"small": ((0, 1, 2),) * 2, "middle": ((1, 3),) * 2, "full": ((2, 6), (2, 6))}

    @jax.jit
    def step_by_step(params, x, mean, z):
        total = jnp.zeros(3)
        for level, values, center in all_levels(x, mean):
            width = {"small": 3, "middle": 5, "full": 9}[level]
            rows, columns = rows_and_columns[level]
            positions = np.tile([row * width + column for row in rows for column in columns], (3, 1))
            network = PYRAMID.networks[level]
            total += pixel_model.log_prob(network, params[level], values, center, z, positions).sum(axis=1)
        return total

    np.testing.assert_allclose(image_log_prob(*data, partial=True), step_by_step(*data), rtol=1e-5)


def test_log_prob_of_all_pixels_is_that_of_the_image(data):
    positions = {
        level: np.tile(np.arange(network.windows.positions), (3, 1)) for level, network in PYRAMID.networks.items()
    }
    estimated = jax.jit(functools.partial(pixel_pyramid.log_prob, PYRAMID))(*data, positions)
    np.testing.assert_allclose(estimated, image_log_prob(*data), rtol=1e-5)


def test_sample_has_8_bit_values(data):
    params, _, mean, z = data
    samples = jax.jit(functools.partial(pixel_pyramid.sample, PYRAMID))(params, mean, z, rng=jax.random.key(0))
    samples = np.asarray(samples)
    assert samples.shape == (3, 90)
    assert samples.min() >= 0
    assert samples.max() <= 1
    np.testing.assert_allclose(samples * 255, np.round(samples * 255), atol=1e-3)
