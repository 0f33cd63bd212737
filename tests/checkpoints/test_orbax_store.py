"""Numbered checkpoints in a folder: numbers, retention, failed writes, and moving damaged ones."""

import re
import shutil

import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.checkpoints import orbax_store
from lifelong_cvae.errors import InputError
from tests.checkpoints.conftest import read_meta, state_with_random_bits, write_meta
from tests.conftest import assert_trees_equal, full_disk, one_line


def test_save_numbers_from_zero_and_load_reads_newest(state, tmp_path):
    states = [state_with_random_bits(state, seed) for seed in range(3)]
    for each in states:
        lifelong.save(each, tmp_path)
    assert orbax_store.steps(tmp_path) == [0, 1, 2]
    assert_trees_equal(lifelong.load(tmp_path), states[2])
    for step, each in enumerate(states):
        assert_trees_equal(lifelong.load(tmp_path, step=step), each)


def test_save_continues_after_given_number(state, tmp_path):
    lifelong.save(state, tmp_path, step=9)
    lifelong.save(state, tmp_path, step=10)
    lifelong.save(state, tmp_path)
    assert orbax_store.steps(tmp_path) == [9, 10, 11]


@pytest.mark.parametrize("step", [5, 4, 0])
def test_save_refuses_number_not_above_newest_and_changes_nothing(state, tmp_path, step):
    lifelong.save(state, tmp_path, step=5)
    with pytest.raises(InputError, match=f"expected a checkpoint number above 5, the newest there, got {step}"):
        lifelong.save(state_with_random_bits(state, 9), tmp_path, step=step)
    assert orbax_store.steps(tmp_path) == [5]
    assert_trees_equal(lifelong.load(tmp_path), state)


def test_save_keeps_newest_only(state, tmp_path):
    states = [state_with_random_bits(state, seed) for seed in range(5)]
    for each in states:
        lifelong.save(each, tmp_path, keep=2)
    assert orbax_store.steps(tmp_path) == [3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]
    assert_trees_equal(lifelong.load(tmp_path, step=3), states[3])
    assert_trees_equal(lifelong.load(tmp_path, step=4), states[4])


def test_save_with_smaller_keep_removes_older_checkpoints(state, tmp_path):
    for _ in range(3):
        lifelong.save(state, tmp_path)
    lifelong.save(state, tmp_path, keep=1)
    assert orbax_store.steps(tmp_path) == [3]
    assert_trees_equal(lifelong.load(tmp_path), state)


def test_load_refuses_missing_folder_and_does_not_create_it(tmp_path):
    folder = tmp_path / "nowhere"
    assert orbax_store.steps(folder) == []
    with pytest.raises(InputError, match="nowhere: expected a checkpoint, got none"):
        lifelong.load(folder)
    assert not folder.exists()


def test_load_refuses_empty_folder(tmp_path):
    assert orbax_store.steps(tmp_path) == []
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}: expected a checkpoint, got none")):
        lifelong.load(tmp_path)


def test_load_refuses_file(tmp_path):
    (tmp_path / "file").write_text("hello")
    with pytest.raises(InputError, match="file: expected a checkpoint, got none"):
        lifelong.load(tmp_path / "file")


def test_load_refuses_missing_number(saved):
    with pytest.raises(InputError, match="expected checkpoint 3, got 0"):
        lifelong.load(saved, step=3)


def test_steps_skips_other_files_and_folders(state, copy):
    (copy / "notes.txt").write_text("hello")
    (copy / "figures").mkdir()
    assert orbax_store.steps(copy) == [0]
    assert_trees_equal(lifelong.load(copy), state)
    assert (copy / "notes.txt").read_text() == "hello"


def test_steps_skips_unfinished_checkpoint(state, copy):
    shutil.copytree(copy / "0", copy / "1.orbax-checkpoint-tmp")
    assert orbax_store.steps(copy) == [0]
    assert_trees_equal(lifelong.load(copy), state)
    lifelong.save(state, copy)
    assert orbax_store.steps(copy) == [0, 1]


def test_load_deletes_nothing(copy):
    unfinished = shutil.copytree(copy / "0", copy / "1.orbax-checkpoint-tmp")
    lifelong.load(copy)
    assert unfinished.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"keep": 0}, "keep: expected a whole number of at least 1, got 0"),
        ({"keep": -1}, "keep: expected a whole number of at least 1, got -1"),
        ({"step": -1}, "step: expected a whole number of at least 0, got -1"),
        ({"step": 1.5}, "step: expected a whole number of at least 0, got 1.5"),
    ],
)
def test_save_refuses_bad_numbers(state, tmp_path, arguments, words):
    with pytest.raises(InputError) as error:
        lifelong.save(state, tmp_path, **arguments)
    one_line(error, words)


def test_save_refuses_file(state, tmp_path):
    (tmp_path / "file").write_text("hello")
    with pytest.raises(InputError) as error:
        lifelong.save(state, tmp_path / "file")
    one_line(error, tmp_path / "file", "expected a folder, got a file")


@pytest.mark.parametrize("size", [0, 10, 1000, 20_000])
def test_save_on_full_disk_raises_one_line_and_keeps_earlier_checkpoint(state, copy, size):
    with full_disk(size), pytest.raises(OSError, match="could not be written") as error:
        lifelong.save(state_with_random_bits(state, 9), copy)
    one_line(error, copy, "checkpoint 1", "checkpoint 0 is intact")
    assert orbax_store.steps(copy) == [0]
    assert_trees_equal(lifelong.load(copy), state)
    lifelong.save(state_with_random_bits(state, 9), copy)
    assert orbax_store.steps(copy) == [0, 1]
    assert_trees_equal(lifelong.load(copy), state_with_random_bits(state, 9))


def test_save_to_folder_that_cannot_be_created_raises_one_line(state):
    with pytest.raises(OSError, match="could not be written") as error:
        lifelong.save(state, "/proc/none/checkpoints")
    one_line(error, "/proc/none/checkpoints", "checkpoint 0")


def test_move_checkpoint_uses_free_name(state, copy, tmp_path):
    for expected in ("copy_0", "copy_0_2"):
        moved = orbax_store.move_checkpoint(copy, 0, tmp_path / "damaged")
        assert moved == tmp_path / "damaged" / expected
        assert orbax_store.steps(copy) == []
        lifelong.save(state, copy, step=0)
    assert_trees_equal(lifelong.load(copy), state)


def test_read_newest_skips_damaged_checkpoints(state, copy):
    for seed in (5, 6):
        lifelong.save(state_with_random_bits(state, seed), copy)
    shutil.rmtree(copy / "2" / "params")
    write_meta(copy, {**read_meta(copy, 1), "names": ["other"]}, 1)
    damaged = []
    step, newest = orbax_store.read_newest(copy, lambda step: lifelong.load(copy, step=step), damaged.append)
    assert step == 0
    assert_trees_equal(newest, state)
    assert [error.step for error in damaged] == [2, 1]


def test_read_newest_of_damaged_checkpoints_alone_is_none(copy):
    shutil.rmtree(copy / "0" / "params")
    assert orbax_store.read_newest(copy, lambda step: lifelong.load(copy, step=step), lambda _: None) is None
