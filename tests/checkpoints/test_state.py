"""Checkpoints: what was saved comes back bit for bit, or an error says why not."""

import gc
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.checkpoints import orbax_store
from lifelong_cvae.checkpoints import state as state_checkpoints
from lifelong_cvae.errors import DamageError, InputError
from lifelong_cvae.model import cvae
from lifelong_cvae.state import add_category, parameters_per_category
from tests.conftest import assert_trees_equal, full_disk, one_line

# In the order of learning, which is neither that of the alphabet nor its reverse.
NAMES = ("T-shirt/top", "ä 猫", "a", "Bag")
SPECIAL = np.array([0x80000000, 0x00000001, 0x7F800000, 0x7FC01234, 0xFF800001], np.uint32)

# After an error Orbax closes its event loop while reads are under way.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. (None|<coroutine object Numpy):pytest.PytestUnraisableExceptionWarning"
)


def scrambled(state, seed):
    """The state with every value another: random bits, and -0, a denormal, infinity, two kinds of NaN."""
    generator = np.random.default_rng(seed)

    def bits(leaf):
        values = generator.integers(0, 2**32, leaf.shape, np.uint32)
        values.ravel()[: SPECIAL.size] = SPECIAL[: values.size]
        return jnp.asarray(values.view(np.float32))

    return state.replace(params=jax.tree.map(bits, state.params))


def grown(config, names=NAMES, image_shape=(5, 4, 3)):
    state = lifelong.init(config, image_shape, rng=jax.random.key(3))
    for name in names:
        state = add_category(state, name, rng=jax.random.key(4))
    return state


def filled(config, seed, **arguments):
    """The same with random bits for values, which compiles nothing."""
    return scrambled(jax.eval_shape(lambda: grown(config, **arguments)), seed)


@pytest.fixture(scope="module")
def learner(small_config):
    """Four categories with the values they start with."""
    return grown(small_config)


@pytest.fixture(scope="module")
def state(small_config):
    """Four categories, learned unequally often, in the middle of the childhood."""
    config = small_config.with_settings({"base_categories": 7, "learning_rate": 0.1 + 0.2})
    return filled(config, 0).replace(visits=(3, 0, 12, 1), base_categories_left=4)


@pytest.fixture(scope="module")
def saved(state, tmp_path_factory):
    """A folder with the state's checkpoint, to be copied and not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    lifelong.save(state, folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of the checkpoint that a test may damage."""
    yield shutil.copytree(saved, tmp_path / "copy")
    # What Orbax leaves behind after an error complains when it is collected: here, not in another test.
    gc.collect()


def read_meta(folder, step=0):
    return json.loads((folder / str(step) / "meta" / "metadata").read_text())


def write_meta(folder, meta, step=0):
    (folder / str(step) / "meta" / "metadata").write_text(json.dumps(meta))


class TestRoundTrip:
    @pytest.mark.parametrize("mode", ["frozen", "none"])
    @pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
    def test_is_exact(self, small_config, tmp_path, mode, likelihood):
        config = small_config.with_settings({"mixed_mode": mode, "likelihood": likelihood})
        before = filled(config, 1)
        lifelong.save(before, tmp_path)
        after = lifelong.load(tmp_path)
        assert_trees_equal(before, after)
        assert after.config == config
        assert bool(after.params["mixed"]) is (mode == "frozen")

    def test_keeps_what_is_no_array(self, state, saved):
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

    def test_every_category_keeps_its_own_values(self, state, saved):
        after = lifelong.load(saved)
        for name in NAMES:
            kernel = np.asarray(after.params["categories"][name]["encoder"]["params"]["posterior"]["kernel"])
            own = np.asarray(state.params["categories"][name]["encoder"]["params"]["posterior"]["kernel"])
            assert kernel.tobytes() == own.tobytes()
            assert kernel.dtype == np.float32

    def test_a_layer_more_and_another_shape(self, small_config, tmp_path):
        deep = {"mixed_widths": "7,5,3", "category_widths": "4,2,6", "output_rank": 1, "latent_size": 1}
        before = filled(small_config.with_settings(deep), 2, names=("x",), image_shape=(3, 2))
        lifelong.save(before, tmp_path)
        assert_trees_equal(before, lifelong.load(tmp_path))

    @pytest.mark.parametrize("mode", ["frozen", "none"])
    def test_a_learner_that_knows_nothing_yet(self, small_config, tmp_path, mode):
        before = filled(small_config.with_settings({"mixed_mode": mode}), 3, names=())
        lifelong.save(before, tmp_path)
        after = lifelong.load(tmp_path)
        assert after.names == ()
        assert_trees_equal(before, after)

    def test_saving_again_what_was_loaded_is_exact(self, state, saved, tmp_path):
        lifelong.save(lifelong.load(saved), tmp_path)
        assert_trees_equal(state, lifelong.load(tmp_path))

    def test_relative_folders_given_as_texts(self, state, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        lifelong.save(state, "some/where")
        assert (tmp_path / "some" / "where" / "0").is_dir()
        assert_trees_equal(state, lifelong.load("some/where"))

    def test_the_settings_are_readable_beside_the_weights(self, state, saved):
        meta = read_meta(saved)
        assert meta["names"] == list(NAMES)
        assert meta["config"]["learning"]["base_categories"] == 7
        assert meta["config"]["network"]["mixed_widths"] == list(state.config.network.mixed_widths)


class TestAfterLoading:
    def test_the_next_category_is_the_same_as_without_a_checkpoint(self, learner, tmp_path):
        lifelong.save(learner, tmp_path)
        after = add_category(lifelong.load(tmp_path), "new", rng=jax.random.key(5))
        assert_trees_equal(after, add_category(learner, "new", rng=jax.random.key(5)))
        assert after.names == (*NAMES, "new")
        earlier = {name: after.params["categories"][name] for name in NAMES}
        assert_trees_equal(earlier, learner.params["categories"])

    def test_a_known_category_is_known(self, saved):
        with pytest.raises(InputError, match="known already"):
            add_category(lifelong.load(saved), "ä 猫", rng=jax.random.key(5))

    def test_a_category_can_be_dropped_and_the_rest_saved(self, state, saved, tmp_path):
        lifelong.save(lifelong.drop(lifelong.load(saved), "ä 猫"), tmp_path)
        after = lifelong.load(tmp_path)
        assert after.names == ("T-shirt/top", "a", "Bag")
        assert after.visits == (3, 12, 1)
        expected = {name: tree for name, tree in state.params["categories"].items() if name != "ä 猫"}
        assert_trees_equal(after.params["categories"], expected)

    def test_the_networks_compute_the_same(self, learner, tmp_path):
        lifelong.save(learner, tmp_path)
        after = lifelong.load(tmp_path)
        z = jnp.linspace(-2, 2, 12).reshape(3, 4)
        for name in NAMES:
            assert_trees_equal(cvae.decode_mean(learner.model(name), z), cvae.decode_mean(after.model(name), z))


class TestSteps:
    def test_are_numbered_from_zero_and_the_newest_is_loaded(self, state, tmp_path):
        states = [scrambled(state, seed) for seed in range(3)]
        for each in states:
            lifelong.save(each, tmp_path)
        assert orbax_store.steps(tmp_path) == [0, 1, 2]
        assert_trees_equal(lifelong.load(tmp_path), states[2])
        for step, each in enumerate(states):
            assert_trees_equal(lifelong.load(tmp_path, step=step), each)

    def test_a_number_may_be_given_and_the_next_follows_it(self, state, tmp_path):
        lifelong.save(state, tmp_path, step=9)
        lifelong.save(state, tmp_path, step=10)
        lifelong.save(state, tmp_path)
        assert orbax_store.steps(tmp_path) == [9, 10, 11]

    @pytest.mark.parametrize("step", [5, 4, 0])
    def test_an_existing_or_lower_number_is_refused_and_nothing_changes(self, state, tmp_path, step):
        lifelong.save(state, tmp_path, step=5)
        with pytest.raises(InputError, match=f"checkpoint {step} was not written, 5 is there"):
            lifelong.save(scrambled(state, 9), tmp_path, step=step)
        assert orbax_store.steps(tmp_path) == [5]
        assert_trees_equal(lifelong.load(tmp_path), state)

    def test_only_the_newest_are_kept(self, state, tmp_path):
        states = [scrambled(state, seed) for seed in range(5)]
        for each in states:
            lifelong.save(each, tmp_path, keep=2)
        assert orbax_store.steps(tmp_path) == [3, 4]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]
        assert_trees_equal(lifelong.load(tmp_path, step=3), states[3])
        assert_trees_equal(lifelong.load(tmp_path, step=4), states[4])

    def test_keeping_fewer_later_removes_the_older_ones(self, state, tmp_path):
        for _ in range(3):
            lifelong.save(state, tmp_path)
        lifelong.save(state, tmp_path, keep=1)
        assert orbax_store.steps(tmp_path) == [3]
        assert_trees_equal(lifelong.load(tmp_path), state)

    def test_a_missing_folder_has_none_and_is_not_made(self, tmp_path):
        folder = tmp_path / "nowhere"
        assert orbax_store.steps(folder) == []
        with pytest.raises(InputError, match="nowhere: no checkpoint there"):
            lifelong.load(folder)
        assert not folder.exists()

    def test_an_empty_folder_has_none(self, tmp_path):
        assert orbax_store.steps(tmp_path) == []
        with pytest.raises(InputError, match="no checkpoint there"):
            lifelong.load(tmp_path)

    def test_a_file_has_none(self, tmp_path):
        (tmp_path / "file").write_text("hello")
        with pytest.raises(InputError, match="file: no checkpoint there"):
            lifelong.load(tmp_path / "file")

    def test_a_missing_number_is_told(self, saved):
        with pytest.raises(InputError, match="no checkpoint 3 there"):
            lifelong.load(saved, step=3)

    def test_what_else_lies_in_the_folder_is_passed_over(self, state, copy):
        (copy / "notes.txt").write_text("hello")
        (copy / "figures").mkdir()
        assert orbax_store.steps(copy) == [0]
        assert_trees_equal(lifelong.load(copy), state)
        assert (copy / "notes.txt").read_text() == "hello"

    def test_a_checkpoint_that_was_never_finished_is_no_checkpoint(self, state, copy):
        shutil.copytree(copy / "0", copy / "1.orbax-checkpoint-tmp")
        assert orbax_store.steps(copy) == [0]
        assert_trees_equal(lifelong.load(copy), state)
        lifelong.save(state, copy)
        assert orbax_store.steps(copy) == [0, 1]

    def test_reading_deletes_nothing(self, copy):
        unfinished = shutil.copytree(copy / "0", copy / "1.orbax-checkpoint-tmp")
        lifelong.load(copy)
        assert unfinished.exists()

    @pytest.mark.parametrize("wrong", [{"keep": 0}, {"step": -1}, {"step": 1.5}])
    def test_numbers_that_would_lose_the_checkpoint_are_refused(self, state, tmp_path, wrong):
        with pytest.raises(InputError, match="expected"):
            lifelong.save(state, tmp_path, **wrong)

    @pytest.mark.parametrize("wrong", ["keep", "folder"])
    def test_other_input_that_cannot_be_is_refused(self, state, tmp_path, wrong):
        (tmp_path / "file").write_text("hello")
        arguments = {"keep": {"folder": tmp_path, "keep": -1}, "folder": {"folder": tmp_path / "file"}}
        with pytest.raises(InputError):
            lifelong.save(state, **arguments[wrong])


def complaint(folder, state):
    """The message where loading raises InputError; empty where it gives the state; all else fails."""
    try:
        loaded = lifelong.load(folder)
    except InputError as error:
        return str(error)
    assert_trees_equal(loaded, state)
    return ""


class TestAFullDisk:
    @pytest.mark.parametrize("size", [0, 10, 1000, 20_000])
    def test_is_told_in_one_line_and_the_checkpoint_before_is_intact(self, state, copy, size):
        with full_disk(size), pytest.raises(OSError, match="could not be written") as error:
            lifelong.save(scrambled(state, 9), copy)
        one_line(error, copy, "checkpoint 1", "checkpoint 0 is intact")
        assert orbax_store.steps(copy) == [0]
        assert_trees_equal(lifelong.load(copy), state)
        lifelong.save(scrambled(state, 9), copy)
        assert orbax_store.steps(copy) == [0, 1]
        assert_trees_equal(lifelong.load(copy), scrambled(state, 9))

    def test_a_folder_that_cannot_be_made_is_told(self, state):
        with pytest.raises(OSError, match="could not be written") as error:
            lifelong.save(state, "/proc/none/checkpoints")
        one_line(error, "/proc/none/checkpoints", "checkpoint 0")


class TestSetAside:
    def test_a_checkpoint_is_moved_under_a_free_name(self, state, copy, tmp_path):
        for expected in ("copy_0", "copy_0_2"):
            moved = orbax_store.move_checkpoint(copy, 0, tmp_path / "damaged")
            assert moved == tmp_path / "damaged" / expected
            assert orbax_store.steps(copy) == []
            lifelong.save(state, copy, step=0)
        assert_trees_equal(lifelong.load(copy), state)

    def test_the_newest_that_is_not_damaged_is_found(self, state, copy):
        for seed in (5, 6):
            lifelong.save(scrambled(state, seed), copy)
        shutil.rmtree(copy / "2" / "params")
        write_meta(copy, {**read_meta(copy, 1), "names": ["other"]}, 1)
        damaged = []
        step, found = orbax_store.read_newest(copy, lambda step: lifelong.load(copy, step=step), damaged.append)
        assert step == 0
        assert_trees_equal(found, state)
        assert [error.step for error in damaged] == [2, 1]

    def test_of_damaged_ones_alone_there_is_none(self, copy):
        shutil.rmtree(copy / "0" / "params")
        assert orbax_store.read_newest(copy, lambda step: lifelong.load(copy, step=step), lambda _: None) is None


class TestDamage:
    def test_a_flipped_bit_in_any_file_of_the_arrays_never_loads_wrong_values(self, state, copy):
        messages = []
        for path in sorted((copy / "0" / "params").rglob("*")):
            if path.is_file():
                whole = path.read_bytes()
                for byte in np.linspace(0, len(whole) - 1, 5 if len(whole) > 1000 else 2).astype(int):
                    damaged = bytearray(whole)
                    damaged[byte] ^= 16
                    path.write_bytes(damaged)
                    messages.append(complaint(copy, state))
                path.write_bytes(whole)
        # Most of what is stored are random bits: Orbax alone would load wrong values.
        assert any("differs from its checksum" in message for message in messages)
        assert all("checkpoint 0" in message and "\n" not in message for message in messages if message)
        assert_trees_equal(lifelong.load(copy), state)

    def test_arrays_of_another_checkpoint_are_refused(self, state, copy, tmp_path):
        lifelong.save(scrambled(state, 5), tmp_path / "other")
        shutil.rmtree(copy / "0" / "params")
        shutil.copytree(tmp_path / "other" / "0" / "params", copy / "0" / "params")
        with pytest.raises(InputError, match=r"checkpoint 0 is damaged: array \S+ differs from its checksum"):
            lifelong.load(copy)

    def test_one_bit_of_one_value_is_found_by_its_arrays_name(self, state, copy, tmp_path):
        mixed = state.params["mixed"]
        kernel = np.asarray(mixed["decoder"]["params"]["hidden_0"]["kernel"]).copy()
        kernel.view(np.uint32)[-1, -1] ^= 1
        hidden = {**mixed["decoder"]["params"]["hidden_0"], "kernel": kernel}
        changed = {**state.params, "mixed": {**mixed, "decoder": {"params": {"hidden_0": hidden}}}}
        lifelong.save(state.replace(params=changed), tmp_path / "other")
        shutil.rmtree(copy / "0" / "params")
        shutil.copytree(tmp_path / "other" / "0" / "params", copy / "0" / "params")
        with pytest.raises(InputError, match="array mixed/decoder/params/hidden_0/kernel differs"):
            lifelong.load(copy)

    @pytest.mark.parametrize("damage", ["deleted", "emptied", "cut"])
    def test_any_file_deleted_or_cut_is_told_or_harmless(self, state, copy, damage):
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        largest = max(files, key=lambda path: path.stat().st_size)
        needed = {largest, copy / "0" / "meta" / "metadata", copy / "0" / "params" / "_METADATA"}
        for path in files:
            whole = path.read_bytes()
            if damage == "deleted":
                path.unlink()
            else:
                path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
            message = complaint(copy, state)
            assert message or path not in needed
            path.write_bytes(whole)
        assert_trees_equal(lifelong.load(copy), state)

    @pytest.mark.parametrize("part", ["params", "meta"])
    def test_a_missing_half_is_told(self, copy, part):
        shutil.rmtree(copy / "0" / part)
        with pytest.raises(InputError, match="checkpoint 0 cannot be read"):
            lifelong.load(copy)

    def test_earlier_checkpoints_can_be_loaded_beside_a_damaged_one(self, state, copy):
        lifelong.save(scrambled(state, 5), copy)
        shutil.rmtree(copy / "1" / "params")
        with pytest.raises(InputError, match="checkpoint 1 cannot be read"):
            lifelong.load(copy)
        assert_trees_equal(lifelong.load(copy, step=0), state)

    @pytest.mark.parametrize("schema", [0, 1, 2, 3, "4", None])
    def test_another_version_is_refused_and_not_taken_for_damage(self, copy, schema):
        meta = {**read_meta(copy), "schema": schema}
        del meta["digest"]
        write_meta(copy, {**meta, "digest": orbax_store._digest(meta)})
        with pytest.raises(InputError) as error:
            lifelong.load(copy)
        one_line(error, copy, f"checkpoint 0 has schema {schema}", "schema 4 is expected")
        assert not isinstance(error.value, DamageError)

    def test_a_schema_that_was_changed_alone_is_damage(self, copy):
        write_meta(copy, {**read_meta(copy), "schema": 5})
        with pytest.raises(DamageError, match="checkpoint 0 is damaged: its settings differ"):
            lifelong.load(copy)

    @pytest.mark.parametrize("content", ["", "null", "[1]", "{", "3", '{"schema": 1}'])
    def test_settings_that_are_none_are_refused(self, copy, content):
        (copy / "0" / "meta" / "metadata").write_text(content)
        with pytest.raises(InputError, match="checkpoint 0"):
            lifelong.load(copy)

    @pytest.mark.parametrize(
        "key",
        [
            "schema",
            "names",
            "image_shape",
            "config",
            "visits",
            "base_categories_left",
            "checksums",
        ],
    )
    def test_a_missing_entry_is_told(self, copy, key):
        meta = read_meta(copy)
        del meta[key]
        write_meta(copy, meta)
        with pytest.raises(InputError, match="checkpoint 0"):
            lifelong.load(copy)

    @pytest.mark.parametrize(
        ("section", "key", "value"),
        [
            ("network", "likelihood", "bernoulli"),
            ("learning", "mixed_mode", "none"),
            ("network", "rank", 13),
            ("network", "mixed_widths", [33]),
        ],
    )
    def test_settings_of_other_networks_are_refused(self, copy, section, key, value):
        meta = read_meta(copy)
        meta["config"][section][key] = value
        write_meta(copy, meta)
        with pytest.raises(InputError, match="checkpoint 0"):
            lifelong.load(copy)

    @pytest.mark.parametrize("names", [NAMES[:3], (*NAMES, "more")])
    def test_another_number_of_categories_is_refused(self, copy, names):
        write_meta(copy, {**read_meta(copy), "names": names, "visits": [0] * len(names)})
        with pytest.raises(InputError, match="checkpoint 0"):
            lifelong.load(copy)

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ('"Bag"', '"Bad"'),
            ('"T-shirt/top"', '"T-shirt/top "'),
            ('"base_categories_left": 4', '"base_categories_left": 5'),
            ("12", "13"),
            ('"batch_size": 16', '"batch_size": 17'),
        ],
    )
    def test_a_flipped_bit_in_the_names_and_settings_is_told(self, copy, before, after):
        path = copy / "0" / "meta" / "metadata"
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after, 1))
        with pytest.raises(InputError, match="checkpoint 0"):
            lifelong.load(copy)


class TestParts:
    """Categories are written a group at a time; what comes back does not depend on it."""

    @pytest.mark.parametrize("categories", [1, 3, 100])
    def test_a_group_holds_as_many_categories_as_fit(self, state, tmp_path, monkeypatch, categories):
        each = 4 * parameters_per_category(state)
        monkeypatch.setattr(state_checkpoints, "PART_BYTES", categories * each + each // 2)
        lifelong.save(state, tmp_path / "copy")
        parts = sorted(path.name for path in (tmp_path / "copy/0/params").iterdir() if path.is_dir())
        assert parts == [str(number) for number in range(1 + -(-len(state.names) // categories))]
        monkeypatch.undo()  # how it was written stands in the checkpoint
        after = lifelong.load(tmp_path / "copy")
        assert after.names == state.names
        assert_trees_equal(after.params, state.params)

    def test_damage_in_a_later_group_is_found(self, state, tmp_path, monkeypatch):
        monkeypatch.setattr(state_checkpoints, "PART_BYTES", 1)
        lifelong.save(state, tmp_path / "copy")
        lifelong.save(scrambled(state, 5), tmp_path / "copy")
        part = "params/3"
        shutil.rmtree(tmp_path / "copy/0" / part)
        shutil.copytree(tmp_path / "copy/1" / part, tmp_path / "copy/0" / part)
        with pytest.raises(DamageError, match="checkpoint 0 is damaged: array categories/"):
            lifelong.load(tmp_path / "copy", step=0)
