"""A run as one HTML file that needs nothing else: what was learned when, what is drawn, what is confused."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lifelong_cvae import plotting
from lifelong_cvae.config import Config
from lifelong_cvae.data import Source, hold_out, open_source
from lifelong_cvae.errors import use_package
from lifelong_cvae.evaluation import confusions, continual, metrics
from lifelong_cvae.files import atomic_write, read_lines, utc_date
from lifelong_cvae.runs import figures
from lifelong_cvae.runs.config import RunConfig, read_config_file, read_run_config
from lifelong_cvae.runs.metrics import LogPosteriors
from lifelong_cvae.runs.workdir import load_state, resume_command
from lifelong_cvae.state import LifelongState

FILE = "report.html"
# What a page can hold: beyond, tasks and categories are chosen evenly, and it says so.
MAX_SHOWN = 40
MAX_PIXELS = 1_500_000
CONFUSIONS = 8
CONFUSED_IMAGES = 10


def report_run(workdir: Path) -> Path:
    """Writes the report of a run from its folder and its data, finished or not, and returns the file.

    Raises:
        InputError: there is no run, it has finished no task, its data are not there, or Jinja2 is missing.
    """
    use_package("jinja2")
    run_config = read_run_config(workdir)
    state = load_state(workdir)
    source = run_config.subsample(
        hold_out(open_source(run_config.dataset, run_config.options), run_config.validation_fraction)
    )
    lines = read_lines(workdir / "metrics.jsonl")
    history = lines[: _tasks_of(run_config, state)]
    rng = jax.random.key(run_config.seed)
    answers = metrics.log_posteriors_by_category(state, source, run_config.evaluate_on, rng=rng)
    return write_report(workdir, run_config, source, state, history, answers, rng=rng)


def _tasks_of(run_config: RunConfig, state: LifelongState) -> int:
    """How many tasks a state has learned: a run may have died between a line and its checkpoint."""
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
    answers: LogPosteriors,
    *,
    rng: jax.Array,
) -> Path:
    """Writes `report.html` into the folder of a run, and returns the file.

    Args:
        workdir: of the run.
        run_config: what it does.
        source: its images.
        state: what it has learned.
        history: lines of metrics.jsonl, of the tasks that the state has learned.
        answers: of that state.
        rng: the seed's key.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    names = _evenly(state.names)
    split = run_config.evaluate_on
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
        known=len(state.names),
        forgetting=_forgetting(history),
        drawings=_drawings(workdir, names, history),
        matrices=_matrices(run_config, names, history),
        curves=_curves(run_config, history),
        turns=figures.TURNS,
        circle=_circle(state, source, split, rng=rng),
        confused=_worst_confusions(answers, source, run_config, state),
        settings=_settings(run_config),
        versions=_versions(workdir),
        commands=_commands(workdir, run_config, source, len(history)),
    )
    file = workdir / FILE
    with atomic_write(file) as draft:
        draft.write_text(text, encoding="utf-8")
    return file


def _evenly(values: Sequence[Any], most: int = MAX_SHOWN) -> list[Any]:
    """At most so many of the values, evenly chosen, with the first and the last."""
    count = min(len(values), most)
    return [values[index] for index in np.unique(np.linspace(0, len(values) - 1, count).round().astype(int))]


def _forgetting(history: Sequence[Mapping[str, Any]]) -> float:
    return continual.forgetting([line["accuracy_per_category"] for line in history])


def _drawings(workdir: Path, names: Sequence[str], history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each task what was drawn after it: category to a strip of images, as many as the page can hold."""
    drawn = [(line, figures.load_imagined_grid(workdir, line["task"])) for line in _evenly(history)]
    drawn = [(line, {name: rows[name] for name in names if name in rows}) for line, rows in drawn if rows]
    column = sum(images[0].size for _, rows in drawn for images in rows.values())
    count = max(1, MAX_PIXELS // max(column, 1))
    return [
        {
            "task": line["task"],
            "learned": line["categories"],
            "strips": {
                name: (plotting.png_data_url(images[:count]), len(images[:count])) for name, images in rows.items()
            },
        }
        for line, rows in drawn
    ]


def _matrices(run_config: RunConfig, names: Sequence[str], history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Recognizer to its rows of the accuracy matrix, and the lowest value, from which colors start."""
    found = {}
    for recognizer, suffix in _recognisers(run_config).items():
        key = f"accuracy_per_category{suffix}"
        rows = [{"line": line, "cells": [line[key].get(name) for name in names]} for line in _evenly(history)]
        values = [cell for row in rows for cell in row["cells"] if cell is not None]
        found[recognizer] = {"rows": rows, "lowest": min(0.9, np.floor(10 * min(values)) / 10)}
    return found


def _recognisers(run_config: RunConfig) -> dict[str, str]:
    """Recognizer to the suffix of its figures in metrics.jsonl."""
    return {run_config.config.recognition.recognizer: "", "elbo": "_elbo"}


def _curves(run_config: RunConfig, history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Curves over tasks, in per cent and points: title to recognizer to a value after each task."""
    accuracy, forgetting = {}, {}
    for recognizer, suffix in _recognisers(run_config).items():
        matrix = [line[f"accuracy_per_category{suffix}"] for line in history]
        accuracy[recognizer] = [100 * line[f"accuracy{suffix}"] for line in history]
        forgetting[recognizer] = [continual.forgetting(matrix[: task + 1]) for task in range(len(matrix))]
    return {"Accuracy, per cent": accuracy, "Forgetting, points": forgetting}


def _circle(state: LifelongState, source: Source, split: str, *, rng: jax.Array) -> dict[str, list[str]]:
    """A row for a real and for an imagined image of categories: a picture after each of `gallery.TURNS`."""
    pixels = 2 * len(figures.TURNS) * int(np.prod(state.image_shape))
    names = _evenly(state.names, max(1, min(MAX_SHOWN, MAX_PIXELS // 2 // pixels)))
    rows = figures.circle_images(state, names, source, split, rng=rng)
    return {label: [plotting.png_data_url(image[None]) for image in images] for label, images in rows.items()}


def _worst_confusions(
    answers: LogPosteriors, source: Source, run_config: RunConfig, state: LifelongState
) -> list[dict[str, Any]]:
    """The worst confusions of the run's recognizer, with a strip of the images."""
    found = confusions.worst_confusions(answers[run_config.config.recognition.recognizer], state.names, CONFUSIONS)
    count = min(CONFUSED_IMAGES, max(1, MAX_PIXELS // 4 // CONFUSIONS // int(np.prod(state.image_shape))))
    return [
        {
            **confusion._asdict(),
            "count": len(confusion.images),
            "strip": plotting.png_data_url(
                source.read(run_config.evaluate_on, confusion.category)[confusion.images[:count]]
            ),
            "shown": min(count, len(confusion.images)),
        }
        for confusion in found
    ]


def _settings(run_config: RunConfig) -> dict[str, list[tuple[str, Any, bool]]]:
    """Section to its settings: name, value, whether it is the default."""
    values, config = run_config.to_dict(), run_config.config.to_dict()
    defaults = Config().to_dict()
    run = {name: values[name] for name in values if name not in ("tasks", "config", "options")}
    sections = {"run": [(name, value, True) for name, value in (run | values["options"]).items()]}
    for section, settings in config.items():
        sections[section] = [(key, value, value == defaults[section][key]) for key, value in settings.items()]
    return sections


def _versions(workdir: Path) -> dict[str, str]:
    """What the run was made with, and when the report was."""
    recorded = read_config_file(workdir)
    return {**recorded["versions"], "device": recorded["device"], "date of the report": utc_date()}


def _commands(workdir: Path, run_config: RunConfig, source: Source, learned: int) -> dict[str, str]:
    """What to do next, and the command that does it."""
    folder = shlex.quote(str(workdir))
    names = [name for task in run_config.tasks for name in task]
    missing = [name for name in source.categories if name not in names]
    commands = {}
    if learned < len(run_config.tasks):
        commands["Go on"] = resume_command(workdir)
    elif missing and len(run_config.tasks[0]) == 1:
        more = shlex.quote(",".join([*names, missing[0]]))
        commands["Learn another category"] = f"{resume_command(workdir)} --categories={more}"
    return {
        **commands,
        "Play with it": f"python -m experiments.serve --workdir={folder}",
        "Imagine images": f"python -m experiments.imagine --workdir={folder} --output=imagined.png",
        "Recognize images": (
            f"python -m experiments.recognize --workdir={folder} --images=FOLDER --output=answers.csv"
        ),
        "Write this report again": f"python -m experiments.report --workdir={folder}",
    }
