"""Tables in Markdown documents, generated from the files of studies and benchmarks.

A document holds pairs of marks on lines of their own. The text between them is replaced:

    <!-- table: results/strategies/mnist recognition -->
    <!-- end of table -->

The mark names one or several folders that `grids.compare` wrote, and the kind of figures (`tables.COLUMNS`). Rows of
published figures come last. A second kind of mark names a file that the launcher `benchmark` wrote:

    <!-- benchmark: results/benchmarks/playback.json -->
    <!-- end of table -->
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.studies import store, tables
from experiments.studies.cells import FLOOR_LABELS
from lifelong_cvae.errors import InputError
from lifelong_cvae.files import read_json

MARK = re.compile(r"(<!-- table: (\S+(?: \S+)*) (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
BENCHMARK_MARK = re.compile(r"(<!-- benchmark: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def render_tables(text: str, root: Path) -> str:
    """Replaces the tables between the marks of a document.

    Args:
        text: Markdown text of the document.
        root: folder that the paths in the marks are relative to.

    Raises:
        InputError: a mark names a folder without figures, or an unknown kind of table.
    """

    def render_study(match: re.Match[str]) -> str:
        begin, folders, kind, end = match.groups()
        return f"{begin}\n{study_table([root / folder for folder in folders.split()], kind)}\n{end}"

    def render_benchmark(match: re.Match[str]) -> str:
        begin, file, end = match.groups()
        values = read_json(root / file)
        return f"{begin}\n{tables.benchmark_markdown(values)}\n{_provenance([values])}\n\n{end}"

    return BENCHMARK_MARK.sub(render_benchmark, MARK.sub(render_study, text))


def update_document(file: Path, root: Path, *, check: bool = False) -> bool:
    """Replaces the tables of a document file, and returns True if the text changes.

    Args:
        file: Markdown file.
        root: folder that the paths in the marks are relative to.
        check: compares only, and writes nothing.

    Raises:
        InputError: as in `render_tables`.
    """
    before = file.read_text(encoding="utf-8")
    after = render_tables(before, root)
    if after != before and not check:
        file.write_text(after, encoding="utf-8")
    return after != before


def study_table(folders: Sequence[Path], kind: str) -> str:
    """Returns a table of figures in one or several folders, and a line on how they were measured.

    Args:
        folders: folders that `grids.compare` wrote. If there are several, a first column names them.
        kind: key of `tables.COLUMNS`.

    Raises:
        InputError: a folder without figures, or an unknown kind.
    """
    if kind not in tables.COLUMNS:
        raise InputError(f"kind of table: expected one of {', '.join(tables.COLUMNS)}, got {kind!r}")
    rows, cells = [], []
    for folder in folders:
        cells += read_cells(folder)
        for row in _rows(folder):
            labels = {"folder": folder.name, **row["labels"]} if len(folders) > 1 else row["labels"]
            rows.append({**row, "labels": labels})
    return tables.markdown(rows, kind) + "\n" + _provenance(cells) + "\n"


def read_cells(folder: Path) -> list[dict[str, Any]]:
    """Reads the figures of all runs in a folder, sorted by their labels (`tables.label_key`).

    Raises:
        InputError: the folder has no figures.
    """
    cells = store.read_figures(folder).cells
    if not cells:
        raise InputError(f"{folder}: expected a folder that `compare` wrote, got one without figures")
    return sorted(cells, key=lambda cell: tables.label_key(cell["labels"]))


def _rows(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of one folder: runs, real images, then published figures."""
    _, floor, published = store.read_figures(folder)
    real_images = [{**floor, "labels": FLOOR_LABELS}] if floor else []
    rows = tables.aggregate_rows([*read_cells(folder), *real_images])
    if published:
        rows = [{**row, "labels": {**row["labels"], "source": "measured here"}} for row in rows]
    return rows + [{"runs": "", "deviation": {}, **row} for row in published]


def _provenance(measured: Sequence[Mapping[str, Any]]) -> str:
    """Returns a line with the dates, seeds, devices and versions of measurements."""

    def distinct(values: Any) -> str:
        return ", ".join(sorted({str(value) for value in values}))

    versions = (f"{name} {version}" for values in measured for name, version in values["versions"].items())
    seeds = (values["labels"]["seed"] if "labels" in values else values["seed"] for values in measured)
    return (
        f"Measured {distinct(values['date'] for values in measured)}; seeds {distinct(seeds)}; "
        f"{distinct(values['device'] for values in measured)}; {distinct(versions)}."
    )
