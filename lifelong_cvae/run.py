"""A run: learns a stream of tasks into a folder, evaluating, saving and drawing after each; and resumes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from lifelong_cvae import checkpoint, figures, gallery, growth, learning, records
from lifelong_cvae.data import Source
from lifelong_cvae.errors import InputError
from lifelong_cvae.evaluation import continual, measures
from lifelong_cvae.growth import LifelongState
from lifelong_cvae.plan import Plan, read_plan

TASKS_KEPT = 3

# Recogniser to true category to log p(x|c) of its images, `[n, categories]`.
Answers = Mapping[str, Mapping[str, np.ndarray]]


def load_state(workdir: Path) -> LifelongState:
    """The newest state of the run in a folder.

    Raises:
        InputError: there is no run, it has not finished a task, or its checkpoint is damaged.
    """
    read_plan(workdir)
    return checkpoint.load(workdir / "checkpoints")


def learn(
    workdir: Path,
    plan: Plan,
    source: Source,
    *,
    resume: bool = False,
    keep_all: bool = False,
    draw: bool = True,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Learns all tasks of a plan into `workdir`, and returns what `result.json` holds.

    Args:
        workdir: a new folder, or with `resume` the one of a run that is to go on.
        plan: what to do; when resuming, its tasks may go on after those of the run.
        source: the images; those of earlier categories are read to evaluate, never to learn.
        resume: whether to go on from the newest checkpoint.
        keep_all: whether to keep the checkpoints of all tasks rather than of the last three.
        draw: whether to draw figures (needs matplotlib).
        say: told a line after every task.

    Raises:
        InputError: the folder holds another run, or none to resume, or matplotlib is missing;
            nothing has been written then.
        FloatingPointError: a loss that is not finite; the last task's checkpoint is intact.
    """
    start = time.perf_counter()
    if draw:
        figures.require_matplotlib()
    for name in itertools.chain(*plan.tasks):
        if name not in source.categories:
            known = ", ".join(source.categories)
            raise InputError(f"unknown category {name!r}: {source.name} has {known}")
    rng = jax.random.key(plan.seed)
    source = plan.narrowed(source)
    state, history = _resume(workdir, plan, source) if resume else _begin(workdir, plan, source, rng=rng)
    if draw and history:
        gallery.imagined(workdir, state, len(history), rng=rng)  # a death may have lost it
    say(_TABLE_HEAD)
    for line in history:
        say(_table_line(line))
    answers, embedded = None, {}
    for index in range(len(history), len(plan.tasks)):
        names = plan.tasks[index]
        label = f"task {index + 1}/{len(plan.tasks)}: {', '.join(names)}"
        state, report = _learn_task(
            state, {name: source.read("train", name) for name in names}, label, rng=rng
        )
        answers = measures.answers_by_category(state, source, plan.evaluate_on, rng=rng, embedded=embedded)
        line = _metrics(index + 1, report, answers, state)
        records.append_line(workdir / "metrics.jsonl", line)
        checkpoint.save(state, workdir / "checkpoints", step=index + 1, keep=None if keep_all else TASKS_KEPT)
        history.append(line)
        if draw:
            gallery.imagined(workdir, state, index + 1, rng=rng)
        say(_table_line(line))
    if answers is None:  # a finished run was resumed
        answers = measures.answers_by_category(state, source, plan.evaluate_on, rng=rng)
    result = _result(plan, history, answers, state, seconds_total=time.perf_counter() - start)
    records.write_json(workdir / "result.json", result)
    if draw:
        gallery.finished(workdir, state, source, plan.evaluate_on, history, rng=rng)
    return result


def _begin(workdir: Path, plan: Plan, source: Source, *, rng: jax.Array) -> tuple[LifelongState, list[dict]]:
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise InputError(f"{workdir} holds something already: a new folder is expected, or --resume to go on")
    state = growth.init(plan.config, source.image_shape, rng=rng)
    workdir.mkdir(parents=True, exist_ok=True)
    _write_config(workdir, plan, source)
    return state, []


def _resume(workdir: Path, plan: Plan, source: Source) -> tuple[LifelongState, list[dict]]:
    recorded = records.read_json(workdir / "config.json")
    before = Plan.from_dict(recorded)
    now = _settings(plan)
    for name, value in _settings(before).items():
        if now[name] != value:
            raise InputError(
                f"{workdir} was begun with {name}={value}: --resume cannot change it to {now[name]}"
            )
    if plan.tasks[: len(before.tasks)] != before.tasks:
        raise InputError(
            f"{workdir} was begun with the tasks {_tasks_text(before.tasks)}: "
            "more can be added after them, nothing else"
        )
    if recorded.get("fingerprint") != source.fingerprint:
        raise InputError(
            f"{source.name} is not the data that {workdir} was begun with: its images have changed"
        )
    steps = checkpoint.checkpoint_steps(workdir / "checkpoints")
    if steps:
        state = checkpoint.load(workdir / "checkpoints")
    else:
        state = growth.init(plan.config, source.image_shape, rng=jax.random.key(plan.seed))
    history = records.keep_lines(workdir / "metrics.jsonl", steps[-1] if steps else 0)
    _write_config(workdir, plan, source)
    return state, history


def _settings(plan: Plan) -> dict[str, Any]:
    """All that a resumed run must share with the one it goes on with, flat: name to value."""
    plain = plan.to_dict()
    del plain["tasks"]
    for section in plain.pop("config").values():
        plain.update(section)
    return plain


def _write_config(workdir: Path, plan: Plan, source: Source) -> None:
    values = {
        **plan.to_dict(),
        "image_shape": list(source.image_shape),
        "fingerprint": source.fingerprint,
        "versions": records.versions(),
        "device": records.device(),
    }
    records.write_json(workdir / "config.json", values)


def _learn_task(
    state: LifelongState, images: dict[str, np.ndarray], label: str, *, rng: jax.Array
) -> tuple[LifelongState, learning.Report]:
    # disable=None: silent where the output is no terminal
    with tqdm(desc=label, unit="step", disable=None, leave=False) as bar:

        def progress(done: int, total: int, terms: dict[str, float]) -> None:
            bar.total = total
            bar.set_postfix({name: f"{value:.1f}" for name, value in terms.items()}, refresh=False)
            bar.update(done - bar.n)

        return learning.learn(state, images, rng=rng, progress=progress)


def _metrics(task: int, report: learning.Report, answers: Answers, state: LifelongState) -> dict[str, Any]:
    return {
        "task": task,
        "categories": list(report.names),
        **measures.recognition_figures(answers, state),
        "terms": report.terms,
        "steps": report.steps,
        "seconds": report.seconds,
        "images_per_second": report.images_per_second,
        "parameters_per_category": report.parameters_per_category,
        "compilations": report.compilations,
    }


def _result(
    plan: Plan,
    history: list[dict[str, Any]],
    answers: Answers,
    state: LifelongState,
    *,
    seconds_total: float,
) -> dict[str, Any]:
    recogniser = state.config.recognition.recogniser
    by_elbo = _over_time(plan, history, answers["elbo"], state, suffix="_elbo")
    return {
        "recogniser": recogniser,
        **_over_time(plan, history, answers[recogniser], state),
        **{f"{key}_elbo": value for key, value in by_elbo.items()},
        "parameters_per_category": history[-1]["parameters_per_category"],
        "seconds_total": seconds_total,
        "seconds_learning": sum(line["seconds"] for line in history),
        "categories": list(state.names),
        "versions": records.versions(),
        "device": records.device(),
    }


def _over_time(
    plan: Plan,
    history: list[dict[str, Any]],
    answers: Mapping[str, np.ndarray],
    state: LifelongState,
    *,
    suffix: str = "",
) -> dict[str, Any]:
    """Figures of one recogniser, whose accuracies the history holds under keys with a suffix."""
    matrix = [line[f"accuracy_per_category{suffix}"] for line in history]
    candidates = continual.known_then(plan.tasks)
    restricted = continual.accuracy_per_category(answers, state.names, candidates=candidates)
    return {
        "accuracy": history[-1][f"accuracy{suffix}"],
        "accuracy_per_category": matrix[-1],
        "calibration_error": history[-1][f"calibration_error{suffix}"],
        **continual.summary(matrix),
        "forgetting_same_candidates": continual.forgetting(matrix, restricted),
    }


def _tasks_text(tasks: Sequence[Sequence[str]]) -> str:
    return "; ".join(", ".join(names) for names in tasks)


_TABLE_HEAD = (
    f"{'task':>4}  {'learned':<16}{'accuracy':>9}{'of new':>9}{'loss':>9}{'seconds':>9}{'images/s':>10}"
)


def _table_line(line: Mapping[str, Any]) -> str:
    """A line of metrics.jsonl for the eye: accuracies in per cent, loss in nats per image."""
    names = line["categories"]
    of_new = np.mean([line["accuracy_per_category"][name] for name in names])
    label = ", ".join(names)
    label = label if len(label) < 16 else label[:14] + "…"
    return (
        f"{line['task']:>4}  {label:<16}{100 * line['accuracy']:>8.2f}%{100 * of_new:>8.2f}%"
        f"{line['terms']['real']:>9.1f}{line['seconds']:>9.1f}{line['images_per_second']:>10.0f}"
    )
