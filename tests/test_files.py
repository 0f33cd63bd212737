"""Records: JSON files and JSON lines that are whole or not there."""

import importlib.metadata
import json
import platform

import jax
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.errors import InputError
from lifelong_cvae.files import append_line, device_description, keep_lines, package_versions, read_json, write_json
from tests.conftest import full_disk, one_line

VALUES = {
    "name": "T-shirt/top ζ猫\n",
    "third": 1 / 3,
    "tiny": 5e-324,
    "count": 2**63,
    "nested": {"list": [1, None, True]},
}


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_json_file_reads_back_exactly_and_carries_its_schema(tmp_path):
    file = tmp_path / "result.json"
    write_json(file, VALUES)
    assert read_json(file) == {"schema": 1, **VALUES}
    text = file.read_text(encoding="utf-8")
    assert json.loads(text)["third"] == 1 / 3
    assert "ζ猫" in text
    assert text.endswith("}\n")
    assert listing(tmp_path) == ["result.json"]


def test_a_json_file_is_replaced_as_a_whole(tmp_path):
    file = tmp_path / "result.json"
    write_json(file, {"long": "x" * 1000})
    before = file.read_bytes()
    with file.open("rb") as reader:
        write_json(file, {"a": 1})
        assert reader.read() == before, "who has opened the old file reads the whole of it"
    assert read_json(file) == {"schema": 1, "a": 1}


@pytest.mark.parametrize(
    ("value", "error"), [(float("nan"), ValueError), (float("inf"), ValueError), (object(), TypeError)]
)
def test_what_json_cannot_hold_is_refused_and_nothing_is_written(tmp_path, value, error):
    file = tmp_path / "result.json"
    with pytest.raises(error):
        write_json(file, {"a": 1, "b": value})
    assert listing(tmp_path) == []
    write_json(file, {"a": 1})
    before = file.read_bytes()
    with pytest.raises(error):
        write_json(file, {"b": value})
    assert file.read_bytes() == before


def test_a_full_disk_leaves_the_old_json_file_as_it_was(tmp_path):
    file = tmp_path / "result.json"
    write_json(file, {"a": 1})
    before = file.read_bytes()
    with full_disk(100), pytest.raises(OSError, match="too large"):
        write_json(file, {"a": "x" * 10_000})
    assert file.read_bytes() == before


def test_a_missing_json_file_is_told_with_what_would_write_it(tmp_path):
    with pytest.raises(InputError) as error:
        read_json(tmp_path / "config.json")
    one_line(error, tmp_path / "config.json", "no such file", "learn")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"schema": 1, "a": ',
        b'{"schema": 1}\n{"schema": 1}',
        b'{"schema": 1, "a": "\xff"}',
        b"[1, 2]",
        b"1",
        b"{}",
        b'{"schema": 2}',
        b'{"schema": "1"}',
    ],
)
def test_a_file_that_is_no_json_object_of_this_schema_is_refused(tmp_path, content):
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_json(file)
    one_line(error, file)
    assert file.read_bytes() == content


def test_a_folder_in_place_of_a_json_file_is_refused(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(InputError) as error:
        read_json(tmp_path / "config.json")
    one_line(error, tmp_path / "config.json")


def test_lines_are_appended_in_order_one_line_each(tmp_path):
    file = tmp_path / "metrics.jsonl"
    for task in (1, 2, 3):
        append_line(file, {"task": task, **VALUES})
    lines = file.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == [{"schema": 1, "task": t, **VALUES} for t in (1, 2, 3)]


def test_a_line_with_nan_is_refused_and_the_file_stays(tmp_path):
    file = tmp_path / "metrics.jsonl"
    append_line(file, {"task": 1})
    before = file.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        append_line(file, {"loss": float("nan")})
    assert file.read_bytes() == before


@pytest.fixture
def five_lines(tmp_path):
    file = tmp_path / "metrics.jsonl"
    for task in range(1, 6):
        append_line(file, {"task": task, "name": "ζ"})
    return file


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_lines_are_cut_back_to_the_first_ones(five_lines, count):
    before = five_lines.read_bytes().split(b"\n")
    kept = keep_lines(five_lines, count)
    assert kept == [{"schema": 1, "task": task, "name": "ζ"} for task in range(1, count + 1)]
    assert five_lines.read_bytes() == b"".join(line + b"\n" for line in before[:count])
    assert listing(five_lines.parent) == ["metrics.jsonl"]


def test_appending_goes_on_after_the_cut(five_lines):
    keep_lines(five_lines, 2)
    append_line(five_lines, {"task": "new"})
    assert [line["task"] for line in keep_lines(five_lines, 3)] == [1, 2, "new"]


def test_a_line_torn_by_a_crash_is_cut_away(five_lines):
    with five_lines.open("a") as stream:
        stream.write('{"schema": 1, "ta')
    assert len(keep_lines(five_lines, 5)) == 5
    append_line(five_lines, {"task": 6})
    assert [line["task"] for line in keep_lines(five_lines, 6)] == [1, 2, 3, 4, 5, 6]


def test_fewer_lines_than_tasks_learned_are_refused_and_the_file_stays(five_lines):
    before = five_lines.read_bytes()
    with pytest.raises(InputError) as error:
        keep_lines(five_lines, 6)
    one_line(error, five_lines, "6 lines", "got 5")
    assert five_lines.read_bytes() == before


def test_a_kept_line_that_is_no_json_is_refused_and_the_file_stays(five_lines):
    content = five_lines.read_bytes().replace(b'"task": 3', b'"task": ')
    five_lines.write_bytes(content)
    with pytest.raises(InputError) as error:
        keep_lines(five_lines, 4)
    one_line(error, five_lines, "no JSON")
    assert five_lines.read_bytes() == content


def test_a_file_of_lines_may_be_missing_where_no_task_was_learned(tmp_path):
    assert keep_lines(tmp_path / "metrics.jsonl", 0) == []
    with pytest.raises(InputError) as error:
        keep_lines(tmp_path / "none.jsonl", 1)
    one_line(error, tmp_path / "none.jsonl", "got 0")


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_line_separators_of_unicode_end_no_line(tmp_path, separator):
    file = tmp_path / "metrics.jsonl"
    append_line(file, {"name": f"a{separator}b"})
    assert keep_lines(file, 1) == [{"schema": 1, "name": f"a{separator}b"}]


def test_versions_are_those_of_the_installed_packages():
    versions = package_versions()
    assert versions.pop("lifelong_cvae") == lifelong.__version__
    assert versions.pop("python") == platform.python_version()
    assert {"jax", "flax", "optax", "orbax-checkpoint"} <= set(versions)
    assert versions == {name: importlib.metadata.version(name) for name in versions}


def test_the_device_is_told_in_words():
    device = device_description()
    assert device.startswith(f"{jax.device_count()} x ")
    assert jax.default_backend() in device
