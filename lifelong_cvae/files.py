"""Files of a run: atomic JSON files, JSON lines, digests, and the versions that produced them."""

import contextlib
import csv
import datetime
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from lifelong_cvae.errors import InputError
from lifelong_cvae.version import __version__

SCHEMA = 1
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def local_path(path: str | Path, *, what: str = "path") -> Path:
    """Returns a path on this machine, with `~` expanded.

    Raises:
        InputError: an address such as gs://bucket/folder, or the home folder of an unknown user.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise InputError(f"{what}: expected a path on this machine, got the address {path}")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{what}: expected the home folder of a user, got {path} ({error})") from error


def csv_line(names: Sequence[str]) -> str:
    """Returns names as `--categories` reads them: separated by commas, quoted if they hold one."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object with the key `schema`, atomically."""
    text = json.dumps({"schema": SCHEMA, **values}, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(file) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


def read_json(file: Path) -> dict[str, Any]:
    """Reads a file written by `write_json`.

    Raises:
        InputError: the file is missing, not a JSON object, or of another schema.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{file}: expected a file that `learn` wrote, got no such file") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{file}: expected JSON ({error})") from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        got = f"schema {values.get('schema')!r}" if isinstance(values, dict) else type(values).__name__
        raise InputError(f"{file}: expected a JSON object of schema {SCHEMA}, got {got}")
    return values


def append_line(file: Path, values: Mapping[str, Any]) -> None:
    """Appends one line of JSON and syncs the file to disk."""
    line = json.dumps({"schema": SCHEMA, **values}, ensure_ascii=False, allow_nan=False)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Reads the lines written by `append_line`.

    An incomplete last line, left by a killed process, is skipped.

    Raises:
        InputError: a line is not a JSON object.
    """
    return _parse_lines(file, _complete_lines(file))


def keep_lines(file: Path, count: int) -> list[dict[str, Any]]:
    """Truncates a file of JSON lines to its first `count` lines and returns them.

    Raises:
        InputError: there are fewer lines, or one is not a JSON object. The file is then unchanged.
    """
    lines = _complete_lines(file)[:count]
    values = _parse_lines(file, lines)
    if len(values) < count:
        raise InputError(f"{file}: expected {count} lines, one for each learned task, got {len(values)}")
    with atomic_write(file) as draft:
        draft.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return values


def _complete_lines(file: Path) -> list[str]:
    # Not `splitlines`, which also splits at separators that JSON strings may hold.
    return file.read_text(encoding="utf-8").split("\n")[:-1] if file.is_file() else []


def _parse_lines(file: Path, lines: Sequence[str]) -> list[dict[str, Any]]:
    try:
        values = [json.loads(line) for line in lines]
    except ValueError as error:
        raise InputError(f"{file}: expected JSON in each line ({error})") from error
    for value in values:
        if not isinstance(value, dict):
            raise InputError(f"{file}: expected a JSON object in each line, got {type(value).__name__}")
    return values


def draft_path(file: Path) -> Path:
    """Returns the path of a file while it is being written."""
    return file.with_name(f".{file.stem}.tmp{file.suffix}")


@contextlib.contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Yields the path of a draft that replaces the file on success and is deleted otherwise."""
    draft = draft_path(file)
    try:
        yield draft
        with draft.open("ab") as stream:  # a file has to be writable for this on Windows
            os.fsync(stream.fileno())
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def with_digest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values with a SHA-256 of them, for `verify_digest`."""
    return {**values, "digest": json_digest(values)}


def verify_digest(file: Path, values: Mapping[str, Any]) -> None:
    """Raises InputError if values that `read_json` read from a file do not match their digest."""
    rest = {key: value for key, value in values.items() if key not in ("schema", "digest")}
    if values.get("digest") != json_digest(rest):
        raise InputError(
            f"{file}: expected the file as it was written, got another digest: undo the change, or start a new run"
        )


def json_digest(values: Mapping[str, Any]) -> str:
    """Computes the SHA-256 of values as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def utc_date() -> str:
    """Returns the date in UTC, as in 2026-01-31."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def package_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that results depend on."""
    packages = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {"lifelong_cvae": __version__, "python": platform.python_version(), **packages}


def device_description() -> str:
    """Returns number, kind and platform of the devices, and the number of CPU cores."""
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform}), {os.cpu_count()} CPU cores"
