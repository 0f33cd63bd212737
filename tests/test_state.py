import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lifelong_cvae as lifelong
from lifelong_cvae.state import add_category, category_rng, freeze_mask, parameters_per_category
from tests.conftest import assert_trees_equal


def grown(config, names, rng):
    state = lifelong.init(config, (28, 28), rng=rng)
    for name in names:
        state = add_category(state, name, rng=rng)
    return state


@pytest.fixture(scope="module")
def state(small_config, rng):
    return grown(small_config, ["b", "T-shirt/top", "a"], rng)


def test_the_parameter_dict_is_that_of_the_design(state):
    assert set(state.params) == {"mixed", "categories"}
    assert set(state.params["mixed"]) == {"encoder", "decoder"}
    assert set(state.params["categories"]) == {"b", "T-shirt/top", "a"}
    for subtree in state.params["categories"].values():
        assert set(subtree) == {
            "encoder",
            "decoder",
            "scale",
            "prior",
            "factors",
            "contrast",
            "spread",
            "thresholds",
            "images",
        }
    assert state.names == ("b", "T-shirt/top", "a")


def test_growing_appends_and_changes_nothing_else(state, rng):
    before = jax.tree.map(np.array, state.params)
    after = add_category(state, "new", rng=rng)
    assert after.names == (*state.names, "new")
    for name in state.names:
        assert after.params["categories"][name] is state.params["categories"][name]
    assert after.params["mixed"] is state.params["mixed"]
    assert_trees_equal(state.params, before)
    assert "new" not in state.params["categories"]


def test_fresh_parameters_depend_on_seed_and_name_not_on_position(small_config, state, rng):
    other = grown(small_config, ["a", "c"], rng)
    assert_trees_equal(other.params["categories"]["a"], state.params["categories"]["a"])
    kernel = [s["encoder"]["params"]["posterior"]["kernel"] for s in other.params["categories"].values()]
    assert not np.array_equal(*kernel)
    reseeded = grown(small_config, ["a"], jax.random.key(1)).params["categories"]["a"]
    assert not np.array_equal(reseeded["encoder"]["params"]["posterior"]["kernel"], kernel[0])


def test_dropping_deletes_a_key_and_leaves_the_rest_bitwise(state, rng):
    dropped = lifelong.drop(add_category(state, "new", rng=rng), "new")
    assert_trees_equal(dropped, state)
    assert dropped.names == state.names
    with pytest.raises(lifelong.InputError, match="unknown category 'x': known are b, T-shirt/top, a"):
        lifelong.drop(state, "x")


def test_mode_none_has_no_mixed_parameters(small_config, rng):
    alone = grown(small_config.with_settings({"mixed_mode": "none"}), ["a"], rng)
    assert alone.params["mixed"] == {}
    assert alone.base_categories_left == 0


def test_labels_train_the_named_categories_but_for_their_priors(small_config, rng):
    state = grown(small_config.with_settings({"noise_scale": "own"}), ["b", "a"], rng)
    labels = freeze_mask(state.params, ["a"], train_mixed=False)
    assert jax.tree.structure(labels) == jax.tree.structure(state.params)
    for part in ("encoder", "decoder", "scale"):
        assert set(jax.tree.leaves(labels["categories"]["a"][part])) == {"train"}
        assert set(jax.tree.leaves(labels["categories"]["b"][part])) == {"freeze"}
    assert set(jax.tree.leaves(labels["categories"]["a"]["prior"])) == {"freeze"}
    assert set(jax.tree.leaves(labels["mixed"])) == {"freeze"}
    assert set(jax.tree.leaves(freeze_mask(state.params, [], train_mixed=True)["mixed"])) == {"train"}


def test_parameters_per_category_is_what_a_subtree_holds(state):
    counted = sum(leaf.size for leaf in jax.tree.leaves(state.params["categories"]["b"]))
    assert parameters_per_category(state) == counted
    # By hand: mixed 32, category 16, rank 12, latent 4, 784 pixels; prior: 3 x (1 + 4 + 4); 11 settled.
    encoder = (784 * 16 + 16) + ((32 + 16) * 8 + 8)
    decoder = (4 * 16 + 16) + (32 + 16) * 12 + (12 * 784 + 784)
    assert counted == encoder + decoder + 27 + 11
    for settings, more in (({"noise_scale": "own"}, 784), ({"noise_rank": 3}, 3 * 785 + 784)):
        other = state.replace(config=state.config.with_settings(settings))
        assert parameters_per_category(other) == counted + more


@pytest.mark.parametrize(("name", "limit"), [("default", 265_000), ("compact", 150_000)])
def test_presets_stay_within_so_many_parameters_a_category(rng, name, limit):
    state = lifelong.init(lifelong.preset(name), (28, 28), rng=rng)
    assert parameters_per_category(state) <= limit


@pytest.mark.parametrize("name", ["", "a\nb", "\x00", 3, None])
def test_names_that_are_not_printable_texts_are_refused(state, rng, name):
    with pytest.raises(lifelong.InputError, match="a non-empty text of printable characters is expected"):
        add_category(state, name, rng=rng)


def test_a_known_name_is_refused(state, rng):
    with pytest.raises(lifelong.InputError, match="'a' is known already"):
        add_category(state, "a", rng=rng)


@pytest.mark.parametrize("shape", [(28,), (0, 28), (28, 28, 1, 1), (2.5, 3)])
def test_shapes_that_are_not_images_are_refused(small_config, rng, shape):
    with pytest.raises(lifelong.InputError, match=r"\(height, width\) or \(height, width, channels\) is expected"):
        lifelong.init(small_config, shape, rng=rng)


@given(st.text(min_size=1), st.integers(0, 1000))
def test_a_categorys_randomness_is_stable_and_its_own(name, visit):
    key = jax.random.key_data(category_rng(jax.random.key(0), name, visit))
    np.testing.assert_array_equal(key, jax.random.key_data(category_rng(jax.random.key(0), name, visit)))
    for other in ((name + "x", visit), (name, visit + 1)):
        assert not np.array_equal(key, jax.random.key_data(category_rng(jax.random.key(0), *other)))
