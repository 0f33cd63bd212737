import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lifelong_cvae.model import pixel_mixture, pixel_model
from lifelong_cvae.model.pixel_windows import Windows, difference_basis

SHAPE, LATENT = (6, 7, 3), 2
NETWORK = pixel_model.PixelNetwork(Windows(SHAPE), (5, 4))
PIXELS = 6 * 7 * 3
log_prob = jax.jit(functools.partial(pixel_model.log_prob, NETWORK))
image_log_prob = jax.jit(functools.partial(pixel_model.image_log_prob, NETWORK))


@pytest.fixture(scope="module")
def params():
    """Random values for all parameters, including those that are initialized with zeros."""
    inputs = np.zeros((1, NETWORK.windows.num_inputs(LATENT)), np.float32)
    start = jax.device_get(jax.jit(NETWORK.init)(jax.random.key(0), inputs))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: leaf + 0.05 * rng.normal(size=leaf.shape).astype(np.float32), start)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    x = (rng.integers(0, 256, (4, PIXELS)) / 255).astype(np.float32)
    return x, rng.random((4, PIXELS)).astype(np.float32), rng.normal(size=(4, LATENT)).astype(np.float32)


def all_positions(count):
    return np.tile(np.arange(42), (count, 1))


def silu(x):
    return x / (1 + np.exp(-x))


def expected_inputs(x, mean, z, position):
    """Collects the inputs of one pixel with loops over rows and columns."""
    row, column = divmod(position, 7)
    residuals, means = (np.pad(v.reshape(SHAPE), ((4, 4), (4, 4), (0, 0))) for v in (x - mean, mean))
    values = []
    for dy in range(-4, 1):
        for dx in range(-4, 5):
            if (dy, dx) < (0, 0):
                values.extend(residuals[row + 4 + dy, column + 4 + dx])
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            values.extend(means[row + 4 + dy, column + 4 + dx] - 0.5)
    return np.array([*values, *z, 2 * row / 6 - 1, 2 * column / 7 - 1])


def expected_outputs(params, inputs):
    params = jax.tree.map(np.asarray, params["params"])
    basis = difference_basis(NETWORK.windows, len(inputs))
    seen = inputs @ basis
    hidden = silu(seen @ params["kernel_0"] + params["bias_0"])
    hidden = silu(hidden @ params["kernel_1"] + params["bias_1"])
    return hidden @ params["kernel"] + seen @ params["linear"] + params["bias"]


def test_log_prob_reads_the_windows_of_a_pixel(params, images):
    x, mean, z = images

    @jax.jit
    def mixture_log_prob(outputs, value, center):
        return pixel_mixture.log_prob(pixel_mixture.mixture(outputs, 3), value, center)

    found = np.asarray(log_prob(params, x, mean, z, all_positions(4)))
    for image, position in [(0, 0), (1, 6), (2, 24), (3, 41)]:
        outputs = expected_outputs(params, expected_inputs(x[image], mean[image], z[image], position))
        value, center = (v[image].reshape(-1, 3)[position][None] for v in (x, mean))
        expected = mixture_log_prob(np.float32(outputs[None]), value, center)[0]
        assert float(found[image, position]) == pytest.approx(float(expected), rel=1e-3, abs=1e-3)


def test_log_prob_does_not_read_later_pixels(params, images):
    x, mean, z = images
    changed = x.copy()
    changed[:, 20 * 3 :] = 1 - changed[:, 20 * 3 :]
    before, after = (np.asarray(log_prob(params, v, mean, z, all_positions(4))) for v in (x, changed))
    np.testing.assert_array_equal(before[:, :20], after[:, :20])
    assert np.all(before[:, 20:] != after[:, 20:])


def test_image_log_prob_sums_over_pixels(params, images):
    expected = np.asarray(log_prob(params, *images, all_positions(4))).sum(axis=1)
    np.testing.assert_allclose(image_log_prob(params, *images), expected, rtol=1e-5)


def test_log_prob_disturbs_the_first_positions_alone(params, images):
    positions = np.tile(np.arange(20, 36), (4, 1))
    plain, disturbed = (
        np.asarray(log_prob(params, *images, positions, disturbance_rng=rng)) for rng in (None, jax.random.key(3))
    )
    assert np.all(plain[:, :2] != disturbed[:, :2])
    np.testing.assert_array_equal(plain[:, 2:], disturbed[:, 2:])


def test_sample_reads_its_own_pixels(params, images, monkeypatch):
    """Without randomness, a sample is what a loop over pixels computes."""

    def most_likely(mixture, center, *, rng):
        return jnp.clip(center + mixture.offsets[:, 0], 0, 1)

    monkeypatch.setattr(pixel_mixture, "sample", most_likely)
    _, mean, z = images
    sample = jax.jit(functools.partial(pixel_model.sample, NETWORK))(params, mean, z, rng=jax.random.key(0))
    expected = mean.astype(np.float64)
    for image in range(4):
        for position in range(42):
            outputs = expected_outputs(params, expected_inputs(expected[image], mean[image], z[image], position))
            pixel = slice(3 * position, 3 * position + 3)
            expected[image, pixel] = np.clip(mean[image, pixel] + outputs[5:8], 0, 1)
    np.testing.assert_allclose(sample, expected, atol=1e-3)


def test_difference_basis_of_a_constant_image_has_single_values_alone():
    windows = Windows(SHAPE)
    basis = difference_basis(windows, windows.num_inputs(LATENT))
    assert np.linalg.matrix_rank(basis) == len(basis)
    inputs = np.concatenate([np.tile([0.1, 0.2, 0.4], 40 + 25), np.zeros(LATENT + 2)])
    seen = inputs @ basis
    # The pixel to the left, and m at the pixel itself: their mean, and two differences of channels.
    expected = np.zeros(len(basis))
    color = 5 * np.array([0.7 / 3, 2 * (0.1 - 0.4), 2 * 0.2 - 0.1 - 0.4])
    expected[39 * 3 : 40 * 3] = color
    expected[(40 + 12) * 3 : (40 + 13) * 3] = color
    np.testing.assert_allclose(seen, expected, atol=1e-6)
