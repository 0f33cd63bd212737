"""A run: learns a stream of tasks into a directory, with evaluation, checkpoint and figures after each task."""

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from lifelong_cvae.model.types import own_types
from lifelong_cvae.recognition import ridge_sums
from lifelong_cvae.runs import figures, html_report
from lifelong_cvae.runs.background import BackgroundJobs
from lifelong_cvae.runs.compile_ahead import Plan, compile_ahead
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.runs.metrics import (
    TABLE_HEAD,
    LogPosteriors,
    describe_source,
    run_result,
    table_row,
    task_metrics,
    task_scalars,
)
from lifelong_cvae.runs.tensorboard import EventWriter
from lifelong_cvae.runs.workdir import TaskCheckpointer, clear_task_checkpoints, open_run, resume_command
from lifelong_cvae.state import LifelongState, init
from lifelong_cvae.training.learn import Report, learn
from lifelong_cvae.training.task import MIN_IMAGES
from lifelong_cvae.training.train import TaskProgress

# Checkpoints of the last tasks that are kept.
TASKS_KEPT = 3
EVENTS_DIR = "tensorboard"


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that do not affect what it learns.

    Attributes:
        keep_all: keep the checkpoints of all tasks, not only of the last three.
        checkpoint_every: seconds between checkpoints within a task, written at the end of a chunk of steps.
        draw: draw figures; needs matplotlib.
        tensorboard: write TensorBoard events; None writes them if tensorboardX is installed.
        write_report: write `report.html` at the end; None writes it if Jinja2 is installed.
        log_fn: called with a line after every task and for every damaged checkpoint.
        should_stop: polled after every chunk and every task. If it is true in any process, the run saves and stops.
        mesh: devices for learning and recognition (`sharding.make_mesh`).
        compile_ahead: compile the large programs in threads while the first images are read and learned. It is not
            done with a mesh.
    """

    keep_all: bool = False
    checkpoint_every: float = CHECKPOINT_EVERY
    draw: bool = True
    tensorboard: bool | None = None
    write_report: bool | None = None
    log_fn: Callable[[str], None] = print
    should_stop: Callable[[], bool] = lambda: False
    mesh: Mesh | None = None
    compile_ahead: bool = True


class _Run(NamedTuple):
    """Values that stay constant during a run."""

    workdir: Path
    config: RunConfig
    source: Source
    rng: jax.Array
    options: RunOptions
    events: EventWriter


@own_types()
def run(
    workdir: Path, config: RunConfig, source: Source, options: RunOptions | None = None, *, resume: bool = False
) -> dict[str, Any]:
    """Learns all tasks of a run into `workdir`, and returns the content of `result.json`.

    With several processes (`jax.distributed`), every process calls it with the same arguments and a mesh of all
    devices. The main process writes; `workdir` must be visible to all.

    Args:
        workdir: new directory, or with `resume` that of the run to resume.
        config: configuration. A resumed run may have further tasks after those of the recorded run.
        source: images. Those of earlier categories are read for evaluation, never for learning.
        options: options that do not affect what is learned.
        resume: whether to resume from the newest checkpoint.

    Raises:
        InputError: the directory holds another run or none to resume, another process writes to it, or a package is
            missing. Nothing has been written then.
        FloatingPointError: a loss or parameter is not finite. The last task's checkpoint is intact.
        OSError: the disk is full or not writable. The last checkpoint is intact.
        Stopped: `should_stop` was true. Everything is saved.
    """
    start = time.perf_counter()
    options = options or RunOptions()
    sharding.check_batch_size(options.mesh, config.config.learning.batch_size)
    if config.config.recognition.recognizer != "elbo":
        ridge_sums.check_dictionary(config.config.closed_form)
    options = _resolve(options)
    rng, source = jax.random.key(config.seed), _check_source(config, source)
    events = EventWriter(workdir / EVENTS_DIR if options.tensorboard and is_main_process() else None)
    this = _Run(workdir, config, split_reading(source), rng, options, events)
    fresh = init(config.config, source.image_shape, rng=rng, max_value=source.max_value)
    opened = open_run(workdir, config, source, fresh, resume=resume, log_fn=options.log_fn)
    with opened as (state, history), contextlib.closing(events):
        if options.draw and history:  # the last process may have died before it drew this figure
            figures.save_imagined_grid(workdir, figures.sample_grid(state, rng=rng), len(history))
        for row in (describe_source(source, config), source.note, TABLE_HEAD, *map(table_row, history)):
            if row:
                options.log_fn(row)
        planned = state.replace(capacity=len(set(itertools.chain(*config.tasks))))
        with _compile_ahead(this, planned, history):
            state, log_posteriors = _learn_tasks(this, planned, history)
        result = run_result(config, history, log_posteriors, state, seconds_total=time.perf_counter() - start)

        def finish() -> None:
            write_json(workdir / "result.json", result)
            if options.draw:
                figures.save_final_figures(workdir, state, source, config.evaluate_on, history, rng=rng)
            if options.write_report:
                html_report.write_report(workdir, config, source, state, history, log_posteriors, rng=rng)

        run_on_main(finish)
    return result


def _resolve(options: RunOptions) -> RunOptions:
    """Checks optional packages, and restricts drawing and logging to the main process."""
    is_main = is_main_process()
    if options.draw:
        use_package("matplotlib")
    return replace(
        options,
        draw=options.draw and is_main,
        tensorboard=use_package("tensorboardX", options.tensorboard),
        write_report=use_package("jinja2", options.write_report),
        log_fn=options.log_fn if is_main else lambda _: None,
        should_stop=any_process(options.should_stop),
    )


def _check_source(config: RunConfig, source: Source) -> Source:
    """Returns the subsampled source. Raises InputError unless it has enough images of every category."""
    names = list(itertools.chain(*config.tasks))
    for name in names:
        if name not in source.categories:
            known = ", ".join(source.categories)
            raise InputError(f"{source.name}, unknown category: expected one of {known}, got {name!r}")
    source = config.subsample(source)
    for name in names:
        count = source.counts["train"][name]
        if count < MIN_IMAGES:
            raise InputError(
                f"{source.name}, training images of category {name!r}: expected at least {MIN_IMAGES}, got {count}"
            )
    return source


def _compile_ahead(
    this: _Run, state: LifelongState, history: Sequence[Mapping[str, Any]]
) -> contextlib.AbstractContextManager[None]:
    """Compiles the programs of the next task in the background, unless options say otherwise."""
    remaining, source, options = this.config.tasks[len(history) :], this.source, this.options
    if not options.compile_ahead or options.mesh is not None or not remaining:
        return contextlib.nullcontext()
    names = remaining[0]
    plan = Plan(
        names=names,
        train_count=max(source.counts["train"][name] for name in names),
        test_count=sum(source.counts[this.config.evaluate_on][name] for name in {*state.names, *names}),
        dtype=source.read("train", names[0], slice(1)).dtype,
        shown=figures.IMAGES_PER_ROW if options.draw or this.events else 0,
    )
    return compile_ahead(state, plan)


def _learn_tasks(
    this: _Run, state: LifelongState, history: list[dict[str, Any]]
) -> tuple[LifelongState, LogPosteriors]:
    """Learns the remaining tasks. Returns the last state, and its log posteriors of all test images."""
    workdir, options, tasks = this.workdir, this.options, this.config.tasks
    log_posteriors, feature_cache = None, {}
    with BackgroundJobs() as jobs:
        for index in range(len(history), len(tasks)):
            first_step = sum(line["steps"] for line in history)
            state, report = _learn_task(this, state, index, jobs, first_step=first_step)
            log_posteriors = _evaluate(this, state, feature_cache)
            history.append(task_metrics(index + 1, report, log_posteriors, state))
            jobs.submit(partial(_save_task, this, state, history[-1], _imagine_grid(this, state, history)))
            if options.should_stop():
                jobs.wait()
                raise Stopped(f"stopped after task {index + 1}/{len(tasks)}: resume with {resume_command(workdir)}")
    if is_main_process():
        clear_task_checkpoints(workdir)
    if log_posteriors is None:  # a finished run was resumed
        log_posteriors = _evaluate(this, state, {})
    return state, log_posteriors


def _evaluate(this: _Run, state: LifelongState, feature_cache: dict[str, jax.Array]) -> LogPosteriors:
    return metrics.log_posteriors_by_category(
        state, this.source, this.config.evaluate_on, rng=this.rng, feature_cache=feature_cache, mesh=this.options.mesh
    )


def _learn_task(
    this: _Run, state: LifelongState, index: int, jobs: BackgroundJobs, *, first_step: int
) -> tuple[LifelongState, Report]:
    """Learns one task. `first_step` is the number of steps of all earlier tasks."""
    names, options = this.config.tasks[index], this.options
    images = {name: this.source.read("train", name) for name in names}
    checkpointer = TaskCheckpointer(this.workdir, index + 1, state, names, log_fn=options.log_fn)
    resume_from = checkpointer.load()
    this.events.purge_from(first_step + (resume_from.steps if resume_from else 0) + 1)
    label = f"task {index + 1}/{len(this.config.tasks)}: {', '.join(names)}"
    last_saved = time.monotonic()
    # None disables the bar where the output is not a terminal.
    disable = None if is_main_process() else True
    with tqdm(desc=label, unit="step", disable=disable, leave=False) as bar:

        def on_progress(progress: TaskProgress, total: int) -> None:
            nonlocal last_saved
            bar.total = total
            bar.set_postfix({name: f"{value:.1f}" for name, value in progress.terms.items()}, refresh=False)
            bar.update(progress.steps - bar.n)
            losses = {f"loss/{name}": value for name, value in progress.terms.items()}
            this.events.scalars(losses, step=first_step + progress.steps)
            jobs.check()
            stop = options.should_stop()
            if is_main_process() and (stop or time.monotonic() - last_saved >= options.checkpoint_every):
                checkpointer.save(progress)
                last_saved = time.monotonic()
            if stop:
                jobs.wait()
                command = resume_command(this.workdir)
                raise Stopped(f"stopped in {label}, at step {progress.steps} of {total}: resume with {command}")

        return learn(state, images, rng=this.rng, progress=on_progress, resume_from=resume_from, mesh=options.mesh)


def _imagine_grid(this: _Run, state: LifelongState, history: Sequence[Mapping[str, Any]]) -> dict[str, jax.Array]:
    """Imagines images after the last task, if they are shown.

    They and the metrics of the task are also written as TensorBoard events.
    """
    if not (this.options.draw or this.events):
        return {}
    images = figures.sample_grid(state, rng=this.rng)
    step = sum(line["steps"] for line in history)
    this.events.scalars(task_scalars(history[-1]), step=step)
    this.events.image("imagined", plotting.tile_images(images), step=step)
    return images


def _save_task(this: _Run, state: LifelongState, line: dict[str, Any], images: Mapping[str, jax.Array]) -> None:
    """Writes the metrics `line`, checkpoint and figure of a task, then logs it; beside the next task."""
    if is_main_process():
        append_line(this.workdir / "metrics.jsonl", line)
        keep = None if this.options.keep_all else TASKS_KEPT
        checkpoints.save(state, this.workdir / "checkpoints", step=line["task"], keep=keep)
    if this.options.draw:
        figures.save_imagined_grid(this.workdir, images, line["task"])
    this.options.log_fn(table_row(line))
