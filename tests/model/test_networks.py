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
    """The equations of the module's docstring, in numpy."""
    h1 = silu(dense(mixed["hidden_0"], x))
    g1 = silu(dense(category["hidden_0"], x))
    h2 = silu(dense(mixed["hidden_1"], h1))
    g2 = silu(dense(category["hidden_1"], np.concatenate([h1, g1], axis=1)))
    return np.concatenate([h2, g2], axis=1)


def initialized(module, *inputs):
    """Random values everywhere, also where a module starts with zeros."""
    params = module.init(jax.random.key(1), *inputs)
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    return structure.unflatten([jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)])


def test_encoder_computes_the_equations():
    nets = build_networks(CONFIG, SHAPE, has_mixed=True)
    x = np.random.default_rng(0).random((6, 6)).astype(np.float32)
    mixed = initialized(nets.mixed_encoder, x)
    neurons = nets.mixed_encoder.apply(mixed, x)
    category = initialized(nets.category_encoder, x, neurons)
    mean, log_var = nets.category_encoder.apply(category, x, neurons)

    own = category["params"]
    out = dense(own["posterior"], two_layers(mixed["params"], own["neurons"], x))
    np.testing.assert_allclose(mean, out[:, :2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(log_var, np.clip(out[:, 2:], -8, 8), rtol=1e-4, atol=1e-4)


def test_decoder_computes_the_mirrored_equations_through_a_map_of_low_rank():
    nets = build_networks(CONFIG, SHAPE, has_mixed=True)
    z = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    mixed = initialized(nets.mixed_decoder, z)
    neurons = nets.mixed_decoder.apply(mixed, z)
    category = initialized(nets.category_decoder, z, neurons)
    logits, patches = nets.category_decoder.apply(category, z, neurons)

    assert patches is None
    own = category["params"]
    assert own["neurons"]["hidden_0"]["kernel"].shape == (2, 3)
    assert mixed["params"]["hidden_0"]["kernel"].shape == (2, 5)
    hidden = two_layers(mixed["params"], own["neurons"], z)
    np.testing.assert_allclose(logits, dense(own["pixels"], dense(own["basis"], hidden)), rtol=1e-4, atol=1e-4)
    assert np.linalg.matrix_rank(own["basis"]["kernel"] @ own["pixels"]["kernel"]) == 2


def test_without_a_mixed_part_its_layers_are_absent():
    nets = build_networks(CONFIG, SHAPE, has_mixed=False)
    assert nets.mixed_encoder is None
    x = jnp.ones((1, 6))
    params = nets.category_encoder.init(jax.random.key(0), x, [])["params"]
    assert params["neurons"]["hidden_1"]["kernel"].shape == (4, 3)
    assert params["posterior"]["kernel"].shape == (3, 4)


def test_log_variances_are_clipped():
    nets = build_networks(CONFIG, SHAPE, has_mixed=False)
    x = jnp.ones((1, 6))
    params = jax.tree.map(lambda leaf: 1e3 * jnp.ones_like(leaf), nets.category_encoder.init(jax.random.key(0), x, []))
    assert float(nets.category_encoder.apply(params, x, [])[1].max()) == 8.0
    params = jax.tree.map(jnp.zeros_like, params)
    params["params"]["posterior"]["bias"] = -1e3 * jnp.ones(4)
    assert float(nets.category_encoder.apply(params, x, [])[1].min()) == -8.0


@pytest.mark.parametrize("depth", [1, 3])
def test_any_depth(depth):
    config = NetworkConfig(mixed_widths=(6,) * depth, category_widths=(4,) * depth, output_rank=2, latent_size=2)
    nets = build_networks(config, (4, 4, 3), has_mixed=True)
    x, z = jnp.ones((2, 48)), jnp.ones((2, 2))
    hidden = nets.mixed_encoder.apply(nets.mixed_encoder.init(jax.random.key(0), x), x)
    assert [h.shape for h in hidden] == [(2, 6)] * depth
    neurons = [jnp.ones((2, 6))] * depth
    params = nets.category_decoder.init(jax.random.key(0), z, neurons)
    assert nets.category_decoder.apply(params, z, neurons)[0].shape == (2, 48)


def test_modules_are_hashable_and_equal_by_value():
    first, second = (build_networks(CONFIG, SHAPE, has_mixed=True) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != build_networks(CONFIG, SHAPE, has_mixed=False)


@pytest.mark.parametrize(("growth", "local"), [("neurons", "patches"), ("one_hot", "none")])
def test_in_bfloat16_modules_compute_nearly_the_same_and_give_float32(growth, local):
    config = NetworkConfig(conditioning=growth, local=local, mixed_widths=(32, 16), category_widths=(16, 8))
    exact = build_networks(config, (8, 8, 1), has_mixed=True)
    rough = build_networks(config, (8, 8, 1), has_mixed=True, compute_dtype="bfloat16")
    mixed = exact.init_mixed(rng=jax.random.key(0))
    category = exact.init_category(mixed, jnp.full((64,), 0.5), rng=jax.random.key(1))
    x, z = jax.random.uniform(jax.random.key(2), (20, 64)), jax.random.normal(jax.random.key(3), (20, 8))
    for half, inputs in (("encoder", x), ("decoder", z)):
        results = []
        for nets in (exact, rough):
            shared = nets.mixed_activations(mixed, half, inputs)
            compute = jax.jit(nets.encode if half == "encoder" else nets.decode)
            results.append(jax.tree.leaves(compute(mixed, category, inputs, shared)))
        for one, other in zip(*results, strict=True):
            assert one.dtype == other.dtype == jnp.float32
            np.testing.assert_allclose(other, one, atol=0.02 * float(jnp.abs(one).max()))
        # Fresh decoders draw one image whatever they are given.
        differ = [np.asarray(one != other).any() for one, other in zip(*results, strict=True)]
        assert any(differ) or half == "decoder"
