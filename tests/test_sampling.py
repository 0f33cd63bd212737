import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import sampling
from lifelong_cvae.state import category_rng
from tests.compiled import circulate, decode_mean, encode, sample_image, sample_prior
from tests.conftest import assert_trees_equal


@pytest.fixture
def state(learner):
    return learner


def test_imagine_returns_float_images_in_unit_range(state, rng):
    images = lifelong.imagine(state, ["0", "1"], 7, rng=rng)
    assert list(images) == ["0", "1"]
    for values in images.values():
        assert (values.shape, values.dtype) == ((7, 28, 28, 1), jnp.float32)
        assert 0 <= float(values.min()) <= float(values.max()) <= 1
    assert lifelong.imagine(state, ["0"], 0, rng=rng)["0"].shape == (0, 28, 28, 1)


def test_imagine_returns_images_like_their_category(state, digits, rng):
    images = lifelong.imagine(state, ["0", "1"], 200, rng=rng)
    means = {name: digits[name].mean(axis=0) / 255 for name in "01"}
    for name, other in (("0", "1"), ("1", "0")):
        imagined = np.asarray(images[name]).mean(axis=0)
        assert np.square(imagined - means[name]).mean() < 0.2 * np.square(imagined - means[other]).mean()


@pytest.mark.parametrize("cycles", [0, 2])
def test_imagine_does_not_depend_on_other_categories(state, rng, cycles):
    both = lifelong.imagine(state, ["1", "0"], 5, rng=rng, cycles=cycles)
    alone = lifelong.imagine(state, ["0"], 5, rng=rng, cycles=cycles)
    assert_trees_equal(alone["0"], both["0"])
    reseeded = lifelong.imagine(state, ["0"], 5, rng=jax.random.key(5), cycles=cycles)
    assert not np.array_equal(reseeded["0"], alone["0"])


@pytest.mark.parametrize("temperature", [1.0, 1.3])
def test_imagine_follows_prior_decoder_and_circle(state, temperature, rng):
    state = state.replace(config=state.config.with_settings({"sample_temperature": temperature}))
    model = state.model("0")
    name_rng = category_rng(rng, "0", 0)
    latent_rng, circle_rng = jax.random.split(name_rng)
    z = sample_prior(model.category["prior"], 3, temperature=temperature, rng=latent_rng)
    z_after, x_after = circulate(model, z, decode_mean(model, z), 1, rng=circle_rng)
    expected = sample_image(model, z_after, rng=jax.random.fold_in(name_rng, 2))
    np.testing.assert_allclose(decode_mean(model, z_after), x_after, rtol=1e-5, atol=1e-6)
    images = lifelong.imagine(state, ["0"], 3, rng=rng, cycles=1)["0"]
    np.testing.assert_allclose(images.reshape(3, -1), expected, rtol=1e-4, atol=1e-5)


def test_imagine_works_inside_jit(state, rng):
    inside = jax.jit(lambda s, key: lifelong.imagine(s, ["0", "1"], 3, rng=key))(state, rng)
    outside = lifelong.imagine(state, ["0", "1"], 3, rng=rng)
    for name, images in inside.items():
        np.testing.assert_allclose(images, outside[name], rtol=1e-4, atol=1e-5)


def test_reconstruct_is_nearer_than_mean_image(state, mnist5k):
    images = mnist5k.read("test", "0")
    reconstructed = np.asarray(sampling.reconstruct(state, "0", images))
    assert reconstructed.shape == images.shape
    x = images / np.float32(255)
    assert np.square(reconstructed - x).mean() < 0.8 * np.square(x.mean(axis=0) - x).mean()


def test_imagine_refuses_bad_requests(state, rng):
    with pytest.raises(lifelong.InputError, match="unknown category: expected one of 2, 0, 1, got '7'"):
        lifelong.imagine(state, ["7"], 1, rng=rng)
    with pytest.raises(lifelong.InputError, match="categories: expected each one once, got 1, 1"):
        lifelong.imagine(state, ["1", "1"], 1, rng=rng)
    with pytest.raises(lifelong.InputError, match="count: expected at least 0, got -1"):
        lifelong.imagine(state, ["1"], -1, rng=rng)
    with pytest.raises(lifelong.InputError, match="cycles: expected at least 0, got -2"):
        lifelong.imagine(state, ["1"], 1, rng=rng, cycles=-2)
    with pytest.raises(lifelong.InputError, match="expected at least one category, got none"):
        lifelong.imagine(state, [], 1, rng=rng)


def test_encode_returns_means_of_the_posterior(state, mnist5k):
    images = mnist5k.read("test", "0")[:3]
    x = images.reshape(3, -1) / np.float32(255)
    codes = lifelong.encode(state, "0", images)
    assert (codes.shape, codes.dtype) == ((3, 4), jnp.float32)
    np.testing.assert_allclose(codes, encode(state.model("0"), x).mean, atol=1e-4)
    np.testing.assert_allclose(lifelong.encode(state, "0", images / np.float64(255)), codes, atol=1e-4)


def test_decode_of_encoded_images_equals_reconstruct(state, mnist5k):
    images = mnist5k.read("test", "1")[:5]
    decoded = lifelong.decode(state, "1", lifelong.encode(state, "1", images))
    np.testing.assert_allclose(decoded, sampling.reconstruct(state, "1", images), atol=1e-5)
    assert lifelong.decode(state, "1", np.zeros((0, 4))).shape == (0, 28, 28, 1)


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (np.zeros((2, 5)), r"codes: expected numbers \[n, 4\], got float64 \(2, 5\)"),
        (np.zeros(4), r"got float64 \(4,\)"),
        ([["a"] * 4], r"got <U1 \(1, 4\)"),
        (np.full((1, 4), np.nan), "expected finite numbers"),
    ],
)
def test_decode_refuses_other_codes(state, codes, words):
    with pytest.raises(lifelong.InputError, match=words):
        lifelong.decode(state, "0", codes)


def test_encode_and_decode_refuse_unknown_categories(state, mnist5k):
    for call, value in ((lifelong.encode, mnist5k.read("test", "0")), (lifelong.decode, np.zeros((1, 4)))):
        with pytest.raises(lifelong.InputError, match="unknown category: expected one of 2, 0, 1, got '7'"):
            call(state, "7", value)


def test_encode_refuses_almost_black_bytes(state):
    with pytest.raises(lifelong.InputError, match="which would be almost black"):
        lifelong.encode(state, "0", np.ones((2, 28, 28), np.uint8))
