"""A run: learns a stream of tasks into a directory, with evaluation, checkpoint and figures after each task."""

import contextlib
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from lifelong_cvae import sharding
from lifelong_cvae.data import Source, split_reading
from lifelong_cvae.distributed import any_process, is_main_process, run_on_main
from lifelong_cvae.errors import InputError, use_package
from lifelong_cvae.files import write_json
from lifelong_cvae.model.types import own_types
from lifelong_cvae.model.vectors import is_vector
from lifelong_cvae.recognition import ridge_sums
from lifelong_cvae.runs import figures, html_report
from lifelong_cvae.runs.compile_ahead import Plan, compile_ahead
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.runs.metrics import TABLE_HEAD, describe_source, run_result, table_row
from lifelong_cvae.runs.options import RunOptions
from lifelong_cvae.runs.task_loop import Run, learn_tasks, side_by_side
from lifelong_cvae.runs.tensorboard import EventWriter
from lifelong_cvae.runs.workdir import open_run
from lifelong_cvae.state import LifelongState, init
from lifelong_cvae.training.task import MIN_IMAGES

EVENTS_DIR = "tensorboard"


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
        InputError: a bad option, the directory holds another run or none to resume, another process writes to it, or
            a package is missing. Nothing has been written then.
        FloatingPointError: a loss or parameter is not finite. The last task's checkpoint is intact.
        OSError: the disk is full or not writable. The last checkpoint is intact.
        Stopped: `should_stop` was true. Everything is saved.
    """
    start = time.perf_counter()
    options = options or RunOptions()
    if options.lookahead < 1:
        raise InputError(f"lookahead: expected at least 1, got {options.lookahead}")
    sharding.check_batch_size(options.mesh, config.config.learning.batch_size)
    if config.config.recognition.recognizer != "elbo":
        ridge_sums.check_dictionary(config.config.closed_form)
    options = _resolve(options)
    rng, source = jax.random.key(config.seed), _check_source(config, source)
    events = EventWriter(workdir / EVENTS_DIR if options.tensorboard and is_main_process() else None)
    this = Run(workdir, config, split_reading(source), rng, options, events)
    fresh = init(config.config, source.image_shape, rng=rng, max_value=source.max_value)
    opened = open_run(workdir, config, source, fresh, resume=resume, log_fn=options.log_fn)
    with opened as (state, history), contextlib.closing(events):
        # The last process may have died before it drew this figure.
        if options.draw and history and not is_vector(source.image_shape):
            figures.save_imagined_grid(workdir, figures.sample_grid(state, rng=rng), len(history))
        for row in (describe_source(source, config), source.note, TABLE_HEAD, *map(table_row, history)):
            if row:
                options.log_fn(row)
        planned = state.replace(capacity=len(set(itertools.chain(*config.tasks))))
        with _compile_ahead(this, planned, history):
            state, log_posteriors = learn_tasks(this, planned, history)
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
    this: Run, state: LifelongState, history: Sequence[Mapping[str, Any]]
) -> contextlib.AbstractContextManager[None]:
    """Compiles the programs of the next task in the background, unless options say otherwise."""
    remaining, source, options = this.config.tasks[len(history) :], this.source, this.options
    if not options.compile_ahead or options.mesh is not None or not remaining:
        return contextlib.nullcontext()
    names, known = remaining[0], dict.fromkeys((*state.names, *itertools.chain(*remaining)))
    together = _trained_together(state, remaining, options.lookahead)
    plan = Plan(
        names=names,
        together=together,
        train_count=max(source.counts["train"][name] for name in {*names, *together}),
        test_counts=tuple(source.counts[this.config.evaluate_on][name] for name in known),
        dtype=source.read("train", names[0], slice(1)).dtype,
        shown=figures.IMAGES_PER_ROW if (options.draw or this.events) and not is_vector(source.image_shape) else 0,
    )
    return compile_ahead(state, plan)


def _trained_together(state: LifelongState, tasks: Sequence[tuple[str, ...]], lookahead: int) -> tuple[str, ...]:
    """Returns the categories that are trained side by side once the mixed part does not learn."""
    tasks = list(tasks)
    while tasks and state.mixed_learns:
        state = state.replace(base_categories_left=max(0, state.base_categories_left - len(tasks.pop(0))))
    return tuple(name for task in side_by_side(tasks, lookahead) for name in task)
