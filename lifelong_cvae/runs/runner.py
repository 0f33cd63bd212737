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

from lifelong_cvae import checkpoints, plotting, sharding
from lifelong_cvae.config import CHECKPOINT_EVERY
from lifelong_cvae.data import Source, split_reading
from lifelong_cvae.distributed import any_process, is_main_process, run_on_main
from lifelong_cvae.errors import InputError, Stopped, use_package
from lifelong_cvae.evaluation import metrics
from lifelong_cvae.files import append_line, write_json
from lifelong_cvae.runs import figures, html_report
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.runs.metrics import TABLE_HEAD, LogPosteriors, run_result, table_row, task_metrics, task_scalars
from lifelong_cvae.runs.tensorboard import EventWriter
from lifelong_cvae.runs.workdir import TaskCheckpointer, clear_task_checkpoints, load_state, open_run, resume_command
from lifelong_cvae.state import LifelongState, init
from lifelong_cvae.training.learn import MIN_IMAGES, Report, learn
from lifelong_cvae.training.train import TaskProgress

__all__ = ["learn", "load_state"]

TASKS_KEPT = 3
EVENTS = "tensorboard"


def run(
    workdir: Path,
    run_config: RunConfig,
    source: Source,
    *,
    resume: bool = False,
    keep_all: bool = False,
    checkpoint_every: float = CHECKPOINT_EVERY,
    draw: bool = True,
    tensorboard: bool | None = None,
    write_report: bool | None = None,
    log_fn: Callable[[str], None] = print,
    should_stop: Callable[[], bool] = lambda: False,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """Learns all tasks of a run_config into `workdir`, and returns what `result.json` holds.

    Several processes (`jax.distributed`) call it with the same arguments, and with a mesh of the devices of
    all of them. The first one writes; `workdir` has to be a folder that all of them see.

    Args:
        workdir: a new folder, or with `resume` the one of a run that is to go on.
        run_config: what to do; when resuming, its tasks may go on after those of the run.
        source: the images; those of earlier categories are read to evaluate, never to learn.
        resume: whether to go on from the newest checkpoint.
        keep_all: whether to keep the checkpoints of all tasks rather than of the last three.
        checkpoint_every: seconds after which a task that is being learned is saved, at the end of a chunk.
        draw: whether to draw figures (needs matplotlib).
        tensorboard: whether to write events for TensorBoard; default where tensorboardX is installed.
        write_report: whether to write `report.html` at the end; default where Jinja2 is installed.
        log_fn: told a line after every task, and for every checkpoint that is damaged.
        should_stop: asked after every chunk and task whether the run is to save and end; of several processes
            one that says so is enough.
        mesh: devices that learn and recognize together (see `parallel.make_mesh`).

    Raises:
        InputError: the folder holds another run, or none to resume, or is being written by another
            process, or a package is missing; nothing has been written then.
        FloatingPointError: a loss or parameter that is not finite; the last task's checkpoint is intact.
        OSError: the disk is full, or not to be written to; the last checkpoint is intact.
        Stopped: `stopping` said so; everything is saved.
    """
    start = time.perf_counter()
    sharding.check_batch_size(mesh, run_config.config.learning.batch_size)
    if draw:
        use_package("matplotlib")
    with_events = use_package("tensorboardX", tensorboard)
    with_report = use_package("jinja2", write_report)
    leads = is_main_process()
    draw = draw and leads
    curves = EventWriter(workdir / EVENTS if with_events and leads else None)
    rng, source = jax.random.key(run_config.seed), _checked(run_config, source)
    run = _RunOptions(
        workdir,
        run_config,
        split_reading(source),
        rng,
        keep_all,
        checkpoint_every,
        draw,
        curves,
        log_fn if leads else lambda _: None,
        any_process(should_stop),
        mesh,
    )
    fresh = init(run_config.config, source.image_shape, rng=rng)
    opened = open_run(workdir, run_config, source, fresh, resumes=resume, log_fn=run.log_fn)
    with opened as (state, history), contextlib.closing(curves):
        if draw and history:  # a death may have lost it
            figures.save_imagined_grid(workdir, figures.sample_grid(state, rng=rng), len(history))
        run.log_fn(TABLE_HEAD)
        for line in history:
            run.log_fn(table_row(line))
        state, answers = _learn_tasks(run, state, history)
        result = run_result(run_config, history, answers, state, seconds_total=time.perf_counter() - start)

        def finish() -> None:
            write_json(workdir / "result.json", result)
            if draw:
                figures.save_final_figures(workdir, state, source, run_config.evaluate_on, history, rng=rng)
            if with_report:
                html_report.write_report(workdir, run_config, source, state, history, answers, rng=rng)

        run_on_main(finish)
    return result


class _RunOptions(NamedTuple):
    """What a run does and how: the arguments of `learn`, and the seed's key; what a process has part in."""

    workdir: Path
    run_config: RunConfig
    source: Source
    rng: jax.Array
    keep_all: bool
    checkpoint_every: float
    draw: bool
    curves: EventWriter
    log_fn: Callable[[str], None]
    should_stop: Callable[[], bool]
    mesh: Mesh | None


def _checked(run_config: RunConfig, source: Source) -> Source:
    """The source with what the run_config leaves of it, which all categories can be learned from."""
    names = list(itertools.chain(*run_config.tasks))
    for name in names:
        if name not in source.categories:
            known = ", ".join(source.categories)
            raise InputError(f"unknown category {name!r}: {source.name} has {known}")
    source = run_config.subsample(source)
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
    workdir, run_config, source = run.workdir, run.run_config, run.source
    answers, feature_cache = None, {}
    for index in range(len(history), len(run_config.tasks)):
        before = sum(line["steps"] for line in history)
        state, report = _learn_task(run, state, index, before)
        answers = metrics.log_posteriors_by_category(
            state, source, run_config.evaluate_on, rng=run.rng, feature_cache=feature_cache, mesh=run.mesh
        )
        line = task_metrics(index + 1, report, answers, state)
        if is_main_process():
            append_line(workdir / "metrics.jsonl", line)
            kept = None if run.keep_all else TASKS_KEPT
            checkpoints.save(state, workdir / "checkpoints", step=index + 1, keep=kept)
        history.append(line)
        _show(run, state, history)
        run.log_fn(table_row(line))
        if run.should_stop():
            raise Stopped(f"stopped after task {index + 1}/{len(run_config.tasks)}: {resume_command(workdir)} goes on")
    if is_main_process():
        clear_task_checkpoints(workdir)
    if answers is None:  # a finished run was resumed
        answers = metrics.log_posteriors_by_category(state, source, run_config.evaluate_on, rng=run.rng, mesh=run.mesh)
    return state, answers


def _learn_task(run: _RunOptions, state: LifelongState, index: int, before: int) -> tuple[LifelongState, Report]:
    """Learns a task, after so many steps of earlier ones."""
    names = run.run_config.tasks[index]
    images = {name: run.source.read("train", name) for name in names}
    within = TaskCheckpointer(run.workdir, index + 1, state, names, log_fn=run.log_fn)
    resume_from = within.load()
    run.curves.purge_from(before + (resume_from.steps if resume_from else 0) + 1)
    label = f"task {index + 1}/{len(run.run_config.tasks)}: {', '.join(names)}"
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
            stops = run.should_stop()
            if is_main_process() and (stops or time.monotonic() - saved >= run.checkpoint_every):
                within.save(at)
                saved = time.monotonic()
            if stops:
                where = f"{label}, at step {at.steps} of {total}"
                raise Stopped(f"stopped in {where}: {resume_command(run.workdir)} goes on")

        return learn(state, images, rng=run.rng, progress=progress, resume_from=resume_from, mesh=run.mesh)


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
