"""What a run records and says: a line after each task, and the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lifelong_cvae.evaluation import continual, metrics
from lifelong_cvae.files import device_description, package_versions
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.state import LifelongState
from lifelong_cvae.training.learn import Report

TABLE_HEAD = f"{'task':>4}  {'learned':<16}{'accuracy':>9}{'of new':>9}{'loss':>9}{'seconds':>9}{'images/s':>10}"

# Recognizer to true category to log p(x|c) of its images, `[n, categories]`.
LogPosteriors = Mapping[str, Mapping[str, np.ndarray]]


def task_metrics(task: int, report: Report, answers: LogPosteriors, state: LifelongState) -> dict[str, Any]:
    """A line of metrics.jsonl: what learning a task took, and what the state after it knows."""
    return {
        "task": task,
        "categories": list(report.names),
        **metrics.recognition_metrics(answers, state),
        "terms": report.terms,
        "steps": report.steps,
        "seconds": report.seconds,
        "images_per_second": report.images_per_second,
        "parameters_per_category": report.parameters_per_category,
        "compilations": report.compilations,
    }


def run_result(
    run_config: RunConfig,
    history: list[dict[str, Any]],
    answers: LogPosteriors,
    state: LifelongState,
    *,
    seconds_total: float,
) -> dict[str, Any]:
    """What result.json holds of a run.

    Args:
        run_config: of the run.
        history: lines of metrics.jsonl.
        answers: of the last state.
        state: the last one.
        seconds_total: of the whole run.
    """
    recognizer = state.config.recognition.recognizer
    by_elbo = _over_time(run_config, history, answers["elbo"], state, suffix="_elbo")
    return {
        "recognizer": recognizer,
        **_over_time(run_config, history, answers[recognizer], state),
        **{f"{key}_elbo": value for key, value in by_elbo.items()},
        "parameters_per_category": history[-1]["parameters_per_category"],
        "seconds_total": seconds_total,
        "seconds_learning": sum(line["seconds"] for line in history),
        "categories": list(state.names),
        "versions": package_versions(),
        "device": device_description(),
    }


def _over_time(
    run_config: RunConfig,
    history: list[dict[str, Any]],
    answers: Mapping[str, np.ndarray],
    state: LifelongState,
    *,
    suffix: str = "",
) -> dict[str, Any]:
    """Figures of one recognizer, whose accuracies the history holds under keys with a suffix."""
    matrix = [line[f"accuracy_per_category{suffix}"] for line in history]
    candidates = continual.known_after_task(run_config.tasks)
    restricted = continual.accuracy_per_category(answers, state.names, candidates=candidates)
    return {
        "accuracy": history[-1][f"accuracy{suffix}"],
        "accuracy_per_category": matrix[-1],
        "calibration_error": history[-1][f"calibration_error{suffix}"],
        **continual.summary(matrix),
        "forgetting_same_candidates": continual.forgetting(matrix, restricted),
    }


def task_scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a line of metrics.jsonl that are curves over tasks: name, with a group, to value."""
    whole = {name: line[name] for name in line if name.startswith(("accuracy", "calibration_error"))}
    groups = {name: value for name, value in whole.items() if isinstance(value, Mapping)}
    curves = {f"recognition/{name}": value for name, value in whole.items() if name not in groups}
    for group, values in groups.items():
        curves |= {f"{group}/{name}": value for name, value in values.items()}
    return {**curves, "time/seconds": line["seconds"], "time/images_per_second": line["images_per_second"]}


def table_row(line: Mapping[str, Any]) -> str:
    """A line of metrics.jsonl for the eye: accuracies in per cent, loss in nats per image."""
    names = line["categories"]
    of_new = np.mean([line["accuracy_per_category"][name] for name in names])
    label = ", ".join(names)
    label = label if len(label) < 16 else label[:14] + "…"
    return (
        f"{line['task']:>4}  {label:<16}{100 * line['accuracy']:>8.2f}%{100 * of_new:>8.2f}%"
        f"{line['terms']['real']:>9.1f}{line['seconds']:>9.1f}{line['images_per_second']:>10.0f}"
    )
