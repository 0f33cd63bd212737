"""Curves of a study over the tasks of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lifelong_cvae import plotting
from lifelong_cvae.evaluation import continual

WIDTH, HEIGHT = 4.2, 3.2


def plot_over_time(results: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Plots average accuracy, forgetting and agreement after each task, one line per kind of run.

    Lines are means over seeds, bands extend from the lowest to the highest value. A run of one task is a horizontal
    line.

    Args:
        results: figures of a study (`cells.run_cells`).
        file: PNG to write.
    """
    with plotting.without_backend():
        from matplotlib.figure import Figure

    groups: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        label = ", ".join(str(value) for key, value in result["labels"].items() if key != "seed")
        groups.setdefault(label, []).append(result)
    panels = {
        "average accuracy, %": ("history", lambda rows: 100 * continual.average_accuracy(rows)),
        "forgetting, points": ("history", continual.forgetting),
        "classifier agrees with imagined images, %": (
            "agreement_history",
            lambda rows: 100 * continual.average_accuracy(rows),
        ),
    }
    figure = Figure(figsize=(WIDTH * len(panels), HEIGHT), dpi=150, layout="constrained")
    for axes, (title, (key, measure)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for index, (label, members) in enumerate(groups.items()):
            histories = [member[key] for member in members]
            values = np.asarray([[measure(rows[: t + 1]) for t in range(len(rows))] for rows in histories])
            _plot_line(axes, values, label, f"C{index % 10}" if index < 10 else "0.5")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("task")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    plotting.write_figure(figure, file)


def _plot_line(axes: Any, values: np.ndarray, label: str, color: str) -> None:
    """Draws values `[seeds, tasks]`."""
    if values.shape[1] == 1:
        axes.axhline(values.mean(), color=color, linestyle="--", label=label)
        return
    tasks = range(1, values.shape[1] + 1)
    axes.plot(tasks, values.mean(axis=0), color=color, label=label, marker=".")
    axes.fill_between(tasks, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, linewidth=0)
