"""Tables in documents, made from the files of studies: no number without a command that puts it there.

A document holds marks, each pair on lines of its own; what stands between them is replaced:

    <!-- table: results/strategies/mnist recognition -->
    <!-- end of table -->

The first names a folder that `comparison.compare` wrote and the kind of figures (`tables.COLUMNS`).
`published.json` in that folder holds rows of others' figures, which come last. Or it names a file that the
launcher `benchmark` wrote:

    <!-- benchmark: results/benchmarks/playback.json -->
    <!-- end of table -->
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.studies import tables
from experiments.studies.cells import FLOOR, FLOOR_LABELS
from lifelong_cvae.errors import InputError
from lifelong_cvae.files import read_json

MARK = re.compile(r"(<!-- table: (\S+) (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
BENCHMARK_MARK = re.compile(r"(<!-- benchmark: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def render_tables(text: str, root: Path) -> str:
    """A document with the tables between its marks made anew.

    Args:
        text: of the document, Markdown.
        root: what the folders in the marks are relative to.

    Raises:
        InputError: a mark names a folder without figures, or a kind of table that there is not.
    """

    def replaced(match: re.Match[str]) -> str:
        begin, folder, kind, end = match.groups()
        return f"{begin}\n{study_table(root / folder, kind)}\n{end}"

    def benchmark(match: re.Match[str]) -> str:
        begin, file, end = match.groups()
        values = read_json(root / file)
        return f"{begin}\n{tables.benchmark_markdown(values)}\n{_provenance([values])}\n\n{end}"

    return BENCHMARK_MARK.sub(benchmark, MARK.sub(replaced, text))


def update_document(file: Path, root: Path, *, check: bool = False) -> bool:
    """Writes the tables of a document anew; returns whether that changes it, and with `check` only that."""
    before = file.read_text(encoding="utf-8")
    after = render_tables(before, root)
    if after != before and not check:
        file.write_text(after, encoding="utf-8")
    return after != before


def study_table(folder: Path, kind: str) -> str:
    """The table of a study's folder, and a line that says when and on what it was measured."""
    if kind not in tables.COLUMNS:
        raise InputError(f"table {kind!r}: one of {', '.join(tables.COLUMNS)} is expected")
    cells = read_cells(folder)
    floor = folder / FLOOR
    real = [{**read_json(floor), "labels": FLOOR_LABELS}] if floor.exists() else []
    rows, published = tables.aggregate_rows([*cells, *real]), _published(folder)
    if published:
        rows = [{**row, "labels": {**row["labels"], "source": "measured here"}} for row in rows] + published
    return tables.markdown(rows, kind) + "\n" + _provenance(cells) + "\n"


def read_cells(folder: Path) -> list[dict[str, Any]]:
    """The cells in a folder, in the order of their labels as they were made.

    Raises:
        InputError: there are none.
    """
    files = sorted(file for file in folder.glob("*=*.json"))
    if not files:
        raise InputError(f"{folder}: no figures there; a folder that `compare` wrote is expected")
    cells = [read_json(file) for file in files]
    return sorted(cells, key=lambda cell: tables.label_key(cell["labels"]))


def _published(folder: Path) -> list[dict[str, Any]]:
    file = folder / "published.json"
    if not file.exists():
        return []
    rows = read_json(file)["rows"]
    return [{"runs": "", "deviation": {}, **row} for row in rows]


def _provenance(measured: Sequence[Mapping[str, Any]]) -> str:
    """When, with which seeds, on what and with which versions figures were measured."""

    def distinct(values: Any) -> str:
        return ", ".join(sorted({str(value) for value in values}))

    versions = (f"{name} {version}" for values in measured for name, version in values["versions"].items())
    seeds = (values["labels"]["seed"] if "labels" in values else values["seed"] for values in measured)
    return (
        f"Measured {distinct(values['date'] for values in measured)}; seeds {distinct(seeds)}; "
        f"{distinct(values['device'] for values in measured)}; {distinct(versions)}."
    )
