"""A run: learns a stream of tasks into a folder, evaluating, saving and drawing after each; and resumes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from lifelong_cvae import checkpoint, figures, gallery, growth, learning, records, resuming
from lifelong_cvae.data import Source
from lifelong_cvae.errors import InputError, Stopped
from lifelong_cvae.evaluation import continual, measures
from lifelong_cvae.growth import LifelongState
from lifelong_cvae.plan import Plan, read_plan
from lifelong_cvae.resuming import Within, go_on, load_state
from lifelong_cvae.training import Midway

__all__ = ["CHECKPOINT_EVERY", "learn", "load_state"]

TASKS_KEPT = 3
CHECKPOINT_EVERY = 60.0

# Recogniser to true category to log p(x|c) of its images, `[n, categories]`.
Answers = Mapping[str, Mapping[str, np.ndarray]]


def learn(
    workdir: Path,
    plan: Plan,
    source: Source,
    *,
    resume: bool = False,
    keep_all: bool = False,
    checkpoint_every: float = CHECKPOINT_EVERY,
    draw: bool = True,
    say: Callable[[str], None] = print,
    stopping: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Learns all tasks of a plan into `workdir`, and returns what `result.json` holds.

    Args:
        workdir: a new folder, or with `resume` the one of a run that is to go on.
        plan: what to do; when resuming, its tasks may go on after those of the run.
        source: the images; those of earlier categories are read to evaluate, never to learn.
        resume: whether to go on from the newest checkpoint.
        keep_all: whether to keep the checkpoints of all tasks rather than of the last three.
        checkpoint_every: seconds after which a task that is being learned is saved, at the end of a chunk.
        draw: whether to draw figures (needs matplotlib).
        say: told a line after every task, and for every checkpoint that is damaged.
        stopping: asked after every chunk and task whether the run is to save and end.

    Raises:
        InputError: the folder holds another run, or none to resume, or is being written by another
            process, or matplotlib is missing; nothing has been written then.
        FloatingPointError: a loss or parameter that is not finite; the last task's checkpoint is intact.
        OSError: the disk is full, or not to be written to; the last checkpoint is intact.
        Stopped: `stopping` said so; everything is saved.
    """
    start = time.perf_counter()
    if draw:
        figures.require_matplotlib()
    rng, source = jax.random.key(plan.seed), _checked(plan, source)
    run = _Run(workdir, plan, source, rng, keep_all, checkpoint_every, draw, say, stopping)
    fresh = growth.init(plan.config, source.image_shape, rng=rng)
    if resume:
        read_plan(workdir)
    else:
        resuming.check_free(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
    with resuming.locked(workdir):
        begun = resuming.resume(workdir, plan, source, fresh, say=say) if resume else None
        state, history = begun or resuming.begin(workdir, plan, source, fresh)
        if draw and history:
            gallery.imagined(workdir, state, len(history), rng=rng)  # a death may have lost it
        say(_TABLE_HEAD)
        for line in history:
            say(_table_line(line))
        state, answers = _learn_tasks(run, state, history)
        result = _result(plan, history, answers, state, seconds_total=time.perf_counter() - start)
        records.write_json(workdir / "result.json", result)
        if draw:
            gallery.finished(workdir, state, source, plan.evaluate_on, history, rng=rng)
    return result


class _Run(NamedTuple):
    """What a run does and how: the arguments of `learn`, and the seed's key."""

    workdir: Path
    plan: Plan
    source: Source
    rng: jax.Array
    keep_all: bool
    checkpoint_every: float
    draw: bool
    say: Callable[[str], None]
    stopping: Callable[[], bool]


def _checked(plan: Plan, source: Source) -> Source:
    """The source with what the plan leaves of it, which all categories can be learned from."""
    names = list(itertools.chain(*plan.tasks))
    for name in names:
        if name not in source.categories:
            known = ", ".join(source.categories)
            raise InputError(f"unknown category {name!r}: {source.name} has {known}")
    source = plan.narrowed(source)
    for name in names:
        if source.counts["train"][name] < learning.MINIMUM_IMAGES:
            raise InputError(
                f"{source.name}, training images of category {name!r}: at least {learning.MINIMUM_IMAGES} "
                f"are expected, got {source.counts['train'][name]}"
            )
    return source


def _learn_tasks(
    run: _Run, state: LifelongState, history: list[dict[str, Any]]
) -> tuple[LifelongState, Answers]:
    """Learns the tasks that `history` lacks, puts their lines there; the last state, and what it answers."""
    workdir, plan, source = run.workdir, run.plan, run.source
    answers, embedded = None, {}
    for index in range(len(history), len(plan.tasks)):
        state, report = _learn_task(run, state, index)
        answers = measures.answers_by_category(
            state, source, plan.evaluate_on, rng=run.rng, embedded=embedded
        )
        line = _metrics(index + 1, report, answers, state)
        records.append_line(workdir / "metrics.jsonl", line)
        kept = None if run.keep_all else TASKS_KEPT
        checkpoint.save(state, workdir / "checkpoints", step=index + 1, keep=kept)
        history.append(line)
        if run.draw:
            gallery.imagined(workdir, state, index + 1, rng=run.rng)
        run.say(_table_line(line))
        if run.stopping():
            raise Stopped(f"stopped after task {index + 1}/{len(plan.tasks)}: {go_on(workdir)} goes on")
    resuming.clear_within(workdir)
    if answers is None:  # a finished run was resumed
        answers = measures.answers_by_category(state, source, plan.evaluate_on, rng=run.rng)
    return state, answers


def _learn_task(run: _Run, state: LifelongState, index: int) -> tuple[LifelongState, learning.Report]:
    names = run.plan.tasks[index]
    images = {name: run.source.read("train", name) for name in names}
    within = Within(run.workdir, index + 1, state, names, say=run.say)
    label = f"task {index + 1}/{len(run.plan.tasks)}: {', '.join(names)}"
    saved = time.monotonic()
    # disable=None: silent where the output is no terminal
    with tqdm(desc=label, unit="step", disable=None, leave=False) as bar:

        def progress(at: Midway, total: int) -> None:
            nonlocal saved
            bar.total = total
            bar.set_postfix({name: f"{value:.1f}" for name, value in at.terms.items()}, refresh=False)
            bar.update(at.steps - bar.n)
            stops = run.stopping()
            if stops or time.monotonic() - saved >= run.checkpoint_every:
                within.save(at)
                saved = time.monotonic()
            if stops:
                where = f"{label}, at step {at.steps} of {total}"
                raise Stopped(f"stopped in {where}: {go_on(run.workdir)} goes on")

        return learning.learn(state, images, rng=run.rng, progress=progress, midway=within.load())


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
