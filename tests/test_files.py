"""Files of a run: JSON files and JSON lines are complete or absent."""

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


def file_names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_json_round_trip_is_exact_and_has_schema(tmp_path):
    file = tmp_path / "result.json"
    write_json(file, VALUES)
    assert read_json(file) == {"schema": 1, **VALUES}
    text = file.read_text(encoding="utf-8")
    assert json.loads(text)["third"] == 1 / 3
    assert "ζ猫" in text
    assert text.endswith("}\n")
    assert file_names(tmp_path) == ["result.json"]


def test_write_json_replaces_file_atomically(tmp_path):
    file = tmp_path / "result.json"
    write_json(file, {"long": "x" * 1000})
    before = file.read_bytes()
    with file.open("rb") as reader:
        write_json(file, {"a": 1})
        assert reader.read() == before, "an open reader still reads the complete old file"
    assert read_json(file) == {"schema": 1, "a": 1}


@pytest.mark.parametrize(
    ("value", "error"), [(float("nan"), ValueError), (float("inf"), ValueError), (object(), TypeError)]
)
def test_write_json_refuses_other_values_and_writes_nothing(tmp_path, value, error):
    file = tmp_path / "result.json"
    with pytest.raises(error):
        write_json(file, {"a": 1, "b": value})
    assert file_names(tmp_path) == []
    write_json(file, {"a": 1})
    before = file.read_bytes()
    with pytest.raises(error):
        write_json(file, {"b": value})
    assert file.read_bytes() == before


def test_write_json_on_full_disk_keeps_old_file(tmp_path):
    file = tmp_path / "result.json"
    write_json(file, {"a": 1})
    before = file.read_bytes()
    with full_disk(100), pytest.raises(OSError, match="too large"):
        write_json(file, {"a": "x" * 10_000})
    assert file.read_bytes() == before


def test_read_json_names_missing_file_and_its_writer(tmp_path):
    with pytest.raises(InputError) as error:
        read_json(tmp_path / "config.json")
    one_line(error, tmp_path / "config.json", "expected a file that `learn` wrote, got no such file")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expected JSON ("),
        (b'{"schema": 1, "a": ', "expected JSON ("),
        (b'{"schema": 1}\n{"schema": 1}', "expected JSON ("),
        (b'{"schema": 1, "a": "\xff"}', "expected JSON ("),
        (b"[1, 2]", "expected a JSON object of schema 1, got list"),
        (b"1", "expected a JSON object of schema 1, got int"),
        (b"{}", "expected a JSON object of schema 1, got schema None"),
        (b'{"schema": 2}', "expected a JSON object of schema 1, got schema 2"),
        (b'{"schema": "1"}', "expected a JSON object of schema 1, got schema '1'"),
    ],
)
def test_read_json_refuses_file_without_object_of_this_schema(tmp_path, content, words):
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_json(file)
    one_line(error, file, words)
    assert file.read_bytes() == content


def test_read_json_refuses_folder(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(InputError) as error:
        read_json(tmp_path / "config.json")
    one_line(error, tmp_path / "config.json", "expected JSON (")


def test_append_line_writes_one_line_each_in_order(tmp_path):
    file = tmp_path / "metrics.jsonl"
    for task in (1, 2, 3):
        append_line(file, {"task": task, **VALUES})
    lines = file.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == [{"schema": 1, "task": t, **VALUES} for t in (1, 2, 3)]


def test_append_line_refuses_nan_and_keeps_file(tmp_path):
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
def test_keep_lines_truncates_to_first_lines(five_lines, count):
    before = five_lines.read_bytes().split(b"\n")
    kept = keep_lines(five_lines, count)
    assert kept == [{"schema": 1, "task": task, "name": "ζ"} for task in range(1, count + 1)]
    assert five_lines.read_bytes() == b"".join(line + b"\n" for line in before[:count])
    assert file_names(five_lines.parent) == ["metrics.jsonl"]


def test_append_line_continues_after_keep_lines(five_lines):
    keep_lines(five_lines, 2)
    append_line(five_lines, {"task": "new"})
    assert [line["task"] for line in keep_lines(five_lines, 3)] == [1, 2, "new"]


def test_keep_lines_removes_incomplete_last_line(five_lines):
    with five_lines.open("a") as stream:
        stream.write('{"schema": 1, "ta')
    assert len(keep_lines(five_lines, 5)) == 5
    append_line(five_lines, {"task": 6})
    assert [line["task"] for line in keep_lines(five_lines, 6)] == [1, 2, 3, 4, 5, 6]


def test_keep_lines_refuses_too_few_lines_and_keeps_file(five_lines):
    before = five_lines.read_bytes()
    with pytest.raises(InputError) as error:
        keep_lines(five_lines, 6)
    one_line(error, five_lines, "expected 6 lines", "got 5")
    assert five_lines.read_bytes() == before


def test_keep_lines_refuses_line_without_json_and_keeps_file(five_lines):
    content = five_lines.read_bytes().replace(b'"task": 3', b'"task": ')
    five_lines.write_bytes(content)
    with pytest.raises(InputError) as error:
        keep_lines(five_lines, 4)
    one_line(error, five_lines, "expected JSON in each line")
    assert five_lines.read_bytes() == content


def test_keep_lines_accepts_missing_file_for_zero_lines_only(tmp_path):
    assert keep_lines(tmp_path / "metrics.jsonl", 0) == []
    with pytest.raises(InputError) as error:
        keep_lines(tmp_path / "none.jsonl", 1)
    one_line(error, tmp_path / "none.jsonl", "expected 1 lines", "got 0")


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_keep_lines_does_not_split_at_unicode_separators(tmp_path, separator):
    file = tmp_path / "metrics.jsonl"
    append_line(file, {"name": f"a{separator}b"})
    assert keep_lines(file, 1) == [{"schema": 1, "name": f"a{separator}b"}]


def test_package_versions_are_those_of_installed_packages():
    versions = package_versions()
    assert versions.pop("lifelong_cvae") == lifelong.__version__
    assert versions.pop("python") == platform.python_version()
    assert {"jax", "flax", "optax", "orbax-checkpoint"} <= set(versions)
    assert versions == {name: importlib.metadata.version(name) for name in versions}


def test_device_description_counts_devices_and_names_platform():
    device = device_description()
    assert device.startswith(f"{jax.device_count()} x ")
    assert jax.default_backend() in device
