"""Files that hold the figures of a study.

While `compare` runs, its folder takes one JSON file per run. When it has finished, `pack` merges them into one file,
`cells.json`:

    {"schema": 1, "cells": [...], "floor": {...}, "published": [...]}

`cells` holds the figures of each run and the values they depend on, `floor` the figures of real images, and `published`
rows with figures of other authors, which are entered by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lifelong_cvae.deprecated import rename_settings
from lifelong_cvae.errors import InputError
from lifelong_cvae.files import device_description, package_versions, read_json, utc_date, write_json

PACKED = "cells.json"
FLOOR = "floor.json"
PUBLISHED = "published.json"
# Values of labels in files of version 0.1.
OLD_LABELS = {"without recognise": "without recognize"}


class StudyFigures(NamedTuple):
    """Figures of one study's folder."""

    cells: list[dict[str, Any]]
    floor: dict[str, Any] | None
    published: list[dict[str, Any]]


def run_name(labels: Mapping[str, Any]) -> str:
    """Returns the name of a run, which is also the stem of its file."""
    return re.sub(r"[^\w.,=-]+", "_", ",".join(f"{key}={value}" for key, value in labels.items()))


def read_figures(folder: Path) -> StudyFigures:
    """Reads all figures in a folder, from the packed file and from files of single runs.

    Raises:
        InputError: a file cannot be read.
    """
    figures = _read_recorded(folder)
    return figures._replace(cells=[{**cell, "labels": _current_labels(cell["labels"])} for cell in figures.cells])


def write_figures(file: Path, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Writes figures with versions, device and date, and returns them as they are read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    provenance = {"versions": package_versions(), "device": device_description(), "date": utc_date()}
    write_json(file, {**figures, **provenance})
    return _read(file)


def pack(folder: Path) -> None:
    """Merges all figures in a folder into `cells.json` and deletes the other files.

    If `pack` is interrupted, figures may be in both places, and the next call completes it.
    """
    cells, floor, published = _read_recorded(folder)
    optional = {"floor": floor, "published": published}
    write_json(folder / PACKED, {"cells": cells, **{key: value for key, value in optional.items() if value}})
    for file in [*_run_files(folder), folder / FLOOR, folder / PUBLISHED]:
        file.unlink(missing_ok=True)


def check_identity(recorded: Mapping[str, Any], identity: Mapping[str, Any], subject: str) -> None:
    """Raises InputError if recorded figures depend on other values than a run.

    Old names of settings are translated.

    Args:
        recorded: figures as they were read.
        identity: values that the figures of the run depend on.
        subject: beginning of the error message.
    """
    for key, value in identity.items():
        if _current_settings(recorded.get(key)) != _current_settings(json.loads(json.dumps(value))):
            raise InputError(
                f"{subject}: expected figures of the same {key}, got another run's: "
                "choose another --workdir, or delete them"
            )


def _read_recorded(folder: Path) -> StudyFigures:
    packed = _read(folder / PACKED) if (folder / PACKED).exists() else {}
    cells = [*packed.get("cells", []), *map(_read, _run_files(folder))]
    by_name = {run_name(_current_labels(cell["labels"])): cell for cell in cells}
    floor = _read(folder / FLOOR) if (folder / FLOOR).exists() else packed.get("floor")
    rows = _read(folder / PUBLISHED) if (folder / PUBLISHED).exists() else {"rows": packed.get("published", [])}
    return StudyFigures([by_name[name] for name in sorted(by_name)], floor, rows["rows"])


def _read(file: Path) -> dict[str, Any]:
    return {key: value for key, value in read_json(file).items() if key != "schema"}


def _run_files(folder: Path) -> list[Path]:
    # Unfinished files begin with a dot.
    return sorted(folder.glob("[!.]*=*.json"))


def _current_labels(labels: Mapping[str, Any]) -> dict[str, Any]:
    return {key: OLD_LABELS.get(value, value) for key, value in labels.items()}


def _current_settings(value: Any) -> Any:
    """Translates names of settings of version 0.1, at any depth."""
    if not isinstance(value, Mapping):
        return value
    return {key: _current_settings(part) for key, part in rename_settings(value, log=False).items()}
