"""Metrics of a run: a line after each task, the result, and the rows that are printed."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from lifelong_cvae.data import Source
from lifelong_cvae.deprecated import with_old_keys
from lifelong_cvae.evaluation import continual, metrics
from lifelong_cvae.files import device_description, package_versions
from lifelong_cvae.images import Shape
from lifelong_cvae.model.vectors import is_vector
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.state import LifelongState
from lifelong_cvae.training.learn import Report

TABLE_HEAD = f"{'task':>4}  {'learned':<16}{'accuracy':>9}{'of new':>9}{'loss':>9}{'seconds':>9}{'images/s':>10}"

# Largest number of categories whose images are counted one by one in a line.
MAX_COUNTS = 20

# Recognizer to true category to log p(x|c) of its images, `[n, categories]`.
LogPosteriors = Mapping[str, Mapping[str, np.ndarray]]


def describe_source(source: Source, config: RunConfig) -> str:
    """Describes the images of a run in a line: shape, pixel values, number per category and split."""
    names = list(itertools.chain(*config.tasks))
    parts = [describe_shape(source.image_shape), *describe_values(source)]
    for split in dict.fromkeys(("train", config.evaluate_on)):
        parts.append(f"{split} {describe_counts({name: source.counts[split][name] for name in names})}")
    return "; ".join(parts)


def describe_shape(shape: Shape) -> str:
    """Returns a shape as text, such as `images 28 x 28 x 1` or `vectors of 512 numbers`."""
    return f"vectors of {shape[0]} numbers" if is_vector(shape) else f"images {' x '.join(map(str, shape))}"


def describe_values(source: Source) -> list[str]:
    """Returns the pixel values of a source, and the value that stands for white, as far as they are known."""
    values = [] if source.values is None else [str(source.values)]
    return values if source.max_value is None else [*values, f"white is {source.max_value:g}"]


def describe_counts(counts: Mapping[str, int]) -> str:
    """Describes a number of images per category, by range if there are more than `MAX_COUNTS` categories."""
    if len(counts) <= MAX_COUNTS:
        return ", ".join(f"{name}: {count}" for name, count in counts.items())
    low, high = min(counts.values()), max(counts.values())
    each = f"{low}" if low == high else f"{low} to {high}"
    return f"{each} of each of {len(counts)} categories"


def task_metrics(task: int, report: Report, log_posteriors: LogPosteriors, state: LifelongState) -> dict[str, Any]:
    """Returns a line of `metrics.jsonl`: cost and losses of a task, and accuracies after it."""
    return with_old_keys(
        {
            "task": task,
            "categories": list(report.names),
            **metrics.recognition_metrics(log_posteriors, state),
            "terms": report.terms,
            "steps": report.steps,
            "seconds": report.seconds,
            "images_per_second": report.images_per_second,
            "parameters_per_category": report.parameters_per_category,
            "compilations": report.compilations,
        }
    )


def run_result(
    config: RunConfig,
    history: list[dict[str, Any]],
    log_posteriors: LogPosteriors,
    state: LifelongState,
    *,
    seconds_total: float,
) -> dict[str, Any]:
    """Returns the content of `result.json`.

    Args:
        config: configuration of the run.
        history: lines of metrics.jsonl.
        log_posteriors: log posteriors of the last state.
        state: the last state.
        seconds_total: duration of the run in seconds.
    """
    recognizer = state.config.recognition.recognizer
    by_elbo = _metrics_over_time(config, history, log_posteriors["elbo"], state, suffix=continual.ELBO_SUFFIX)
    return with_old_keys(
        {
            "recognizer": recognizer,
            **_metrics_over_time(config, history, log_posteriors[recognizer], state),
            **continual.with_suffix(by_elbo, continual.ELBO_SUFFIX),
            "parameters_per_category": history[-1]["parameters_per_category"],
            "seconds_total": seconds_total,
            "seconds_learning": sum(line["seconds"] for line in history),
            "categories": list(state.names),
            "versions": package_versions(),
            "device": device_description(),
        }
    )


def _metrics_over_time(
    config: RunConfig,
    history: list[dict[str, Any]],
    log_posteriors: Mapping[str, np.ndarray],
    state: LifelongState,
    *,
    suffix: str = "",
) -> dict[str, Any]:
    """Returns accuracies and forgetting of one recognizer, whose keys in the history end in `suffix`."""
    matrix = [line[f"accuracy_per_category{suffix}"] for line in history]
    candidates = continual.known_after_task(config.tasks)
    restricted = continual.accuracy_per_category(log_posteriors, state.names, candidates=candidates)
    return {
        "accuracy": history[-1][f"accuracy{suffix}"],
        "accuracy_per_category": matrix[-1],
        "calibration_error": history[-1][f"calibration_error{suffix}"],
        **continual.summary(matrix),
        "forgetting_same_candidates": continual.forgetting(matrix, restricted),
    }


def task_scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """Returns the scalars of a line of metrics.jsonl for TensorBoard, by name with a group in front."""
    values = {name: line[name] for name in line if name.startswith(("accuracy", "calibration_error"))}
    groups = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    scalars = {f"recognition/{name}": value for name, value in values.items() if name not in groups}
    for group, members in groups.items():
        scalars |= {f"{group}/{name}": value for name, value in members.items()}
    return {**scalars, "time/seconds": line["seconds"], "time/images_per_second": line["images_per_second"]}


def table_row(line: Mapping[str, Any]) -> str:
    """Formats a line of metrics.jsonl under `TABLE_HEAD`: accuracies in per cent, loss in nats per image."""
    names = line["categories"]
    accuracy_of_new = np.mean([line["accuracy_per_category"][name] for name in names])
    label = ", ".join(names)
    label = label if len(label) < 16 else label[:14] + "…"
    return (
        f"{line['task']:>4}  {label:<16}{100 * line['accuracy']:>8.2f}%{100 * accuracy_of_new:>8.2f}%"
        f"{line['terms']['real']:>9.1f}{line['seconds']:>9.1f}{line['images_per_second']:>10.0f}"
    )
