"""Local decoders, compared with loops over patches."""

import jax
import numpy as np
import pytest
from scipy import special

import lifelong_cvae as lifelong
from lifelong_cvae.model.layers import PATCH_CHANNELS, PATCH_SIDE, LocalDecoder
from lifelong_cvae.state import add_category
from tests.compiled import decode
from tests.conftest import assert_trees_equal

SHAPE = (6, 9, 3)  # two rows and three columns of patches, cropped


@pytest.mark.parametrize("form", ["patches", "convolution"])
def test_local_decoder_sums_decoded_patches(form):
    decoder = LocalDecoder(form, SHAPE)
    features = np.random.default_rng(0).normal(size=(2, decoder.inputs)).astype(np.float32)
    params = jax.jit(decoder.init)(jax.random.key(0), features)
    (kernel,) = jax.tree.leaves(params)
    grid = (features * special.expit(features)).reshape(2, 2, 3, PATCH_CHANNELS)
    window = PATCH_SIDE if form == "patches" else 2 * PATCH_SIDE
    margin = (window - PATCH_SIDE) // 2
    canvas = np.zeros((2, 8 + 2 * margin, 12 + 2 * margin, 3))
    for row, column in np.ndindex(2, 3):
        if form == "patches":
            patch = grid[:, row, column] @ np.asarray(kernel)
        else:
            patch = np.einsum("bi,yxio->byxo", grid[:, row, column], np.asarray(kernel)[::-1, ::-1])
        y, x = row * PATCH_SIDE, column * PATCH_SIDE
        canvas[:, y : y + window, x : x + window] += patch.reshape(2, window, window, 3)
    expected = canvas[:, margin : margin + 6, margin : margin + 9].reshape(2, -1)
    np.testing.assert_allclose(jax.jit(decoder.apply)(params, features), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["patches", "convolution"])
def test_local_decoder_is_learned_with_base_categories_then_frozen(small_config, digits, rng, form):
    state = lifelong.init(small_config.with_settings({"local": form}), (28, 28), rng=rng)
    initial = jax.tree.map(np.array, state.params["mixed"]["local"])
    state, _ = lifelong.learn(state, {"0": digits["0"][:60]}, rng=rng)
    (before,), (after,) = jax.tree.leaves(initial), jax.tree.leaves(state.params["mixed"]["local"])
    assert np.abs(after - before).max() > 1e-3
    grown, _ = lifelong.learn(state, {"1": digits["1"][:60]}, rng=rng)
    assert_trees_equal(grown.params["mixed"], state.params["mixed"])
    kernel = grown.params["categories"]["1"]["decoder"]["params"]["patches"]["kernel"]
    assert np.abs(kernel).max() > 1e-3, "the map to patch features belongs to the category and is trained"


def test_local_decoder_belongs_to_category_without_mixed_part(small_config, rng):
    config = small_config.with_settings({"local": "patches", "mixed_mode": "none"})
    state = add_category(lifelong.init(config, (28, 28), rng=rng), "0", rng=rng)
    assert state.params["mixed"] == {}
    assert "local" in state.params["categories"]["0"]
    z = np.zeros((2, config.network.latent_size), np.float32)
    assert decode(state.model("0"), z).shape == (2, 784)
