"""Learning a task: grow, remember, sum, train, fit, calibrate."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from lifelong_cvae import sharding
from lifelong_cvae.deprecated import renamed_arguments
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import mean_image
from lifelong_cvae.model.types import own_types
from lifelong_cvae.recognition.calibrate import calibrate
from lifelong_cvae.recognition.ridge_classifier import RidgeClassifier
from lifelong_cvae.recognition.ridge_learning import learn_regression
from lifelong_cvae.stacked import unstack_subtrees
from lifelong_cvae.state import LifelongState, add_category, add_image_counts, append_subtree, parameters_per_category
from lifelong_cvae.training.beside import run_beside
from lifelong_cvae.training.category_fits import fit_category_parts
from lifelong_cvae.training.compilations import count_compilations
from lifelong_cvae.training.losses import TASK
from lifelong_cvae.training.task import Task, check_tasks, fix_values
from lifelong_cvae.training.task_data import open_task_data, select_categories
from lifelong_cvae.training.teacher import add_own_replay, make_teacher
from lifelong_cvae.training.train import ProgressFn, TaskProgress, TrainCarry, init_carry, train


class Report(NamedTuple):
    """Cost and losses of a learned task."""

    names: tuple[str, ...]
    steps: int
    terms: dict[str, float]  # loss terms (losses.py) in nats per image, mean over the last chunk
    seconds: float
    images_per_second: float  # real images in training steps
    compilations: int  # of the train step
    parameters_per_category: int
    classifier: RidgeClassifier | None = None  # the solved regression, if the task needed it


@own_types()
@renamed_arguments(midway="resume_from")
def learn(
    state: LifelongState,
    images: Mapping[str, Any],
    *,
    rng: jax.Array,
    progress: ProgressFn | None = None,
    resume_from: TaskProgress | None = None,
    mesh: Mesh | None = None,
) -> tuple[LifelongState, Report]:
    """Learns one task: one category or several at once. Returns the state after it, and a report.

    New categories are added, known ones are trained further.

    Args:
        state: state before the task. It is not modified.
        images: images by category name, uint8 or float in [0, 1], `[n, h, w, c]`, or `[n, h, w]` for one channel.
        rng: the seed's key, the same for every task. Each category derives its own key from it.
        progress: called after every chunk of steps. An exception that it raises ends the task.
        resume_from: last argument of `progress` in an interrupted call with the same arguments.
        mesh: devices that share each batch (`sharding.make_mesh`). Results differ from one device by rounding only.

    Raises:
        InputError: a bad name, no category, images of a wrong type, shape, range or number, or a batch size that
            the mesh does not divide.
        FloatingPointError: a loss or a parameter is not finite. The message names it, the task and the step.
    """
    return next(_learn_tasks(state, [images], rng=rng, progress=progress, resume_from=resume_from, mesh=mesh))


def learn_many(
    state: LifelongState,
    tasks: Sequence[Mapping[str, Any]],
    *,
    rng: jax.Array,
    progress: ProgressFn | None = None,
    resume_from: TaskProgress | None = None,
    mesh: Mesh | None = None,
) -> Iterator[tuple[LifelongState, Report]]:
    """Learns tasks one after another, but trains the categories of all of them side by side.

    This saves time on an accelerator, which one category does not fill. It is possible where the mixed part does not
    learn, so that no category reads another: with `mixed_mode` none, or frozen after the base categories. Results
    are those of `learn` but for rounding.

    Args:
        state: state before the first task. It is not modified.
        tasks: images by category name of each task, as in `learn`. No category is in two of them.
        rng: as in `learn`.
        progress: as in `learn`, for all tasks together.
        resume_from: as in `learn`.
        mesh: as in `learn`.

    Yields:
        The state and the report after each task. Its seconds are the task's part of the time of training, by steps,
        and the time that it took to complete the task.

    Raises:
        InputError: as in `learn`, or the mixed part learns.
        FloatingPointError: as in `learn`.
    """
    if state.mixed_learns and len(tasks) > 1:
        raise InputError(
            "learn_many: expected a mixed part that does not learn: mixed_mode none, or frozen after the base "
            f"categories; got mixed_mode={state.config.learning.mixed_mode}, "
            f"{state.base_categories_left} base categories left"
        )
    learned = _learn_tasks(state, tasks, rng=rng, progress=progress, resume_from=resume_from, mesh=mesh)
    for _ in tasks:
        with own_types():
            result = next(learned)
        yield result


def learn_stream(
    state: LifelongState, stream: Iterable[Any], *, rng: jax.Array, mesh: Mesh | None = None
) -> Iterator[tuple[LifelongState, Report]]:
    """Learns a stream of tasks and yields the state after each.

    Args:
        state: state before the stream.
        stream: tasks, each a pair (name, images) or a mapping of several. Tasks are read one at a time and not kept.
        rng: the seed's key.
        mesh: as in `learn`.

    Yields:
        The state and report that `learn` returns.

    Raises:
        InputError: as in `learn`, or an item that is not a task. States yielded before stay valid.
        FloatingPointError: as in `learn`.
    """
    for item in stream:
        if not isinstance(item, Mapping):
            if not (isinstance(item, Sequence) and len(item) == 2):
                raise InputError(f"task: expected a pair (name, images) or a mapping, got {type(item).__name__}")
            item = dict([item])
        state, report = learn(state, item, rng=rng, mesh=mesh)
        yield state, report


def _learn_tasks(
    state: LifelongState,
    tasks: Sequence[Mapping[str, Any]],
    *,
    rng: jax.Array,
    progress: ProgressFn | None,
    resume_from: TaskProgress | None,
    mesh: Mesh | None,
) -> Iterator[tuple[LifelongState, Report]]:
    """Trains the categories of all tasks together, then completes one task after another."""
    start = time.perf_counter() - (resume_from.seconds if resume_from else 0)
    sharding.check_batch_size(mesh, state.config.learning.batch_size)
    state = fix_values(state, tasks[0])
    checked = check_tasks(state, tasks, resume_from=resume_from)
    grown = reduce(partial(add_new_categories, rng=rng), checked, state)  # 1 grow: append fresh subtrees
    names = tuple(name for task in checked for name in task.names)
    teacher = make_teacher(grown, names, rng=rng, mesh=mesh)  # 2 remember: replay earlier categories
    train_images = [add_own_replay(grown, task.train_images, rng=rng) for task in checked]
    data, read_steps = open_task_data(grown, *train_images, rng=rng)
    state = append_categories(state, grown, checked[0].names)
    # 3 sum: features for the ridge regression, which reads no network
    with run_beside(learn_regression, state, checked[0].images) as sums, count_compilations("train_chunk") as compiled:
        if mesh is not None:
            sums.result()  # several devices: nothing runs beside their collective operations
        # 4 train: everything else is frozen
        options = {"resume_from": resume_from, "progress": progress, "start": start, "mesh": mesh}
        trained = train(grown, data, teacher, read_steps=read_steps, **options)
    subtrees = unstack_subtrees(trained.carry.params["categories"][TASK], names)
    training_seconds, first = time.perf_counter() - start, 0
    for task in checked:
        completing = time.perf_counter()
        part = select_categories(data, first, len(task.names))
        state = append_categories(state, grown, task.names)
        learned = merge_trained(state, trained, {name: subtrees[name] for name in task.names})
        learned = fit_category_parts(learned, part, teacher._replace(task=task.names))  # 5 fit: prior, noise, contrast
        regression = learn_regression(state, task.images) if first else sums.result()
        # 6 calibrate: thresholds, temperatures
        learned = calibrate(learned, task.images, regression, rng=rng, mesh=mesh)
        learned = add_image_counts(learned, task.images)
        steps = data.total_steps[first : first + len(task.names)]
        share = float(steps.sum() / data.total_steps.sum())
        seconds = share * training_seconds + time.perf_counter() - completing
        report = make_report(state, trained, task.names, int(steps[0]), compiled.count, seconds)
        yield learned, report._replace(classifier=regression.classifier)
        state, first = learned, first + len(task.names)


def add_new_categories(state: LifelongState, task: Task, *, rng: jax.Array) -> LifelongState:
    """Adds the task's unknown categories. Their decoders start with the mean training image."""
    for name, rows in task.train_images.items():
        if name not in state.names:
            state = add_category(state, name, mean_image(rows, is_vector=state.networks.is_vector), rng=rng)
    return state


def append_categories(state: LifelongState, grown: LifelongState, names: Sequence[str]) -> LifelongState:
    """Appends the categories of `names` that the state lacks, with their parameters in `grown`."""
    for name in names:
        if name not in state.names:
            state = append_subtree(state, name, grown.params["categories"][name])
    return state


def merge_trained(state: LifelongState, trained: TaskProgress, subtrees: Mapping[str, Any]) -> LifelongState:
    """Puts trained parameters into the state. Frozen leaves stay the same arrays as before.

    Args:
        state: state with the task's categories, before training.
        trained: end of training.
        subtrees: trained subtrees of the task's categories.
    """
    mixed = trained.carry.params["mixed"] if state.mixed_learns else state.params["mixed"]
    categories = {name: {**subtree, **subtrees.get(name, {})} for name, subtree in state.params["categories"].items()}
    new_categories = sum(state.visit(name) == 0 for name in subtrees)
    return state.replace(
        params={**state.params, "mixed": mixed, "categories": categories},
        visits=tuple(v + (n in subtrees) for n, v in zip(state.names, state.visits, strict=True)),
        base_categories_left=max(0, state.base_categories_left - new_categories),
    )


def initial_carry(state: LifelongState, names: Sequence[str]) -> TrainCarry:
    """Returns a carry with the shapes and types of the task `names`. Traceable; the values are arbitrary."""
    for name in names:
        if name not in state.names:
            state = add_category(state, name, rng=jax.random.key(0))
    return init_carry(state, tuple(names), train_mixed=state.mixed_learns)


def make_report(
    state: LifelongState, trained: TaskProgress, names: tuple[str, ...], steps: int, compilations: int, seconds: float
) -> Report:
    """Summarizes a task of the categories `names`, with `steps` steps, that took `seconds` in all."""
    images = steps * state.config.learning.batch_size * len(names)
    real = sum(trained.losses[name] for name in names) / len(names)
    return Report(
        names=names,
        steps=steps,
        terms={**trained.terms, "real": real},
        seconds=seconds,
        images_per_second=images / seconds,
        compilations=compilations,
        parameters_per_category=parameters_per_category(state),
    )
