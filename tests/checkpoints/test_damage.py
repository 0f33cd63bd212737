"""Damaged checkpoints: `load` returns the saved values or raises an error that names the damage."""

import shutil

import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.errors import DamageError, InputError
from lifelong_cvae.files import json_digest
from tests.checkpoints.conftest import NAMES, read_meta, state_with_random_bits, write_meta
from tests.conftest import assert_trees_equal, one_line


def load_error(folder, state):
    """The message if `load` raises InputError, and an empty string if it returns the state. Else the test fails."""
    try:
        loaded = lifelong.load(folder)
    except InputError as error:
        return str(error)
    assert_trees_equal(loaded, state)
    return ""


def test_load_never_returns_wrong_values_after_flipped_bit_in_arrays(state, copy):
    messages = []
    for path in sorted((copy / "0" / "params").rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            for byte in np.linspace(0, len(content) - 1, 5 if len(content) > 1000 else 2).astype(int):
                damaged = bytearray(content)
                damaged[byte] ^= 16
                path.write_bytes(damaged)
                messages.append(load_error(copy, state))
            path.write_bytes(content)
    # Most bytes of the files are random bits of arrays: Orbax alone would load wrong values.
    assert any("differs from its checksum" in message for message in messages)
    assert all("checkpoint 0" in message and "\n" not in message for message in messages if message)
    assert_trees_equal(lifelong.load(copy), state)


def test_load_refuses_arrays_of_other_checkpoint(state, copy, tmp_path):
    lifelong.save(state_with_random_bits(state, 5), tmp_path / "other")
    shutil.rmtree(copy / "0" / "params")
    shutil.copytree(tmp_path / "other" / "0" / "params", copy / "0" / "params")
    with pytest.raises(InputError, match=r"checkpoint 0 is damaged: array \S+ differs from its checksum"):
        lifelong.load(copy)


def test_load_names_array_with_one_flipped_bit(state, copy, tmp_path):
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
def test_load_after_loss_of_any_file_raises_or_returns_same_state(state, copy, damage):
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    largest = max(files, key=lambda path: path.stat().st_size)
    needed = {largest, copy / "0" / "meta" / "metadata", copy / "0" / "params" / "_METADATA"}
    for path in files:
        content = path.read_bytes()
        if damage == "deleted":
            path.unlink()
        else:
            path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
        message = load_error(copy, state)
        assert message or path not in needed
        path.write_bytes(content)
    assert_trees_equal(lifelong.load(copy), state)


@pytest.mark.parametrize("part", ["params", "meta"])
def test_load_refuses_checkpoint_without_one_half(copy, part):
    shutil.rmtree(copy / "0" / part)
    with pytest.raises(InputError, match="checkpoint 0 cannot be read"):
        lifelong.load(copy)


def test_load_reads_earlier_checkpoint_beside_damaged_one(state, copy):
    lifelong.save(state_with_random_bits(state, 5), copy)
    shutil.rmtree(copy / "1" / "params")
    with pytest.raises(InputError, match="checkpoint 1 cannot be read"):
        lifelong.load(copy)
    assert_trees_equal(lifelong.load(copy, step=0), state)


@pytest.mark.parametrize("schema", [0, 1, 2, 3, 7, "4", None])
def test_load_refuses_unknown_schema_as_other_version_not_as_damage(copy, schema):
    meta = {**read_meta(copy), "schema": schema}
    del meta["digest"]
    write_meta(copy, {**meta, "digest": json_digest(meta)})
    with pytest.raises(InputError) as error:
        lifelong.load(copy)
    words = f"was written by another version of lifelong_cvae: expected schema 4 or 5 or 6, got {schema!r}"
    one_line(error, copy, f"checkpoint 0 {words}")
    assert not isinstance(error.value, DamageError)


@pytest.mark.parametrize("schema", [3, 4, 5, 7])
def test_load_refuses_changed_schema_number_as_damage(copy, schema):
    write_meta(copy, {**read_meta(copy), "schema": schema})
    with pytest.raises(DamageError, match="checkpoint 0 is damaged: its settings differ"):
        lifelong.load(copy)


@pytest.mark.parametrize("content", ["", "null", "[1]", "{", "3", '{"schema": 1}'])
def test_load_refuses_metadata_without_settings(copy, content):
    (copy / "0" / "meta" / "metadata").write_text(content)
    with pytest.raises(InputError, match="checkpoint 0"):
        lifelong.load(copy)


@pytest.mark.parametrize(
    "key", ["schema", "names", "image_shape", "config", "visits", "base_categories_left", "checksums"]
)
def test_load_refuses_metadata_without_entry(copy, key):
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
        ("network", "output_rank", 13),
        ("network", "mixed_widths", [33]),
    ],
)
def test_load_refuses_settings_of_other_networks(copy, section, key, value):
    meta = read_meta(copy)
    assert meta["config"][section][key] != value
    meta["config"][section][key] = value
    write_meta(copy, meta)
    with pytest.raises(InputError, match="checkpoint 0"):
        lifelong.load(copy)


@pytest.mark.parametrize("names", [NAMES[:3], (*NAMES, "more")])
def test_load_refuses_other_number_of_categories(copy, names):
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
def test_load_refuses_changed_names_and_settings(copy, before, after):
    path = copy / "0" / "meta" / "metadata"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(InputError, match="checkpoint 0"):
        lifelong.load(copy)
