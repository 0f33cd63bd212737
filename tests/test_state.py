import logging

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lifelong_cvae as lifelong
from lifelong_cvae import deprecated
from lifelong_cvae.state import add_category, category_rng, freeze_mask, parameters_per_category
from tests.conftest import assert_trees_equal


def state_with_categories(config, names, rng):
    state = lifelong.init(config, (28, 28), rng=rng)
    for name in names:
        state = add_category(state, name, rng=rng)
    return state


@pytest.fixture(scope="module")
def state(small_config, rng):
    return state_with_categories(small_config, ["b", "T-shirt/top", "a"], rng)


def test_params_have_documented_keys(state):
    assert set(state.params) == {"mixed", "categories"}
    assert set(state.params["mixed"]) == {"encoder", "decoder"}
    assert set(state.params["categories"]) == {"b", "T-shirt/top", "a"}
    for subtree in state.params["categories"].values():
        assert set(subtree) == {
            "encoder",
            "decoder",
            "scale",
            "prior",
            "low_rank_noise",
            "contrast",
            "rms_uncertainty",
            "thresholds",
            "images",
        }
    assert state.names == ("b", "T-shirt/top", "a")


def test_add_category_appends_and_changes_nothing_else(state, rng):
    before = jax.tree.map(np.array, state.params)
    after = add_category(state, "new", rng=rng)
    assert after.names == (*state.names, "new")
    for name in state.names:
        assert after.params["categories"][name] is state.params["categories"][name]
    assert after.params["mixed"] is state.params["mixed"]
    assert_trees_equal(state.params, before)
    assert "new" not in state.params["categories"]


def test_add_category_depends_on_seed_and_name_not_on_position(small_config, state, rng):
    other = state_with_categories(small_config, ["a", "c"], rng)
    assert_trees_equal(other.params["categories"]["a"], state.params["categories"]["a"])
    kernels = [subtree["encoder"]["params"]["posterior"]["kernel"] for subtree in other.params["categories"].values()]
    assert not np.array_equal(*kernels)
    reseeded = state_with_categories(small_config, ["a"], jax.random.key(1)).params["categories"]["a"]
    assert not np.array_equal(reseeded["encoder"]["params"]["posterior"]["kernel"], kernels[0])


def test_drop_deletes_key_and_keeps_rest_bitwise(state, rng):
    dropped = lifelong.drop(add_category(state, "new", rng=rng), "new")
    assert_trees_equal(dropped, state)
    assert dropped.names == state.names
    with pytest.raises(lifelong.InputError, match="unknown category: expected one of b, T-shirt/top, a, got 'x'"):
        lifelong.drop(state, "x")


def test_init_in_mode_none_has_no_mixed_parameters(small_config, rng):
    state = state_with_categories(small_config.with_settings({"mixed_mode": "none"}), ["a"], rng)
    assert state.params["mixed"] == {}
    assert state.base_categories_left == 0


def test_freeze_mask_frees_networks_of_named_categories_only(small_config, rng):
    state = state_with_categories(small_config.with_settings({"noise_scale": "own"}), ["b", "a"], rng)
    mask = freeze_mask(state.params, ["a"], train_mixed=False)
    assert jax.tree.structure(mask) == jax.tree.structure(state.params)
    for part in ("encoder", "decoder", "scale"):
        assert set(jax.tree.leaves(mask["categories"]["a"][part])) == {False}
        assert set(jax.tree.leaves(mask["categories"]["b"][part])) == {True}
    for part in mask["categories"]["a"].keys() - {"encoder", "decoder", "scale"}:
        assert set(jax.tree.leaves(mask["categories"]["a"][part])) <= {True}
    assert set(jax.tree.leaves(mask["categories"]["a"]["prior"])) == {True}
    assert set(jax.tree.leaves(mask["mixed"])) == {True}
    assert set(jax.tree.leaves(freeze_mask(state.params, [], train_mixed=True)["mixed"])) == {False}


def test_parameters_per_category_counts_subtree(state):
    counted = sum(leaf.size for leaf in jax.tree.leaves(state.params["categories"]["b"]))
    assert parameters_per_category(state) == counted
    # By hand: mixed 32, category 16, rank 12, latent 4, 784 pixels; prior: 3 x (1 + 4 + 4); 11 other fitted values.
    encoder = (784 * 16 + 16) + ((32 + 16) * 8 + 8)
    decoder = (4 * 16 + 16) + (32 + 16) * 12 + (12 * 784 + 784)
    assert counted == encoder + decoder + 27 + 11
    for settings, more in (({"noise_scale": "own"}, 784), ({"noise_rank": 3}, 3 * 785 + 784)):
        other = state.replace(config=state.config.with_settings(settings))
        assert parameters_per_category(other) == counted + more


@pytest.mark.parametrize(("name", "limit"), [("default", 265_000), ("compact", 150_000)])
def test_parameters_per_category_of_presets_has_limit(rng, name, limit):
    state = lifelong.init(lifelong.preset(name), (28, 28), rng=rng)
    assert parameters_per_category(state) <= limit


@pytest.mark.parametrize("name", ["", "a\nb", "\x00", 3, None])
def test_add_category_refuses_names_that_are_not_printable(state, rng, name):
    with pytest.raises(
        lifelong.InputError, match="category name: expected a non-empty string of printable characters, got "
    ):
        add_category(state, name, rng=rng)


def test_add_category_refuses_known_name(state, rng):
    with pytest.raises(
        lifelong.InputError, match="expected the name of a new category, got 'a', which is known already"
    ):
        add_category(state, "a", rng=rng)


@pytest.mark.parametrize("shape", [(), (0, 28), (28, 28, 1, 1), (2.5, 3)])
def test_init_refuses_other_image_shapes(small_config, rng, shape):
    with pytest.raises(
        lifelong.InputError,
        match=r"expected positive \(height, width\) or \(height, width, channels\), or \(d,\) of vectors, got \(",
    ):
        lifelong.init(small_config, shape, rng=rng)


@given(st.text(min_size=1), st.integers(0, 1000))
def test_category_rng_is_stable_and_differs_by_name_and_visit(name, visit):
    key = jax.random.key_data(category_rng(jax.random.key(0), name, visit))
    np.testing.assert_array_equal(key, jax.random.key_data(category_rng(jax.random.key(0), name, visit)))
    for other in ((name + "x", visit), (name, visit + 1)):
        assert not np.array_equal(key, jax.random.key_data(category_rng(jax.random.key(0), *other)))


def test_state_accepts_deprecated_attributes_and_logs_once(state, caplog):
    deprecated.warn.cache_clear()
    with caplog.at_level(logging.WARNING, "lifelong_cvae"):
        for _ in range(2):
            assert state.childhood_left == state.base_categories_left
            assert_trees_equal(state.path("a").category, state.model("a").category)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("LifelongState.childhood_left is deprecated")
    assert first.endswith("use LifelongState.base_categories_left")
    assert second.startswith("LifelongState.path is deprecated")
    assert second.endswith("use LifelongState.model")


@pytest.mark.parametrize("capacity", [-1, 2.5])
def test_init_refuses_other_capacities(small_config, rng, capacity):
    with pytest.raises(lifelong.InputError, match=f"capacity: expected a number of at least 0, got {capacity}"):
        lifelong.init(small_config, (28, 28), rng=rng, capacity=capacity)
