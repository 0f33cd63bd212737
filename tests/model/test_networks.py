import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lifelong_cvae.config import NetworkConfig
from lifelong_cvae.model.networks import build_networks

CONFIG = NetworkConfig(mixed_widths=(7, 5), category_widths=(4, 3), output_rank=2, latent_size=2)
SHAPE = (3, 2, 1)


def silu(x):
    return x / (1 + np.exp(-x))


def dense(params, x):
    return x @ np.asarray(params["kernel"]) + np.asarray(params.get("bias", 0))


def two_layers(mixed, category, x):
    """Computes the equations in the docstring of `layers`, in numpy."""
    h1 = silu(dense(mixed["hidden_0"], x))
    g1 = silu(dense(category["hidden_0"], x))
    h2 = silu(dense(mixed["hidden_1"], h1))
    g2 = silu(dense(category["hidden_1"], np.concatenate([h1, g1], axis=1)))
    return np.concatenate([h2, g2], axis=1)


def random_params(module, *inputs):
    """Returns normal values for all parameters, including those that are initialized with zeros."""
    shapes = jax.eval_shape(module.init, jax.random.key(1), *inputs)
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), shapes)


def apply(module, *arguments):
    return jax.jit(module.apply)(*arguments)


def initialized(module, *inputs):
    return jax.device_get(jax.jit(module.init)(jax.random.key(0), *inputs))


def test_encoder_matches_equations():
    networks = build_networks(CONFIG, SHAPE, has_mixed=True)
    x = np.random.default_rng(0).random((6, 6)).astype(np.float32)
    mixed = random_params(networks.mixed_encoder, x)
    activations = apply(networks.mixed_encoder, mixed, x)
    category = random_params(networks.category_encoder, x, activations)
    mean, log_var = apply(networks.category_encoder, category, x, activations)

    params = category["params"]
    out = dense(params["posterior"], two_layers(mixed["params"], params["neurons"], x))
    np.testing.assert_allclose(mean, out[:, :2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(log_var, np.clip(out[:, 2:], -8, 8), rtol=1e-4, atol=1e-4)


def test_decoder_matches_mirrored_equations_with_low_rank():
    networks = build_networks(CONFIG, SHAPE, has_mixed=True)
    z = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    mixed = random_params(networks.mixed_decoder, z)
    activations = apply(networks.mixed_decoder, mixed, z)
    category = random_params(networks.category_decoder, z, activations)
    logits, patch_features = apply(networks.category_decoder, category, z, activations)

    assert patch_features is None
    params = category["params"]
    assert params["neurons"]["hidden_0"]["kernel"].shape == (2, 3)
    assert mixed["params"]["hidden_0"]["kernel"].shape == (2, 5)
    hidden = two_layers(mixed["params"], params["neurons"], z)
    np.testing.assert_allclose(logits, dense(params["pixels"], dense(params["basis"], hidden)), rtol=1e-4, atol=1e-4)
    assert np.linalg.matrix_rank(params["basis"]["kernel"] @ params["pixels"]["kernel"]) == 2


def test_build_networks_without_mixed_part():
    networks = build_networks(CONFIG, SHAPE, has_mixed=False)
    assert networks.mixed_encoder is None
    x = np.ones((1, 6), np.float32)
    params = initialized(networks.category_encoder, x, [])["params"]
    assert params["neurons"]["hidden_1"]["kernel"].shape == (4, 3)
    assert params["posterior"]["kernel"].shape == (3, 4)


def test_encoder_clips_log_variance():
    networks = build_networks(CONFIG, SHAPE, has_mixed=False)
    x = np.ones((1, 6), np.float32)
    encoder = networks.category_encoder
    params = jax.tree.map(lambda leaf: np.full_like(leaf, 1e3), initialized(encoder, x, []))
    assert float(apply(encoder, params, x, [])[1].max()) == 8.0
    params = jax.tree.map(np.zeros_like, params)
    params["params"]["posterior"]["bias"] = np.full(4, -1e3, np.float32)
    assert float(apply(encoder, params, x, [])[1].min()) == -8.0


@pytest.mark.parametrize("depth", [1, 3])
def test_build_networks_of_any_depth(depth):
    config = NetworkConfig(mixed_widths=(6,) * depth, category_widths=(4,) * depth, output_rank=2, latent_size=2)
    networks = build_networks(config, (4, 4, 3), has_mixed=True)
    x, z = np.ones((2, 48), np.float32), np.ones((2, 2), np.float32)
    hidden = apply(networks.mixed_encoder, initialized(networks.mixed_encoder, x), x)
    assert [h.shape for h in hidden] == [(2, 6)] * depth
    activations = [np.ones((2, 6), np.float32)] * depth
    params = initialized(networks.category_decoder, z, activations)
    assert apply(networks.category_decoder, params, z, activations)[0].shape == (2, 48)


def test_build_networks_is_hashable_and_equal_by_value():
    first, second = (build_networks(CONFIG, SHAPE, has_mixed=True) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != build_networks(CONFIG, SHAPE, has_mixed=False)


@pytest.mark.parametrize(("conditioning", "local"), [("neurons", "patches"), ("one_hot", "none")])
def test_apply_in_bfloat16_is_close_and_returns_float32(conditioning, local):
    config = NetworkConfig(conditioning=conditioning, local=local, mixed_widths=(32, 16), category_widths=(16, 8))
    float32 = build_networks(config, (8, 8, 1), has_mixed=True)
    bfloat16 = build_networks(config, (8, 8, 1), has_mixed=True, compute_dtype="bfloat16")
    mixed = jax.jit(float32.init_mixed)(rng=jax.random.key(0))
    category = jax.jit(float32.init_category)(mixed, np.full(64, 0.5, np.float32), rng=jax.random.key(1))
    rng = np.random.default_rng(2)
    x, z = np.float32(rng.random((20, 64))), np.float32(rng.normal(size=(20, 8)))
    for half, inputs in (("encoder", x), ("decoder", z)):
        results = []
        for networks in (float32, bfloat16):
            activations = jax.jit(networks.mixed_activations, static_argnums=1)(mixed, half, inputs)
            compute = jax.jit(networks.encode if half == "encoder" else networks.decode)
            results.append(jax.device_get(jax.tree.leaves(compute(mixed, category, inputs, activations))))
        for value, rounded in zip(*results, strict=True):
            assert value.dtype == rounded.dtype == jnp.float32
            np.testing.assert_allclose(rounded, value, atol=0.02 * np.abs(value).max())
        # The initial decoder gives the mean image for every z.
        differ = [(value != rounded).any() for value, rounded in zip(*results, strict=True)]
        assert any(differ) or half == "decoder"
