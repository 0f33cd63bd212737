"""Studies: grids of whole runs, one JSON file for each, and a table of them.

A cell is a run that is learned, evaluated and forgotten; only its figures stay. A study can be broken off
and taken up again: a cell whose file is there is not run anew.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lifelong_cvae import growth, learning, records
from lifelong_cvae.data import Source
from lifelong_cvae.evaluation import continual, measures
from lifelong_cvae.evaluation.judge import Judge
from lifelong_cvae.plan import Plan


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        plan: what is learned, and from what.
        labels: what distinguishes it, column of the table to value.
    """

    plan: Plan
    labels: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A file name."""
        return re.sub(r"[^\w.=-]+", "_", ",".join(f"{key}={value}" for key, value in self.labels.items()))


def run_cell(cell: Cell, source: Source, judge: Judge, *, samples: int) -> dict[str, Any]:
    """Learns and evaluates one cell; nothing but the figures stays."""
    plan, rng, start = cell.plan, jax.random.key(cell.plan.seed), time.perf_counter()
    few = plan.narrowed(source)
    state = growth.init(plan.config, source.image_shape, rng=rng)
    history = []
    for names in plan.tasks:
        state, _ = learning.learn(state, {name: few.read("train", name) for name in names}, rng=rng)
        evidence = measures.evidence_by_category(state, source, plan.evaluate_on, rng=rng)
        accuracies = continual.accuracies(evidence, state.names)
        history.append(accuracies["accuracy_per_category"])
    generation = measures.generated(state, few, plan.evaluate_on, judge, samples=samples, rng=rng)
    return {
        "labels": dict(cell.labels),
        "plan": plan.to_dict(),
        "accuracy": accuracies["accuracy"],
        "forgetting": continual.forgetting(history),
        "parameters_per_category": growth.parameters_per_category(state),
        **measures.density(state, source, plan.evaluate_on, rng=rng),
        "frechet_distance": generation["frechet_distance"],
        "agreement": generation["agreement"],
        "seconds": time.perf_counter() - start,
        "versions": records.versions(),
        "device": records.device(),
    }


def run_cells(
    cells: Iterable[Cell],
    folder: Path,
    source: Source,
    judge: Judge,
    *,
    samples: int,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Runs the cells that `folder` does not hold yet, and returns the figures of all."""
    cells = list(cells)
    results = []
    for index, cell in enumerate(cells):
        file = folder / f"{cell.name}.json"
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            records.write_json(file, run_cell(cell, source, judge, samples=samples))
        results.append(records.read_json(file))
        say(f"{index + 1}/{len(cells)}  {cell.name}  {100 * results[-1]['accuracy']:.2f} %")
    return results


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a row per combination of labels, means and standard deviations over order seeds."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for result in results:
        key = tuple(value for label, value in result["labels"].items() if label != "order seed")
        groups.setdefault(key, []).append(result)
    columns = [label for label in results[0]["labels"] if label != "order seed"]
    figures = {
        "accuracy, %": ("accuracy", 100, 2),
        "Fréchet distance": ("frechet_distance", 1, 1),
        "judge agrees, %": ("agreement", 100, 1),
        "bound, nats": ("importance_bound", 1, 0),
        "parameters a category": ("parameters_per_category", 1, 0),
    }
    lines = ["| " + " | ".join([*columns, *figures, "runs"]) + " |"]
    lines.append("|" + "---|" * (len(columns) + len(figures) + 1))
    for key, members in groups.items():
        cells = [_spread(members, *figure) for figure in figures.values()]
        lines.append("| " + " | ".join([*map(str, key), *cells, str(len(members))]) + " |")
    return "\n".join(lines) + "\n"


def _spread(members: Sequence[Mapping[str, Any]], name: str, factor: float, digits: int) -> str:
    values = factor * np.asarray([member[name] for member in members])
    mean = f"{values.mean():.{digits}f}"
    varies = len(values) > 1 and values.std(ddof=1) > 0
    return f"{mean} ± {values.std(ddof=1):.{digits}f}" if varies else mean
