import jax
import numpy as np
import pytest
from scipy import special

import lifelong_cvae as lifelong
from lifelong_cvae import sampling
from lifelong_cvae.model import mixture_prior
from lifelong_cvae.state import add_category, category_rng, parameters_per_category
from tests.compiled import decode, decode_mean, elbo_at, encode, log_likelihood, sample_prior
from tests.conftest import assert_trees_equal, one_line
from tests.model.test_networks import silu

SHAPE = (5, 4)
NAMES = ("b", "ä/c", "a")


def random_state(config, seed=3):
    """Returns a state with normal values for all parameters, including those that are initialized with zeros."""
    rng = jax.random.key(seed)
    state = lifelong.init(config, SHAPE, rng=rng)
    for name in NAMES:
        state = add_category(state, name, rng=rng)
    generator = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: np.float32(0.7 * generator.normal(size=leaf.shape)), state.params)
    return state.replace(params=params)


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
    return random_state(config)


def one_hot_network(state, half, inputs, category):
    """Computes a plain network of [inputs; onehot(category)] in numpy. Its first layer has a row per category."""
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
def test_encode_and_decode_match_one_hot_cvae(state, category):
    model = state.model(NAMES[category])
    generator = np.random.default_rng(category)
    x, z = generator.random((6, 20)), generator.normal(size=(6, 3))
    mean, log_var = encode(model, np.float32(x))
    expected = one_hot_network(state, "encoder", x, category)
    np.testing.assert_allclose(mean, expected[:, :3], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_var, np.clip(expected[:, 3:], -8, 8), rtol=1e-4, atol=1e-5)
    decoded = decode_mean(model, np.float32(z))
    np.testing.assert_allclose(decoded, special.expit(one_hot_network(state, "decoder", z, category)), atol=1e-5)


def test_encode_differs_only_by_category_vectors(state):
    x = np.full((1, 20), 0.5, np.float32)
    means = [np.asarray(encode(state.model(name), x).mean) for name in NAMES]
    assert all(np.abs(means[a] - means[b]).max() > 0.01 for a, b in ((0, 1), (1, 2), (0, 2)))
    swapped = dict(zip(NAMES, (state.params["categories"][name] for name in reversed(NAMES)), strict=True))
    other = state.replace(params={**state.params, "categories": swapped})
    np.testing.assert_array_equal(encode(other.model("a"), x).mean, means[0])


def test_add_category_leaves_other_categories_bitwise_equal(state):
    after = add_category(state, "new", rng=jax.random.key(5))
    x, z = np.full((4, 20), 0.3, np.float32), np.ones((4, 3), np.float32)
    for name in NAMES:
        assert_trees_equal(encode(after.model(name), x), encode(state.model(name), x))
        assert_trees_equal(decode(after.model(name), z), decode(state.model(name), z))
    for index, name in enumerate(NAMES):
        expected = one_hot_network(after, "decoder", np.ones((4, 3)), index)
        np.testing.assert_allclose(decode(after.model(name), z), expected, rtol=1e-4, atol=1e-4)


def test_add_category_adds_only_two_vectors(state):
    for subtree in state.params["categories"].values():
        assert {half: values for half, values in subtree.items() if jax.tree.leaves(values)} == {
            half: {"vector": subtree[half]["vector"]} for half in ("encoder", "decoder")
        }
        shapes = [leaf.shape for leaf in jax.tree.leaves(subtree)]
        # The decoder mirrors the encoder's widths 7 and 6.
        assert shapes == [(6,), (7,)]
    assert parameters_per_category(state) == 13


def test_scale_is_mixed_and_prior_standard_normal(state):
    assert state.params["mixed"]["scale"]["log_scale"].shape == (20,)
    assert_trees_equal(state.model("a").prior, mixture_prior.standard_normal(3))
    x, logits = np.full((2, 20), 0.4, np.float32), np.zeros((2, 20), np.float32)
    values = [np.asarray(log_likelihood(state.model(name), x, logits)) for name in NAMES]
    assert_trees_equal(values[0], values[1])
    scale = {"log_scale": state.params["mixed"]["scale"]["log_scale"] + 3.0}
    scaled = state.replace(params={**state.params, "mixed": {**state.params["mixed"], "scale": scale}})
    for name, before in zip(NAMES, values, strict=True):
        assert np.abs(log_likelihood(scaled.model(name), x, logits) - before).min() > 1


@pytest.mark.parametrize("settings", [{"likelihood": "bernoulli"}, {"noise_scale": "shared"}])
def test_init_without_learned_scale_has_no_scale_parameters(config, settings):
    state = lifelong.init(config.with_settings(settings), SHAPE, rng=jax.random.key(0))
    assert state.params["mixed"]["scale"] == {}


def test_config_rejects_one_hot_without_mixed_part(config):
    with pytest.raises(lifelong.InputError) as caught:
        config.with_settings({"mixed_mode": "none"})
    one_line(caught, "setting conditioning=one_hot: expected a mixed_mode with a mixed part", "got mixed_mode=none")


@pytest.fixture(scope="module", params=["free", "playback", "frozen"])
def trained(request, small_config, digits, rng):
    """States before and after learning 0 and 1 in one task, then 2, and the report of each task."""
    config = small_config.with_settings(
        {"conditioning": "one_hot", "noise_scale": "own", "mixed_mode": request.param, "base_categories": 2}
    )
    states, reports = [lifelong.init(config, (28, 28), rng=rng)], []
    for names in ("01", "2"):
        state, report = lifelong.learn(states[-1], {name: digits[name] for name in names}, rng=rng)
        states.append(state)
        reports.append(report)
    return states, reports


def test_learn_keeps_earlier_vectors_and_trains_mixed_part(trained):
    (_, first, second), reports = trained
    mode = first.config.learning.mixed_mode
    for name in "01":
        assert_trees_equal(second.params["categories"][name], first.params["categories"][name])
    changed = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), second.params["mixed"], first.params["mixed"])
    assert set(jax.tree.leaves(changed)) == {mode != "frozen"}
    terms = {"real", "playback", "generate", "recognize", "circulate"}
    assert set(reports[1].terms) == (terms if mode == "playback" else {"real"})
    assert reports[1].parameters_per_category == 2 * 32
    initial = add_category(first, "2", rng=jax.random.key(0)).params["categories"]["2"]
    for half in ("encoder", "decoder"):
        assert (np.asarray(second.params["categories"]["2"][half]["vector"]) != initial[half]["vector"]).any()


def test_trained_state_imagines_recognizes_and_reconstructs(trained, digits, rng):
    state = trained[0][-1]
    imagined = lifelong.imagine(state, ["2", "0"], 3, rng=rng, cycles=1)
    key = jax.random.split(category_rng(rng, "0", 0))[0]
    z = sample_prior(mixture_prior.standard_normal(4), 3, rng=key)
    assert imagined["0"].shape == (3, 28, 28, 1)
    assert 0 <= np.min(imagined["0"]) < np.max(imagined["0"]) <= 1
    without_cycles = lifelong.imagine(state, ["0"], 3, rng=rng)["0"].reshape(3, -1)
    np.testing.assert_allclose(without_cycles, decode_mean(state.model("0"), z), rtol=1e-4, atol=1e-5)

    images = digits["0"][:6]
    values = lifelong.evidence(state, images)
    assert values.shape == (6, 3)
    x = images.reshape(6, -1) / np.float32(255)
    for column, name in enumerate(state.names):
        model = state.model(name)
        posterior = encode(model, x)
        expected = elbo_at(model, x, posterior, posterior.mean)
        np.testing.assert_allclose(values[:, column], expected, rtol=1e-4)
    names, probabilities = lifelong.recognize(state, images)
    assert set(names) <= set("012")
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert sampling.reconstruct(state, "0", images).shape == images.shape


def test_trained_state_can_be_saved_and_dropped_from(trained, tmp_path, digits):
    state = trained[0][-1]
    lifelong.save(state, tmp_path / "state")
    loaded = lifelong.load(tmp_path / "state")
    assert_trees_equal(loaded, state)
    dropped = lifelong.drop(loaded, "1")
    assert dropped.names == ("0", "2")
    assert set(dropped.params["categories"]) == {"0", "2"}
    evidence = lifelong.evidence(state, digits["2"][:4])
    np.testing.assert_allclose(lifelong.evidence(dropped, digits["2"][:4]), evidence[:, [0, 2]], rtol=1e-5)
