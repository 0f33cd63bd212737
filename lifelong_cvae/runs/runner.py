"""A run: learns a stream of tasks into a folder, evaluating, saving and drawing after each; and resumes."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from tqdm import tqdm

from lifelong_cvae import checkpoints
from lifelong_cvae.errors import use_package
from lifelong_cvae import plotting
from lifelong_cvae.runs import figures
from lifelong_cvae.state import LifelongState
from lifelong_cvae.state import init
from lifelong_cvae.training.learn import MIN_IMAGES
from lifelong_cvae.training.learn import Report
from lifelong_cvae.training.learn import learn
from lifelong_cvae import sharding
from lifelong_cvae.distributed import any_process
from lifelong_cvae.distributed import is_main_process
from lifelong_cvae.distributed import run_on_main
from lifelong_cvae.files import append_line
from lifelong_cvae.files import write_json
from lifelong_cvae.runs import html_report
from lifelong_cvae.runs.metrics import LogPosteriors
from lifelong_cvae.runs.metrics import TABLE_HEAD
from lifelong_cvae.runs.metrics import run_result
from lifelong_cvae.runs.metrics import table_row
from lifelong_cvae.runs.metrics import task_metrics
from lifelong_cvae.runs.metrics import task_scalars
from lifelong_cvae.runs.workdir import TaskCheckpointer
from lifelong_cvae.runs.workdir import clear_task_checkpoints
from lifelong_cvae.runs.workdir import open_run
from lifelong_cvae.runs.workdir import resume_command
from lifelong_cvae.config import CHECKPOINT_EVERY
from lifelong_cvae.data import Source
from lifelong_cvae.data import split_reading
from lifelong_cvae.errors import InputError
from lifelong_cvae.errors import Stopped
from lifelong_cvae.evaluation import metrics
from lifelong_cvae.runs.tensorboard import EventWriter
from lifelong_cvae.state import LifelongState
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.runs.workdir import TaskCheckpointer
from lifelong_cvae.runs.workdir import resume_command
from lifelong_cvae.runs.workdir import load_state
from lifelong_cvae.training.train import TaskProgress

__all__ = ["learn", "load_state"]

TASKS_KEPT = 3
EVENTS = "tensorboard"


def run(
    workdir: Path,
    plan: RunConfig,
    source: Source,
    *,
    resume: bool = False,
    keep_all: bool = False,
    checkpoint_every: float = CHECKPOINT_EVERY,
    draw: bool = True,
    tensorboard: bool | None = None,
    write_report: bool | None = None,
    say: Callable[[str], None] = print,
    stopping: Callable[[], bool] = lambda: False,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """Learns all tasks of a plan into `workdir`, and returns what `result.json` holds.

    Several processes (`jax.distributed`) call it with the same arguments, and with a mesh of the devices of
    all of them. The first one writes; `workdir` has to be a folder that all of them see.

    Args:
        workdir: a new folder, or with `resume` the one of a run that is to go on.
        plan: what to do; when resuming, its tasks may go on after those of the run.
        source: the images; those of earlier categories are read to evaluate, never to learn.
        resume: whether to go on from the newest checkpoint.
        keep_all: whether to keep the checkpoints of all tasks rather than of the last three.
        checkpoint_every: seconds after which a task that is being learned is saved, at the end of a chunk.
        draw: whether to draw figures (needs matplotlib).
        tensorboard: whether to write events for TensorBoard; default where tensorboardX is installed.
        write_report: whether to write `report.html` at the end; default where Jinja2 is installed.
        say: told a line after every task, and for every checkpoint that is damaged.
        stopping: asked after every chunk and task whether the run is to save and end; of several processes
            one that says so is enough.
        mesh: devices that learn and recognise together (see `parallel.make_mesh`).

    Raises:
        InputError: the folder holds another run, or none to resume, or is being written by another
            process, or a package is missing; nothing has been written then.
        FloatingPointError: a loss or parameter that is not finite; the last task's checkpoint is intact.
        OSError: the disk is full, or not to be written to; the last checkpoint is intact.
        Stopped: `stopping` said so; everything is saved.
    """
    start = time.perf_counter()
    sharding.check_batch_size(mesh, plan.config.learning.batch_size)
    if draw:
        use_package("matplotlib")
    with_events = use_package("tensorboardX", tensorboard)
    with_report = use_package("jinja2", write_report)
    leads = is_main_process()
    draw = draw and leads
    curves = EventWriter(workdir / EVENTS if with_events and leads else None)
    rng, source = jax.random.key(plan.seed), _checked(plan, source)
    run = _RunOptions(
        workdir,
        plan,
        split_reading(source),
        rng,
        keep_all,
        checkpoint_every,
        draw,
        curves,
        say if leads else lambda _: None,
        any_process(stopping),
        mesh,
    )
    fresh = init(plan.config, source.image_shape, rng=rng)
    opened = open_run(workdir, plan, source, fresh, resumes=resume, say=run.say)
    with opened as (state, history), contextlib.closing(curves):
        if draw and history:  # a death may have lost it
            figures.save_imagined_grid(workdir, figures.sample_grid(state, rng=rng), len(history))
        run.say(TABLE_HEAD)
        for line in history:
            run.say(table_row(line))
        state, answers = _learn_tasks(run, state, history)
        result = run_result(plan, history, answers, state, seconds_total=time.perf_counter() - start)

        def finish() -> None:
            write_json(workdir / "result.json", result)
            if draw:
                figures.save_final_figures(workdir, state, source, plan.evaluate_on, history, rng=rng)
            if with_report:
                html_report.write_report(workdir, plan, source, state, history, answers, rng=rng)

        run_on_main(finish)
    return result


class _RunOptions(NamedTuple):
    """What a run does and how: the arguments of `learn`, and the seed's key; what a process has part in."""

    workdir: Path
    plan: RunConfig
    source: Source
    rng: jax.Array
    keep_all: bool
    checkpoint_every: float
    draw: bool
    curves: EventWriter
    say: Callable[[str], None]
    stopping: Callable[[], bool]
    mesh: Mesh | None


def _checked(plan: RunConfig, source: Source) -> Source:
    """The source with what the plan leaves of it, which all categories can be learned from."""
    names = list(itertools.chain(*plan.tasks))
    for name in names:
        if name not in source.categories:
            known = ", ".join(source.categories)
            raise InputError(f"unknown category {name!r}: {source.name} has {known}")
    source = plan.narrowed(source)
    for name in names:
        if source.counts["train"][name] < MIN_IMAGES:
            raise InputError(
                f"{source.name}, training images of category {name!r}: at least {MIN_IMAGES} "
                f"are expected, got {source.counts['train'][name]}"
            )
    return source


def _learn_tasks(
    run: _RunOptions, state: LifelongState, history: list[dict[str, Any]]
) -> tuple[LifelongState, LogPosteriors]:
    """Learns the tasks that `history` lacks, puts their lines there; the last state, and what it answers."""
    workdir, plan, source = run.workdir, run.plan, run.source
    answers, embedded = None, {}
    for index in range(len(history), len(plan.tasks)):
        before = sum(line["steps"] for line in history)
        state, report = _learn_task(run, state, index, before)
        answers = metrics.log_posteriors_by_category(
            state, source, plan.evaluate_on, rng=run.rng, embedded=embedded, mesh=run.mesh
        )
        line = task_metrics(index + 1, report, answers, state)
        if is_main_process():
            append_line(workdir / "metrics.jsonl", line)
            kept = None if run.keep_all else TASKS_KEPT
            checkpoints.save(state, workdir / "checkpoints", step=index + 1, keep=kept)
        history.append(line)
        _show(run, state, history)
        run.say(table_row(line))
        if run.stopping():
            raise Stopped(f"stopped after task {index + 1}/{len(plan.tasks)}: {resume_command(workdir)} goes on")
    if is_main_process():
        clear_task_checkpoints(workdir)
    if answers is None:  # a finished run was resumed
        answers = metrics.log_posteriors_by_category(state, source, plan.evaluate_on, rng=run.rng, mesh=run.mesh)
    return state, answers


def _learn_task(run: _RunOptions, state: LifelongState, index: int, before: int) -> tuple[LifelongState, Report]:
    """Learns a task, after so many steps of earlier ones."""
    names = run.plan.tasks[index]
    images = {name: run.source.read("train", name) for name in names}
    within = TaskCheckpointer(run.workdir, index + 1, state, names, say=run.say)
    midway = within.load()
    run.curves.go_on(before + (midway.steps if midway else 0) + 1)
    label = f"task {index + 1}/{len(run.plan.tasks)}: {', '.join(names)}"
    saved = time.monotonic()
    # None: silent where the output is no terminal
    silent = None if is_main_process() else True
    with tqdm(desc=label, unit="step", disable=silent, leave=False) as bar:

        def progress(at: TaskProgress, total: int) -> None:
            nonlocal saved
            bar.total = total
            bar.set_postfix({name: f"{value:.1f}" for name, value in at.terms.items()}, refresh=False)
            bar.update(at.steps - bar.n)
            losses = {f"loss/{name}": value for name, value in at.terms.items()}
            run.curves.scalars(losses, step=before + at.steps)
            stops = run.stopping()
            if is_main_process() and (stops or time.monotonic() - saved >= run.checkpoint_every):
                within.save(at)
                saved = time.monotonic()
            if stops:
                where = f"{label}, at step {at.steps} of {total}"
                raise Stopped(f"stopped in {where}: {resume_command(run.workdir)} goes on")

        return learn(state, images, rng=run.rng, progress=progress, midway=midway, mesh=run.mesh)


def _show(run: _RunOptions, state: LifelongState, history: list[dict[str, Any]]) -> None:
    """Draws what the last task of a history has led to."""
    if not (run.draw or run.curves):
        return
    images = figures.sample_grid(state, rng=run.rng)
    if run.draw:
        figures.save_imagined_grid(run.workdir, images, len(history))
    steps = sum(line["steps"] for line in history)
    run.curves.scalars(task_scalars(history[-1]), step=steps)
    run.curves.image("imagined", plotting.tile_images(images), step=steps)
