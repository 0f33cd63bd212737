"""Learning a task: grow, remember, train, fit, sum, calibrate."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lifelong_cvae import sharding
from lifelong_cvae.config import LearningConfig
from lifelong_cvae.deprecated import renamed_arguments
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import mean_image, pad_rows, power_of_two, to_float
from lifelong_cvae.model import cvae
from lifelong_cvae.model.networks import Networks
from lifelong_cvae.model.types import own_types
from lifelong_cvae.recognition import ridge_sums
from lifelong_cvae.recognition.calibrate import calibrate
from lifelong_cvae.stacked import fold_in_rows, unstack_subtrees
from lifelong_cvae.state import LifelongState, add_category, add_image_counts, name_hash, parameters_per_category
from lifelong_cvae.training.category_fits import fit_category_parts
from lifelong_cvae.training.compilations import count_compilations
from lifelong_cvae.training.losses import TASK, TaskData
from lifelong_cvae.training.task import Task, check_task, fix_max_value
from lifelong_cvae.training.teacher import add_own_replay, make_teacher
from lifelong_cvae.training.train import ProgressFn, TaskProgress, TrainCarry, init_carry, train

# Images are padded to a power of two of at least this many rows.
MIN_ROWS = 1024


class Report(NamedTuple):
    """Cost and losses of a learned task."""

    names: tuple[str, ...]
    steps: int
    terms: dict[str, float]  # loss terms (losses.py) in nats per image, mean over the last chunk
    seconds: float
    images_per_second: float  # real images in training steps
    compilations: int  # of the train step
    parameters_per_category: int


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
    start = time.perf_counter() - (resume_from.seconds if resume_from else 0)
    sharding.check_batch_size(mesh, state.config.learning.batch_size)
    state = fix_max_value(state, images)
    task = check_task(state, images, resume_from=resume_from)
    grown = add_new_categories(state, task, rng=rng)  # 1 grow: append fresh subtrees
    teacher = make_teacher(grown, task.names, rng=rng, mesh=mesh)  # 2 remember: replay earlier categories
    data = make_task_data(grown, add_own_replay(grown, task.train_images, rng=rng), rng=rng)
    with count_compilations("train_chunk") as compiled:  # 3 train: everything else is frozen
        trained = train(grown, data, teacher, resume_from=resume_from, progress=progress, start=start, mesh=mesh)
    learned = merge_trained(grown, trained)
    learned = fit_category_parts(learned, data, teacher)  # 4 fit: prior, low-rank noise, contrast
    learned, held_out = ridge_sums.update(learned, task.images)  # 5 sum: features for the ridge regression
    learned = calibrate(learned, task.images, held_out, rng=rng, mesh=mesh)  # 6 calibrate: thresholds, temperatures
    learned = ridge_sums.add_held_out(learned, held_out)
    learned = add_image_counts(learned, task.images)
    return learned, make_report(state, trained, int(data.total_steps), compiled.count, time.perf_counter() - start)


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


def add_new_categories(state: LifelongState, task: Task, *, rng: jax.Array) -> LifelongState:
    """Adds the task's unknown categories. Their decoders start with the mean training image."""
    for name, rows in task.train_images.items():
        if name not in state.names:
            state = add_category(state, name, mean_image(rows), rng=rng)
    return state


def make_task_data(state: LifelongState, images: Mapping[str, np.ndarray], *, rng: jax.Array) -> TaskData:
    """Puts a task's images `[n, pixels]` on the device, padded to a common power of two of rows.

    Args:
        state: state that knows the task's categories.
        images: training images by category.
        rng: the seed's key.
    """
    largest = max(map(len, images.values()))
    length = power_of_two(largest, MIN_ROWS)
    # For each category its `category_rng`, with 1 folded in.
    rngs = fold_in_rows(rng, np.asarray([(name_hash(name), state.visit(name), 1) for name in images], np.uint32))
    padded = jax.device_put(np.stack([pad_rows(rows, length) for rows in images.values()]))
    # A frozen mixed part gives the same activations in every step: they are computed once.
    frozen = state.config.has_mixed and not state.mixed_learns
    mixed, networks = state.params["mixed"], state.training_networks
    return TaskData(
        images=padded,
        counts=np.asarray([len(rows) for rows in images.values()], np.int32),
        rngs=rngs,
        total_steps=np.int32(count_steps(state.config.learning, largest)),
        mixed_activations=encoder_activations(mixed, padded, networks=networks) if frozen else None,
    )


def count_steps(settings: LearningConfig, largest: int) -> int:
    """Returns the training steps, whole chunks, of a task whose largest category has `largest` images."""
    steps = max(settings.min_steps, settings.epochs * math.ceil(largest / settings.batch_size), 1)
    return math.ceil(steps / settings.steps_per_call) * settings.steps_per_call


@partial(jax.jit, static_argnames="networks")
def encoder_activations(mixed: Any, images: jax.Array, *, networks: Networks) -> Any:
    """Computes the encoder's mixed activations of images `[categories, rows, pixels]`, in blocks."""
    model = cvae.CategoryModel(mixed, {}, networks)
    blocks = images.reshape(-1, MIN_ROWS, images.shape[-1])
    activations = jax.lax.map(lambda rows: cvae.mixed_activations(model, "encoder", to_float(rows)), blocks)
    return jax.tree.map(lambda leaf: leaf.reshape(*images.shape[:2], -1), activations)


def merge_trained(state: LifelongState, trained: TaskProgress) -> LifelongState:
    """Puts trained parameters into the state. Frozen leaves stay the same arrays as before.

    Args:
        state: state with the task's categories, before training.
        trained: end of training.
    """
    params, names = trained.carry.params, trained.names
    learned = unstack_subtrees(params["categories"][TASK], names)
    categories = {name: {**subtree, **learned.get(name, {})} for name, subtree in state.params["categories"].items()}
    mixed = params["mixed"] if state.mixed_learns else state.params["mixed"]
    new_categories = sum(state.visit(name) == 0 for name in names)
    return state.replace(
        params={**state.params, "mixed": mixed, "categories": categories},
        visits=tuple(v + (n in names) for n, v in zip(state.names, state.visits, strict=True)),
        base_categories_left=max(0, state.base_categories_left - new_categories),
    )


def initial_carry(state: LifelongState, names: Sequence[str]) -> TrainCarry:
    """Returns a carry with the shapes and types of the task `names`. Traceable; the values are arbitrary."""
    for name in names:
        if name not in state.names:
            state = add_category(state, name, rng=jax.random.key(0))
    return init_carry(state, tuple(names), train_mixed=state.mixed_learns)


def make_report(state: LifelongState, trained: TaskProgress, steps: int, compilations: int, seconds: float) -> Report:
    """Summarizes a task of `steps` steps that took `seconds` in all."""
    images = steps * state.config.learning.batch_size * len(trained.names)
    return Report(
        names=trained.names,
        steps=steps,
        terms=trained.terms,
        seconds=seconds,
        images_per_second=images / seconds,
        compilations=compilations,
        parameters_per_category=parameters_per_category(state),
    )
