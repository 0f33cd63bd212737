"""Report of a run: one self-contained HTML file with its images, accuracies and settings."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lifelong_cvae import plotting
from lifelong_cvae.config import Config
from lifelong_cvae.data import Source
from lifelong_cvae.errors import use_package
from lifelong_cvae.evaluation import confusions, continual, metrics
from lifelong_cvae.files import atomic_write, csv_line, read_lines, utc_date
from lifelong_cvae.model.types import own_types
from lifelong_cvae.model.vectors import is_vector
from lifelong_cvae.runs import figures, vector_figures
from lifelong_cvae.runs.config import RunConfig, read_config_file
from lifelong_cvae.runs.metrics import LogPosteriors, describe_counts, describe_values
from lifelong_cvae.runs.workdir import load_state, open_run_source, resume_command
from lifelong_cvae.state import LifelongState

# Limits on the size of the page. If there are more tasks or categories, an evenly spaced selection is shown.
MAX_SHOWN = 40
MAX_PIXELS = 1_500_000
MAX_CONFUSIONS = 8
MAX_CONFUSED_IMAGES = 10


@own_types()
def report_run(workdir: Path, dataset: str | None = None) -> Path:
    """Writes the report of the run in `workdir` from its files and its data, and returns its path.

    Args:
        workdir: run directory.
        dataset: as in `workdir.open_run_source`.

    Raises:
        InputError: no run, no finished task, missing data, or Jinja2 is not installed.
    """
    use_package("jinja2")
    state = load_state(workdir)
    run_config, source = open_run_source(workdir, dataset)
    source = run_config.subsample(source)
    history = read_lines(workdir / "metrics.jsonl")[: _count_learned_tasks(run_config, state)]
    rng = jax.random.key(run_config.seed)
    log_posteriors = metrics.log_posteriors_by_category(state, source, run_config.evaluate_on, rng=rng)
    return write_report(workdir, run_config, source, state, history, log_posteriors, rng=rng)


def _count_learned_tasks(run_config: RunConfig, state: LifelongState) -> int:
    """Counts the tasks that a state has learned.

    A run may have died between a metrics line and its checkpoint.
    """
    visits = dict(zip(state.names, state.visits, strict=True))
    for count, names in enumerate(run_config.tasks):
        if any(visits.get(name, 0) < 1 for name in names):
            return count
        for name in names:
            visits[name] -= 1
    return len(run_config.tasks)


def write_report(
    workdir: Path,
    run_config: RunConfig,
    source: Source,
    state: LifelongState,
    history: Sequence[Mapping[str, Any]],
    log_posteriors: LogPosteriors,
    *,
    rng: jax.Array,
) -> Path:
    """Writes `report.html` into a run directory, and returns its path.

    Args:
        workdir: run directory.
        run_config: configuration of the run.
        source: images of the run.
        state: newest state of the run.
        history: lines of metrics.jsonl of the tasks that the state has learned.
        log_posteriors: log-posteriors of the state on the split `run_config.evaluate_on`.
        rng: the seed's key.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    names, split, recorded = _select_evenly(state.names), run_config.evaluate_on, read_config_file(workdir)
    recognizer, has_pixels = run_config.config.recognition.recognizer, not state.networks.is_vector
    environment = Environment(
        loader=PackageLoader("lifelong_cvae.runs"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("report.html.j2").render(
        title=workdir.resolve().name,
        run_config=run_config,
        split=split,
        finished=len(history) == len(run_config.tasks),
        history=history,
        last=history[-1],
        names=names,
        num_known=len(state.names),
        forgetting=continual.forgetting([line["accuracy_per_category"] for line in history]),
        things="images" if has_pixels else "vectors",
        imagined=_imagined_tables(workdir, names, history),
        directions=vector_figures.read_directions(workdir),
        matrices=_accuracy_matrices(run_config, names, history),
        curves=_curves(run_config, history),
        turns=figures.TURNS,
        circle=_circle_rows(state, source, split, rng=rng) if has_pixels else {},
        confusions=_worst_confusions(log_posteriors[recognizer], source, split, state),
        neighbors=confusions.nearest_categories({n: log_posteriors[recognizer][n] for n in names}, state.names),
        settings={"data": _data_rows(run_config, source), **_settings(run_config)},
        versions={**recorded["versions"], "device": recorded["device"], "date of the report": utc_date()},
        commands=_commands(workdir, run_config, source, num_tasks=len(history)),
    )
    file = workdir / "report.html"
    with atomic_write(file) as draft:
        draft.write_text(text, encoding="utf-8")
    return file


def _select_evenly(values: Sequence[Any], maximum: int = MAX_SHOWN) -> list[Any]:
    """Selects at most `maximum` evenly spaced values, with the first and the last."""
    count = min(len(values), maximum)
    return [values[index] for index in np.unique(np.linspace(0, len(values) - 1, count).round().astype(int))]


def _imagined_tables(workdir: Path, names: Sequence[str], history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Strips of imagined images by category after each task, within MAX_PIXELS for all tasks together."""
    tables = []
    for line in _select_evenly(history):
        rows = figures.load_imagined_grid(workdir, line["task"])
        if rows:
            tables.append((line, {name: rows[name] for name in names if name in rows}))
    pixels_per_column = sum(images[0].size for _, rows in tables for images in rows.values())
    count = max(1, MAX_PIXELS // max(pixels_per_column, 1))
    return [
        {
            "task": line["task"],
            "learned": line["categories"],
            "strips": {
                name: (plotting.png_data_url(images[:count]), len(images[:count])) for name, images in rows.items()
            },
        }
        for line, rows in tables
    ]


def _recognizer_suffixes(run_config: RunConfig) -> dict[str, str]:
    """Recognizers in the report, and the suffix of their keys in metrics.jsonl."""
    return {run_config.config.recognition.recognizer: "", "elbo": continual.ELBO_SUFFIX}


def _accuracy_matrices(
    run_config: RunConfig, names: Sequence[str], history: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """By recognizer, the rows of the accuracy matrix and the accuracy at which its color scale starts."""
    matrices = {}
    for recognizer, suffix in _recognizer_suffixes(run_config).items():
        rows = [
            {
                "line": line,
                "accuracy": line[f"accuracy{suffix}"],
                "cells": [line[f"accuracy_per_category{suffix}"].get(name) for name in names],
            }
            for line in _select_evenly(history)
        ]
        lowest = min(cell for row in rows for cell in row["cells"] if cell is not None)
        matrices[recognizer] = {"rows": rows, "lowest": min(0.9, np.floor(10 * lowest) / 10)}
    return matrices


def _curves(run_config: RunConfig, history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """By title and recognizer, a value after each task, in percent and percentage points."""
    accuracy, forgetting = {}, {}
    for recognizer, suffix in _recognizer_suffixes(run_config).items():
        matrix = [line[f"accuracy_per_category{suffix}"] for line in history]
        accuracy[recognizer] = [100 * line[f"accuracy{suffix}"] for line in history]
        forgetting[recognizer] = [continual.forgetting(matrix[: task + 1]) for task in range(len(matrix))]
    return {"Accuracy in percent": accuracy, "Forgetting in percentage points": forgetting}


def _circle_rows(state: LifelongState, source: Source, split: str, *, rng: jax.Array) -> dict[str, list[str]]:
    """By row label, a picture after each number of turns in `figures.TURNS`, within half of MAX_PIXELS."""
    pixels_per_category = 2 * len(figures.TURNS) * int(np.prod(state.image_shape))
    names = _select_evenly(state.names, max(1, min(MAX_SHOWN, MAX_PIXELS // 2 // pixels_per_category)))
    rows = figures.circle_images(state, names, source, split, rng=rng)
    return {label: [plotting.png_data_url(image[None]) for image in images] for label, images in rows.items()}


def _worst_confusions(
    log_posteriors: Mapping[str, np.ndarray], source: Source, split: str, state: LifelongState
) -> list[dict[str, Any]]:
    """The largest confusions, each with a strip of the most confident mistakes, which vectors lack."""
    worst = confusions.worst_confusions(log_posteriors, state.names, MAX_CONFUSIONS)
    pixels = int(np.prod(state.image_shape))
    shown = min(MAX_CONFUSED_IMAGES, max(1, MAX_PIXELS // 4 // MAX_CONFUSIONS // pixels))

    def strip(confusion: confusions.Confusion) -> dict[str, Any]:
        if state.networks.is_vector:
            return {}
        images = source.read(split, confusion.category)[confusion.images[:shown]]
        return {"strip": plotting.png_data_url(images), "shown": len(images)}

    return [{**confusion._asdict(), "count": len(confusion.images), **strip(confusion)} for confusion in worst]


def _data_rows(run_config: RunConfig, source: Source) -> list[tuple[str, Any, bool]]:
    """Rows on what was understood of the data, in the form of `_settings`."""
    things, values = ("vectors", "values") if is_vector(source.image_shape) else ("images", "pixel values")
    rows = {"shape": " x ".join(map(str, source.image_shape)), values: ", ".join(describe_values(source))}
    for split in dict.fromkeys(("train", run_config.evaluate_on)):
        rows[f"{split} {things}"] = describe_counts(source.counts[split])
    return [(name, value, True) for name, value in {**rows, "remark": source.note}.items() if value]


def _settings(run_config: RunConfig) -> dict[str, list[tuple[str, Any, bool]]]:
    """By section, each setting's name and value, and True if the value is the default."""
    values, defaults = run_config.to_dict(), Config().to_dict()
    options = {name: values[name] for name in values if name not in ("tasks", "config", "options")}
    sections = {"run": [(name, value, True) for name, value in (options | values["options"]).items()]}
    for section, settings in run_config.config.to_dict().items():
        sections[section] = [(key, value, value == defaults[section][key]) for key, value in settings.items()]
    return sections


def _commands(workdir: Path, run_config: RunConfig, source: Source, *, num_tasks: int) -> dict[str, str]:
    """Commands for the next steps, by title."""
    folder = shlex.quote(str(workdir))
    names = [name for task in run_config.tasks for name in task]
    missing = [name for name in source.categories if name not in names]
    commands = {}
    if num_tasks < len(run_config.tasks):
        commands["Resume the run"] = resume_command(workdir)
    elif missing and len(run_config.tasks[0]) == 1:
        categories = shlex.quote(csv_line([*names, missing[0]]))
        commands["Learn another category"] = f"{resume_command(workdir)} --categories={categories}"
    recognize = f"python -m experiments.recognize --workdir={folder} --output=answers.csv --images="
    if is_vector(source.image_shape):
        commands |= {
            "Imagine vectors": f"python -m experiments.imagine --workdir={folder} --output=imagined.npz",
            "Recognize vectors": f"{recognize}imagined.npz",
        }
    else:
        commands |= {
            "Open the live page": f"python -m experiments.serve --workdir={folder}",
            "Imagine images": f"python -m experiments.imagine --workdir={folder} --output=imagined.png",
            "Recognize images": f"{recognize}FOLDER",
        }
    return {**commands, "Update this report": f"python -m experiments.report --workdir={folder}"}
