"""Markdown tables of a study's figures: means and sample standard deviations over seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lifelong_cvae.evaluation import continual
from lifelong_cvae.presets import PRESETS

Result = Mapping[str, Any]


class Column(NamedTuple):
    """Column of a table.

    Attributes:
        heading: text above the column.
        key: key of the figure in the figures of a run. Dots separate the keys of nested dicts.
        factor: factor that the figure is multiplied by.
        digits: number of digits after the decimal point.
    """

    heading: str
    key: str
    factor: float = 1.0
    digits: int = 2


COLUMNS = {
    "recognition": (
        Column("accuracy, %", "accuracy", 100),
        Column("average incremental accuracy, %", "over_time.average_incremental_accuracy", 100),
        Column("forgetting, points", "over_time.forgetting"),
        Column("forgetting, same candidates, points", "forgetting_same_candidates"),
        Column("backward transfer, points", "over_time.backward_transfer"),
        Column("intransigence, points", "intransigence"),
        Column("unknown categories, AUROC", "novelty.not_learned", digits=3),
        Column("parameters", "parameters", digits=0),
        Column("parameters per category", "parameters_per_category", digits=0),
    ),
    "generation": (
        Column("Fréchet distance", "imagined.frechet_distance", digits=1),
        Column("precision", "imagined.precision", digits=3),
        Column("recall", "imagined.recall", digits=3),
        Column("density", "imagined.density", digits=2),
        Column("coverage", "imagined.coverage", digits=3),
        Column("classifier agrees, %", "imagined.agreement", 100, 1),
        Column("forgetting of agreement, points", "generation_over_time.forgetting", digits=1),
        Column("fitting capacity, %", "imagined.fitting_capacity", 100, 1),
        Column("ELBO, nats", "density.elbo", digits=0),
        Column("importance-weighted bound, nats", "density.importance_bound", digits=0),
    ),
    "per_task": (
        Column("Fréchet distance", "per_task.frechet_distance", digits=1),
        Column("precision", "per_task.precision", digits=3),
        Column("recall", "per_task.recall", digits=3),
    ),
}
SUMMARY_KEYS = (
    "accuracy",
    "over_time.forgetting",
    "forgetting_same_candidates",
    "novelty.not_learned",
    "imagined.frechet_distance",
    "imagined.precision",
    "imagined.recall",
    "imagined.agreement",
    "imagined.fitting_capacity",
    "density.importance_bound",
)
COLUMNS["summary"] = tuple(
    column for kind in ("recognition", "generation") for column in COLUMNS[kind] if column.key in SUMMARY_KEYS
)
# Headings of labels whose keys in files differ.
LABEL_HEADINGS = {"categories a task": "categories per task", "images a new category": "images per new category"}


def aggregate_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Averages figures over the seeds of each combination of labels.

    Args:
        results: figures of runs, each with `labels`.

    Returns:
        A dict per combination: `labels`, `runs` (number of them), `mean` and `deviation` (key of a column to value).
        `deviation` is the sample standard deviation, and empty for a single run. A figure that one run lacks is left
        out. The reference of `intransigence` is the run of strategy `joint` with the same other labels.
    """
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(tuple(_labels(result).items()), []).append(result)
    references = {
        _reference_labels(result): result["history"]
        for result in results
        if result["labels"].get("strategy") == "joint" and "history" in result
    }
    keys = [column.key for columns in COLUMNS.values() for column in columns]
    table = []
    for labels, members in groups.items():
        values = {key: [_figure(member, key, references) for member in members] for key in keys}
        complete = {key: np.asarray(v, np.float64) for key, v in values.items() if None not in v}
        deviations = {key: float(v.std(ddof=1)) for key, v in complete.items() if len(v) > 1}
        means = {key: float(v.mean()) for key, v in complete.items()}
        table.append({"labels": dict(labels), "runs": len(members), "mean": means, "deviation": deviations})
    return table


def label_key(labels: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns a sort key of labels: numbers before texts, strategies in the order of `presets.py`."""
    strategies = list(PRESETS)

    def value_key(value: Any) -> tuple[Any, ...]:
        if value in strategies:
            return (0, strategies.index(value), "")
        number = re.match(r"\d+", str(value))
        return (0, int(number[0]), str(value)) if number else (1, 0, str(value))

    return tuple(value_key(value) for value in labels.values())


def markdown(rows: Sequence[Mapping[str, Any]], kind: str) -> str:
    """Formats rows of `aggregate_rows` as a Markdown table.

    Args:
        rows: rows. Those without any figure of the kind are left out.
        kind: key of `COLUMNS`. Columns without any figure are left out.
    """
    columns = [c for c in COLUMNS[kind] if any(c.key in row["mean"] for row in rows)]
    rows = [row for row in rows if any(c.key in row["mean"] for c in columns)]
    labels = list(dict.fromkeys(label for row in rows for label in row["labels"]))
    headings = [*(LABEL_HEADINGS.get(label, label) for label in labels), *(c.heading for c in columns), "runs"]
    lines = [_line(headings), _line(["---"] * len(headings))]
    for row in rows:
        cells = [str(row["labels"].get(label, "")) for label in labels]
        lines.append(_line([*cells, *(_cell(row, column) for column in columns), str(row["runs"])]))
    return "\n".join(lines) + "\n"


def benchmark_markdown(values: Mapping[str, Any]) -> str:
    """Formats figures of a benchmark: tables of its `rows`, of single figures and of its parts, if any."""
    lines, rows = [], values.get("rows", [])
    if rows:
        headings = list(dict.fromkeys(key for row in rows for key in row))
        lines += [_line(headings), _line(["---"] * len(headings))]
        lines += [_line([_short(row.get(heading, "")) for heading in headings]) for row in rows]
    single = {
        key: value for key, value in values.items() if isinstance(value, float | int) and key not in ("schema", "seed")
    }
    if rows and single:
        lines.append("")
    if single:
        lines += [_line(["figure", "value"]), _line(["---"] * 2)]
        lines += [_line([key.replace("_", " "), _short(value)]) for key, value in single.items()]
    for key, value in values.items():
        if isinstance(value, Mapping) and "what" in value:  # a benchmark that this one ran
            lines += ["", f"**{key}**", "", benchmark_markdown(value).rstrip()]
    lines += [f"\nerror: {part}: {message}" for part, message in values.get("errors", {}).items()]
    return "\n".join(lines) + "\n"


def _short(value: Any) -> str:
    """Formats a number with four significant digits; texts are unchanged."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _labels(result: Result) -> dict[str, Any]:
    return {label: value for label, value in result["labels"].items() if label != "seed"}


def _reference_labels(result: Result) -> frozenset[tuple[str, Any]]:
    """Returns the labels that a run has in common with its reference for intransigence."""
    left_out = ("strategy", "categories a task")
    return frozenset((label, value) for label, value in result["labels"].items() if label not in left_out)


def _figure(result: Result, key: str, references: Mapping[Any, Any]) -> float | None:
    """Returns the figure of a column's key, or None if the run lacks it."""
    if key == "intransigence":
        reference = references.get(_reference_labels(result))
        has_both = reference is not None and "history" in result
        return continual.intransigence(result["history"], reference) if has_both else None
    value: Any = result
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _cell(row: Mapping[str, Any], column: Column) -> str:
    if column.key not in row["mean"]:
        return ""
    mean = f"{column.factor * row['mean'][column.key]:.{column.digits}f}"
    deviation = column.factor * row["deviation"].get(column.key, 0.0)
    return f"{mean} ± {deviation:.{column.digits}f}" if deviation > 1e-9 else mean


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
