"""The files of a run: `config.json`, `metrics.jsonl`, `result.json`; and what made them."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from lifelong_cvae.errors import InputError
from lifelong_cvae.version import __version__

SCHEMA = 1
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object with `"schema"`, through a file beside it, so that it is never half there."""
    text = json.dumps({"schema": SCHEMA, **values}, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(file) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


def read_json(file: Path) -> dict[str, Any]:
    """Reads what `write_json` wrote.

    Raises:
        InputError: the file is missing, no JSON object, or of another schema.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file; a folder that `learn` wrote is expected") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{file}: not readable as JSON ({error})") from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise InputError(f"{file}: a JSON object of schema {SCHEMA} is expected")
    return values


def append_line(file: Path, values: Mapping[str, Any]) -> None:
    """Appends one line of JSON, and has it on disk when it returns."""
    line = json.dumps({"schema": SCHEMA, **values}, ensure_ascii=False, allow_nan=False)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_lines(file: Path) -> list[dict[str, Any]]:
    """What `append_line` appended, one after another; half a line at the end, where a process died, is not.

    Raises:
        InputError: a line is no JSON object.
    """
    return _parse_lines(file, _complete_lines(file))


def keep_lines(file: Path, count: int) -> list[dict[str, Any]]:
    """Cuts a file of JSON lines back to its first `count`, and returns them.

    Raises:
        InputError: there are fewer, or one of them is no JSON object; the file stays as it is.
    """
    lines = _complete_lines(file)[:count]
    values = _parse_lines(file, lines)
    if len(values) < count:
        raise InputError(f"{file}: {count} lines are expected, one for each task learned, got {len(values)}")
    with atomic_write(file) as draft:
        draft.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return values


def _complete_lines(file: Path) -> list[str]:
    # Newlines alone: `splitlines` would also split at separators that JSON texts may hold.
    return file.read_text(encoding="utf-8").split("\n")[:-1] if file.is_file() else []


def _parse_lines(file: Path, lines: Sequence[str]) -> list[dict[str, Any]]:
    try:
        values = [json.loads(line) for line in lines]
    except ValueError as error:
        raise InputError(f"{file}: a line is no JSON ({error})") from error
    if not all(isinstance(value, dict) for value in values):
        raise InputError(f"{file}: a JSON object in each line is expected")
    return values


def draft_path(file: Path) -> Path:
    """Where a file is until it is whole."""
    return file.with_name(f".{file.stem}.tmp{file.suffix}")


@contextlib.contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Gives a draft to write to, which takes the file's place as a whole and on disk, or not at all."""
    draft = draft_path(file)
    try:
        yield draft
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def with_digest(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with a digest of them, by which `check_seal` tells whether they were changed."""
    return {**values, "digest": _digest(values)}


def verify_digest(file: Path, values: Mapping[str, Any]) -> None:
    """Raises InputError where what `read_json` gave for a file is not what was `sealed`."""
    rest = {key: value for key, value in values.items() if key not in ("schema", "digest")}
    if values.get("digest") != _digest(rest):
        raise InputError(f"{file} is not as it was written (its digest differs): undo the change, or begin a new run")


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def json_round_trip(value: Any) -> Any:
    """A value as it comes back from JSON: tuples as lists, keys as texts."""
    return json.loads(json.dumps(value))


def utc_date() -> str:
    """The date, as in 2026-01-31 (UTC)."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that the figures depend on."""
    packages = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {"lifelong_cvae": __version__, "python": platform.python_version(), **packages}


def device_description() -> str:
    """What computes, in words."""
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform}), {os.cpu_count()} CPU cores"
