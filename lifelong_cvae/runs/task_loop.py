"""Tasks of a run: each is learned, evaluated and saved."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from lifelong_cvae import checkpoints, plotting
from lifelong_cvae.data import Source
from lifelong_cvae.distributed import is_main_process
from lifelong_cvae.errors import Stopped
from lifelong_cvae.evaluation import metrics
from lifelong_cvae.files import append_line
from lifelong_cvae.model.vectors import is_vector
from lifelong_cvae.runs import figures
from lifelong_cvae.runs.background import BackgroundJobs
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.runs.metrics import LogPosteriors, table_row, task_metrics, task_scalars
from lifelong_cvae.runs.options import RunOptions
from lifelong_cvae.runs.tensorboard import EventWriter
from lifelong_cvae.runs.workdir import TaskCheckpointer, clear_task_checkpoints, resume_command
from lifelong_cvae.state import LifelongState
from lifelong_cvae.training.learn import Report, learn_many
from lifelong_cvae.training.train import TaskProgress

# Checkpoints of the last tasks that are kept.
TASKS_KEPT = 3


class Run(NamedTuple):
    """Values that stay constant during a run."""

    workdir: Path
    config: RunConfig
    source: Source
    rng: jax.Array
    options: RunOptions
    events: EventWriter


def learn_tasks(this: Run, state: LifelongState, history: list[dict[str, Any]]) -> tuple[LifelongState, LogPosteriors]:
    """Learns the remaining tasks. Returns the last state, and its log posteriors of all test images."""
    workdir, options, tasks = this.workdir, this.options, this.config.tasks
    log_posteriors, cache = None, metrics.empty_cache()
    with BackgroundJobs() as jobs, BackgroundJobs() as drawings:
        while len(history) < len(tasks):
            for learned, report in _learn_group(this, state, len(history), jobs, first_step=_steps(history)):
                state = learned
                log_posteriors = _evaluate(this, state, cache, report)
                history.append(task_metrics(len(history) + 1, report, log_posteriors, state))
                imagined = _imagine_grid(this, state, history)
                if options.draw and imagined:  # before the checkpoint, since a resumed run draws the last figure only
                    drawings.submit(partial(figures.save_imagined_grid, workdir, imagined, len(history)))
                jobs.submit(partial(_save_task, this, state, history[-1]))
                if options.should_stop():
                    jobs.wait()
                    command = resume_command(workdir)
                    raise Stopped(f"stopped after task {len(history)}/{len(tasks)}: resume with {command}")
    if is_main_process():
        clear_task_checkpoints(workdir)
    if log_posteriors is None:  # a finished run was resumed
        log_posteriors = _evaluate(this, state, cache)
    return state, log_posteriors


def side_by_side(tasks: Sequence[tuple[str, ...]], most: int) -> Sequence[tuple[str, ...]]:
    """Returns the first task and up to `most - 1` following ones: no category is in two of them."""
    count, names = 0, set()
    while count < min(most, len(tasks)) and names.isdisjoint(tasks[count]):
        names |= set(tasks[count])
        count += 1
    return tasks[:count]


def _steps(history: Sequence[Mapping[str, Any]]) -> int:
    return sum(line["steps"] for line in history)


def _evaluate(
    this: Run, state: LifelongState, cache: metrics.EvaluationCache, report: Report | None = None
) -> LogPosteriors:
    options = {"classifier": report and report.classifier, "mesh": this.options.mesh}
    return metrics.log_posteriors_by_category(
        state, this.source, this.config.evaluate_on, rng=this.rng, cache=cache, **options
    )


def _learn_group(
    this: Run, state: LifelongState, index: int, jobs: BackgroundJobs, *, first_step: int
) -> Iterator[tuple[LifelongState, Report]]:
    """Learns the task at `index` and those trained beside it. Yields the state and report after each.

    `first_step` is the number of steps of all earlier tasks.
    """
    options, tasks = this.options, this.config.tasks
    group = side_by_side(tasks[index:], 1 if state.mixed_learns else options.lookahead)
    names = tuple(name for task in group for name in task)
    images = [{name: this.source.read("train", name) for name in task} for task in group]
    checkpointer = TaskCheckpointer(this.workdir, index + 1, state, names, log_fn=options.log_fn)
    resume_from = checkpointer.load()
    this.events.purge_from(first_step + (resume_from.steps if resume_from else 0) + 1)
    numbers = f"task {index + 1}" if len(group) == 1 else f"tasks {index + 1} to {index + len(group)}"
    label = f"{numbers}/{len(tasks)}: {', '.join(names)}"
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

        yield from learn_many(
            state, images, rng=this.rng, progress=on_progress, resume_from=resume_from, mesh=options.mesh
        )


def _imagine_grid(this: Run, state: LifelongState, history: Sequence[Mapping[str, Any]]) -> dict[str, jax.Array]:
    """Imagines images after the last task, if they are shown.

    They and the metrics of the task are also written as TensorBoard events.
    """
    step = _steps(history)
    this.events.scalars(task_scalars(history[-1]), step=step)
    if is_vector(state.image_shape) or not (this.options.draw or this.events):
        return {}
    images = figures.sample_grid(state, rng=this.rng)
    this.events.image("imagined", plotting.tile_images(images), step=step)
    return images


def _save_task(this: Run, state: LifelongState, line: dict[str, Any]) -> None:
    """Writes the metrics `line` and the checkpoint of a task, then logs it; beside the next task."""
    if is_main_process():
        append_line(this.workdir / "metrics.jsonl", line)
        keep = None if this.options.keep_all else TASKS_KEPT
        checkpoints.save(state, this.workdir / "checkpoints", step=line["task"], keep=keep)
    this.options.log_fn(table_row(line))
