"""Checkpoints of a state: `load` restores bit for bit, and what follows does not depend on the checkpoint."""

import shutil

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.checkpoints import state as state_checkpoints
from lifelong_cvae.errors import DamageError, InputError
from lifelong_cvae.state import add_category, parameters_per_category
from tests.checkpoints.conftest import NAMES, random_state, read_meta, state_with_random_bits
from tests.compiled import decode_mean
from tests.conftest import assert_trees_equal


@pytest.mark.parametrize("mode", ["frozen", "none"])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_load_inverts_save_bitwise(small_config, tmp_path, mode, likelihood):
    config = small_config.with_settings({"mixed_mode": mode, "likelihood": likelihood})
    before = random_state(config, 1)
    lifelong.save(before, tmp_path)
    after = lifelong.load(tmp_path)
    assert_trees_equal(before, after)
    assert after.config == before.config == config.for_shape(before.image_shape)
    assert bool(after.params["mixed"]) is (mode == "frozen")


def test_load_restores_fields_beside_arrays(state, saved):
    after = lifelong.load(saved)
    assert after.names == NAMES
    assert after.visits == (3, 0, 12, 1)
    assert after.base_categories_left == 4
    assert after.image_shape == (5, 4, 3)
    assert after.config.learning.base_categories == 7
    assert after.config.learning.learning_rate == 0.30000000000000004
    assert after.config == state.config
    assert hash(after.config) == hash(state.config)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_load_restores_each_category_under_its_name(state, saved):
    after = lifelong.load(saved)
    for name in NAMES:
        loaded, expected = (
            np.asarray(s.params["categories"][name]["encoder"]["params"]["posterior"]["kernel"]) for s in (after, state)
        )
        assert loaded.tobytes() == expected.tobytes()
        assert loaded.dtype == np.float32


def test_load_inverts_save_of_other_layers_and_shapes(small_config, tmp_path):
    deep = {"mixed_widths": "7,5,3", "category_widths": "4,2,6", "output_rank": 1, "latent_size": 1}
    before = random_state(small_config.with_settings(deep), 2, names=("x",), image_shape=(3, 2))
    lifelong.save(before, tmp_path)
    assert_trees_equal(before, lifelong.load(tmp_path))


@pytest.mark.parametrize("mode", ["frozen", "none"])
def test_load_inverts_save_without_categories(small_config, tmp_path, mode):
    before = random_state(small_config.with_settings({"mixed_mode": mode}), 3, names=())
    lifelong.save(before, tmp_path)
    after = lifelong.load(tmp_path)
    assert after.names == ()
    assert_trees_equal(before, after)


def test_save_of_loaded_state_is_exact(state, saved, tmp_path):
    lifelong.save(lifelong.load(saved), tmp_path)
    assert_trees_equal(state, lifelong.load(tmp_path))


def test_save_accepts_relative_folder_as_string(state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lifelong.save(state, "some/where")
    assert (tmp_path / "some" / "where" / "0").is_dir()
    assert_trees_equal(state, lifelong.load("some/where"))


def test_save_writes_readable_settings_beside_arrays(state, saved):
    meta = read_meta(saved)
    assert meta["names"] == list(NAMES)
    assert meta["config"]["learning"]["base_categories"] == 7
    assert meta["config"]["network"]["mixed_widths"] == list(state.config.network.mixed_widths)


def test_add_category_after_load_gives_same_state(initial_state, tmp_path):
    lifelong.save(initial_state, tmp_path)
    after = add_category(lifelong.load(tmp_path), "new", rng=jax.random.key(5))
    assert_trees_equal(after, add_category(initial_state, "new", rng=jax.random.key(5)))
    assert after.names == (*NAMES, "new")
    earlier = {name: after.params["categories"][name] for name in NAMES}
    assert_trees_equal(earlier, initial_state.params["categories"])


def test_add_category_after_load_refuses_known_name(saved):
    with pytest.raises(InputError, match="expected the name of a new category, got 'ä 猫', which is known already"):
        add_category(lifelong.load(saved), "ä 猫", rng=jax.random.key(5))


def test_save_after_drop_keeps_other_categories(state, saved, tmp_path):
    lifelong.save(lifelong.drop(lifelong.load(saved), "ä 猫"), tmp_path)
    after = lifelong.load(tmp_path)
    assert after.names == ("T-shirt/top", "a", "Bag")
    assert after.visits == (3, 12, 1)
    expected = {name: tree for name, tree in state.params["categories"].items() if name != "ä 猫"}
    assert_trees_equal(after.params["categories"], expected)


def test_networks_after_load_compute_the_same(initial_state, tmp_path):
    lifelong.save(initial_state, tmp_path)
    after = lifelong.load(tmp_path)
    z = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    for name in NAMES:
        assert_trees_equal(decode_mean(initial_state.model(name), z), decode_mean(after.model(name), z))


@pytest.mark.parametrize("categories", [1, 3, 100])
def test_save_puts_as_many_categories_into_a_part_as_fit(state, tmp_path, monkeypatch, categories):
    category_bytes = 4 * parameters_per_category(state)
    monkeypatch.setattr(state_checkpoints, "PART_BYTES", categories * category_bytes + category_bytes // 2)
    lifelong.save(state, tmp_path / "copy")
    parts = sorted(path.name for path in (tmp_path / "copy/0/params").iterdir() if path.is_dir())
    assert parts == [str(number) for number in range(1 + -(-len(state.names) // categories))]
    monkeypatch.undo()  # the checkpoint records the size of its groups
    after = lifelong.load(tmp_path / "copy")
    assert after.names == state.names
    assert_trees_equal(after.params, state.params)


def test_load_finds_damage_in_later_part(state, tmp_path, monkeypatch):
    monkeypatch.setattr(state_checkpoints, "PART_BYTES", 1)
    lifelong.save(state, tmp_path / "copy")
    lifelong.save(state_with_random_bits(state, 5), tmp_path / "copy")
    part = "params/3"
    shutil.rmtree(tmp_path / "copy/0" / part)
    shutil.copytree(tmp_path / "copy/1" / part, tmp_path / "copy/0" / part)
    with pytest.raises(DamageError, match="checkpoint 0 is damaged: array categories/"):
        lifelong.load(tmp_path / "copy", step=0)


def test_load_restores_the_capacity(state, tmp_path):
    lifelong.save(state.replace(capacity=9), tmp_path)
    assert lifelong.load(tmp_path).capacity == 9
    assert state_checkpoints.digest(state.replace(capacity=9)) == state_checkpoints.digest(state)
