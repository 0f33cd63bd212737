import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import lifelong_cvae as lifelong
from lifelong_cvae import sampling
from lifelong_cvae.model import cvae, mixture_prior
from lifelong_cvae.state import add_category, category_rng, parameters_per_category
from tests.conftest import assert_trees_equal, one_line
from tests.model.test_networks import silu

SHAPE = (5, 4)
NAMES = ("b", "ä/c", "a")


def filled(config, seed=3):
    """Random values everywhere, also where a layer starts with zeros."""
    rng = jax.random.key(seed)
    state = lifelong.init(config, SHAPE, rng=rng)
    for name in NAMES:
        state = add_category(state, name, rng=rng)
    leaves, structure = jax.tree.flatten(state.params)
    keys = jax.random.split(rng, len(leaves))
    values = [0.7 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return state.replace(params=structure.unflatten(values))


@pytest.fixture(scope="module")
def config(small_config):
    settings = {
        "conditioning": "one_hot",
        "noise_scale": "own",
        "mixed_widths": "7,6",
        "category_widths": "1,1",
        "latent_size": "3",
    }
    return small_config.with_settings(settings)


@pytest.fixture(scope="module")
def state(config):
    return filled(config)


def one_hot_network(state, half, inputs, category):
    """A plain network that reads [inputs; onehot(category)]: its first layer has a row per category."""
    layers = state.params["mixed"][half]["params"]
    rows = [state.params["categories"][name][half]["vector"] for name in state.names]
    kernels = [np.concatenate([layers["hidden_0"]["kernel"], rows])]
    kernels += [np.asarray(layers[name]["kernel"]) for name in ("hidden_1", "last")]
    biases = [np.asarray(layers[name]["bias"]) for name in ("hidden_0", "hidden_1", "last")]
    values = np.concatenate([inputs, np.tile(np.eye(len(rows))[category], (len(inputs), 1))], axis=1)
    for kernel, bias in zip(kernels[:-1], biases[:-1], strict=True):
        values = silu(values @ kernel + bias)
    return values @ kernels[-1] + biases[-1]


@pytest.mark.parametrize("category", range(3))
def test_encoder_and_decoder_are_those_of_a_one_hot_cvae(state, category):
    path = state.model(NAMES[category])
    generator = np.random.default_rng(category)
    x, z = generator.random((6, 20)), generator.normal(size=(6, 3))
    mean, log_var = cvae.encode(path, jnp.asarray(x, jnp.float32))
    expected = one_hot_network(state, "encoder", x, category)
    np.testing.assert_allclose(mean, expected[:, :3], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_var, np.clip(expected[:, 3:], -8, 8), rtol=1e-4, atol=1e-5)
    drawn = cvae.decode_mean(path, jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(drawn, special.expit(one_hot_network(state, "decoder", z, category)), atol=1e-5)


def test_categories_differ_by_their_vectors_alone(state):
    x = jnp.full((1, 20), 0.5)
    means = [cvae.encode(state.model(name), x).mean for name in NAMES]
    assert all(float(jnp.abs(means[a] - means[b]).max()) > 0.01 for a, b in ((0, 1), (1, 2), (0, 2)))
    swapped = dict(zip(NAMES, (state.params["categories"][name] for name in reversed(NAMES)), strict=True))
    other = state.replace(params={**state.params, "categories": swapped})
    np.testing.assert_array_equal(cvae.encode(other.model("a"), x).mean, means[0])


def test_after_another_one_is_appended_a_category_computes_bitwise_the_same(state):
    after = add_category(state, "new", rng=jax.random.key(5))
    x, z = jnp.full((4, 20), 0.3), jnp.ones((4, 3))
    for name in NAMES:
        assert_trees_equal(cvae.encode(after.model(name), x), cvae.encode(state.model(name), x))
        assert_trees_equal(cvae.decode(after.model(name), z), cvae.decode(state.model(name), z))
    for index, name in enumerate(NAMES):
        expected = one_hot_network(after, "decoder", np.ones((4, 3)), index)
        np.testing.assert_allclose(cvae.decode(after.model(name), z), expected, rtol=1e-4, atol=1e-4)


def test_a_subtree_is_its_two_vectors_and_nothing_else(state):
    for subtree in state.params["categories"].values():
        assert {half: values for half, values in subtree.items() if jax.tree.leaves(values)} == {
            half: {"vector": subtree[half]["vector"]} for half in ("encoder", "decoder")
        }
        shapes = [leaf.shape for leaf in jax.tree.leaves(subtree)]
        # The decoder mirrors the encoder's widths 7 and 6.
        assert shapes == [(6,), (7,)]
    assert parameters_per_category(state) == 13


def test_the_scale_is_mixed_and_the_prior_standard_normal(state):
    assert state.params["mixed"]["scale"]["log_scale"].shape == (20,)
    assert_trees_equal(state.model("a").prior, mixture_prior.standard_normal(3))
    x, logits = jnp.full((2, 20), 0.4), jnp.zeros((2, 20))
    values = [cvae.log_likelihood(state.model(name), x, logits) for name in NAMES]
    assert_trees_equal(values[0], values[1])
    scale = {"log_scale": state.params["mixed"]["scale"]["log_scale"] + 3.0}
    louder = state.replace(params={**state.params, "mixed": {**state.params["mixed"], "scale": scale}})
    for name, before in zip(NAMES, values, strict=True):
        assert float(jnp.abs(cvae.log_likelihood(louder.model(name), x, logits) - before).min()) > 1


@pytest.mark.parametrize("settings", [{"likelihood": "bernoulli"}, {"noise_scale": "shared"}])
def test_a_scale_that_is_not_learned_is_no_parameter(config, settings):
    state = lifelong.init(config.with_settings(settings), SHAPE, rng=jax.random.key(0))
    assert state.params["mixed"]["scale"] == {}


def test_without_a_mixed_part_it_is_refused(config):
    with pytest.raises(lifelong.InputError) as caught:
        config.with_settings({"mixed_mode": "none"})
    one_line(caught, "growth=vectors", "mixed_mode=none")


@pytest.fixture(scope="module", params=["free", "playback", "frozen"])
def trained(request, small_config, digits, rng):
    """0 and 1 in one task, then 2, and the report of each task."""
    config = small_config.with_settings(
        {"conditioning": "one_hot", "noise_scale": "own", "mixed_mode": request.param, "base_categories": 2}
    )
    states, reports = [lifelong.init(config, (28, 28), rng=rng)], []
    for names in ("01", "2"):
        state, report = lifelong.learn(states[-1], {name: digits[name] for name in names}, rng=rng)
        states.append(state)
        reports.append(report)
    return states, reports


def test_learning_keeps_old_vectors_and_moves_what_is_mixed(trained):
    (_, first, second), reports = trained
    mode = first.config.learning.mixed_mode
    for name in "01":
        assert_trees_equal(second.params["categories"][name], first.params["categories"][name])
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), second.params["mixed"], first.params["mixed"])
    assert set(jax.tree.leaves(moved)) == {mode != "frozen"}
    terms = {"real", "playback", "generate", "recognize", "circulate"}
    assert set(reports[1].terms) == (terms if mode == "playback" else {"real"})
    assert reports[1].parameters_per_category == 2 * 32
    fresh = add_category(first, "2", rng=jax.random.key(0)).params["categories"]["2"]
    for half in ("encoder", "decoder"):
        assert (second.params["categories"]["2"][half]["vector"] != fresh[half]["vector"]).any()


def test_trained_vectors_imagine_weigh_and_reconstruct(trained, digits, rng):
    state = trained[0][-1]
    drawn = lifelong.imagine(state, ["2", "0"], 3, rng=rng, cycles=1)
    z = mixture_prior.sample(mixture_prior.standard_normal(4), 3, rng=jax.random.split(category_rng(rng, "0", 0))[0])
    assert drawn["0"].shape == (3, 28, 28, 1)
    assert 0 <= float(drawn["0"].min()) < float(drawn["0"].max()) <= 1
    straight = lifelong.imagine(state, ["0"], 3, rng=rng)["0"].reshape(3, -1)
    np.testing.assert_allclose(straight, cvae.decode_mean(state.model("0"), z), rtol=1e-4, atol=1e-5)

    images = digits["0"][:6]
    values = lifelong.evidence(state, images)
    assert values.shape == (6, 3)
    x = jnp.asarray(images.reshape(6, -1) / np.float32(255))
    for column, name in enumerate(state.names):
        path = state.model(name)
        posterior = cvae.encode(path, x)
        np.testing.assert_allclose(values[:, column], cvae.elbo_at(path, x, posterior, posterior.mean), rtol=1e-4)
    names, probabilities = lifelong.recognize(state, images)
    assert set(names) <= set("012")
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert sampling.reconstruct(state, "0", images).shape == images.shape


def test_trained_vectors_survive_saving_and_dropping(trained, tmp_path, digits):
    state = trained[0][-1]
    lifelong.save(state, tmp_path / "state")
    loaded = lifelong.load(tmp_path / "state")
    assert_trees_equal(loaded, state)
    dropped = lifelong.drop(loaded, "1")
    assert dropped.names == ("0", "2")
    assert set(dropped.params["categories"]) == {"0", "2"}
    both = lifelong.evidence(state, digits["2"][:4])
    np.testing.assert_allclose(lifelong.evidence(dropped, digits["2"][:4]), both[:, [0, 2]], rtol=1e-5)
