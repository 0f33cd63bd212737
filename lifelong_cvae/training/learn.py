"""Learning a task: grow, remember, train, settle."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lifelong_cvae import sharding
from lifelong_cvae.config import LearningConfig
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import flatten_images, mean_image, pad_rows, power_of_two, to_float
from lifelong_cvae.model import cvae
from lifelong_cvae.model.networks import Networks
from lifelong_cvae.recognition import ridge_classifier
from lifelong_cvae.recognition.calibrate import calibrate
from lifelong_cvae.stacked import unstack_subtrees
from lifelong_cvae.state import (
    LifelongState,
    add_category,
    add_image_counts,
    category_rng,
    check_name,
    parameters_per_category,
)
from lifelong_cvae.training import category_fits, compilations
from lifelong_cvae.training.losses import TASK, TaskData
from lifelong_cvae.training.teacher import Teacher, add_own_replay
from lifelong_cvae.training.train import ProgressFn, TaskProgress, TrainCarry, check_finite, init_carry, train

MIN_ROWS = 1024
# Of a category: what is learned of a single image would be that image.
MIN_IMAGES = 2


class Report(NamedTuple):
    """What learning a task took and gave."""

    names: tuple[str, ...]
    steps: int
    terms: dict[str, float]  # loss terms (see losses.py), mean over the last chunk
    seconds: float
    images_per_second: float  # real images in training steps
    compilations: int  # of the train step
    parameters_per_category: int


def learn(
    state: LifelongState,
    images: Mapping[str, Any],
    *,
    rng: jax.Array,
    progress: ProgressFn | None = None,
    resume_from: TaskProgress | None = None,
    mesh: Mesh | None = None,
) -> tuple[LifelongState, Report]:
    """Learns one task: one category or several at once. New names grow, known ones are thawed.

    Args:
        state: what is known so far; stays as it is.
        images: category name to its images, uint8 or float in [0, 1], `[n, h, w, c]`, or
            `[n, h, w]` for one channel.
        rng: the seed's key; pass the same one to every task, each category draws its own from it.
        progress: called after every chunk of steps; what it raises ends the task.
        resume_from: what `progress` was told in an earlier call with the same arguments, to go on from there.
        mesh: devices that share each batch (see `parallel.make_mesh`); what they learn is what one device
            learns but for rounding.

    Returns:
        The state with the task learned, and a report.

    Raises:
        InputError: a bad name, no category, images of a wrong type, shape, range or number, or a batch that
            the devices cannot share evenly.
        FloatingPointError: a loss or a parameter that is not finite; says which, in which task, which step.
    """
    start = time.perf_counter() - (resume_from.seconds if resume_from else 0)
    sharding.check_batch_size(mesh, state.config.learning.batch_size)
    rows = _check_task(state, images)
    if resume_from and resume_from.names != tuple(rows):
        raise InputError(f"resume_from in the task {', '.join(resume_from.names)}: got images of {', '.join(rows)}")
    trained_on = {name: values[~ridge_classifier.held_out_mask(state, len(values))] for name, values in rows.items()}
    names = tuple(rows)
    means = {name: jnp.asarray(mean_image(values)) for name, values in trained_on.items()}
    grown = add_new_categories(state, means, rng=rng)
    data = make_task_data(grown, add_own_replay(state, trained_on, rng=rng), rng=rng)
    teacher = Teacher(grown, names, rng=rng, mesh=mesh)
    with compilations.count_compilations("train_chunk") as compiled:
        trained = train(grown, names, data, teacher, resume_from=resume_from, progress=progress, start=start, mesh=mesh)
    new = len(set(names) - set(state.names))
    params = trained.carry.params
    learned = merge_trained(ridge_classifier.update(grown, rows, rng=rng), names, params, data, teacher, new=new)
    learned = calibrate(add_image_counts(learned, rows), rows, rng=rng, mesh=mesh)
    seconds = time.perf_counter() - start
    steps = int(data.total_steps)
    return learned, Report(
        names=names,
        steps=steps,
        terms=trained.terms,
        seconds=seconds,
        images_per_second=steps * state.config.learning.batch_size * len(names) / seconds,
        compilations=compiled.count,
        parameters_per_category=parameters_per_category(state),
    )


def learn_stream(
    state: LifelongState, stream: Iterable[Any], *, rng: jax.Array, mesh: Mesh | None = None
) -> Iterator[tuple[LifelongState, Report]]:
    """Learns whatever arrives, one task after another, and gives the state after each.

    Args:
        state: what is known so far.
        stream: tasks, each a pair (name, images) or a mapping of several; an iterator is read as it is
            needed, and no task is kept once it is learned.
        rng: the seed's key.
        mesh: as for `learn`.

    Yields:
        What `learn` returns.

    Raises:
        InputError: as `learn`, or something else in the stream; the states given so far stay good.
        FloatingPointError: as `learn`.
    """
    for task in stream:
        if not isinstance(task, Mapping):
            if not (isinstance(task, Sequence) and len(task) == 2):
                raise InputError(f"a pair (name, images) or a mapping is expected, got {type(task).__name__}")
            task = dict([task])
        state, report = learn(state, task, rng=rng, mesh=mesh)
        yield state, report


def add_new_categories(state: LifelongState, mean_images: Mapping[str, jax.Array], *, rng: jax.Array) -> LifelongState:
    """The state with a fresh subtree for each name that is new."""
    for name, image in mean_images.items():
        if name not in state.names:
            state = add_category(state, name, image, rng=rng)
    return state


def _check_task(state: LifelongState, images: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if not images:
        raise InputError("no category to learn: a dict of one or more names with their images is expected")
    rows = {}
    for name, values in images.items():
        check_name(name)
        rows[name] = flatten_images(values, state.image_shape, what=f"images of category {name!r}")
        if len(rows[name]) < MIN_IMAGES:
            raise InputError(f"images of category {name!r}: at least {MIN_IMAGES} are expected, got {len(rows[name])}")
    return rows


def make_task_data(state: LifelongState, rows: dict[str, np.ndarray], *, rng: jax.Array) -> TaskData:
    """Images `[n, pixels]` of a task's categories, all known, on the device and padded."""
    largest = max(map(len, rows.values()))
    length = power_of_two(largest, MIN_ROWS)
    rngs = [jax.random.fold_in(category_rng(rng, name, state.visit(name)), 1) for name in rows]
    images = jnp.asarray(np.stack([pad_rows(values, length) for values in rows.values()]))
    frozen = state.config.has_mixed and not state.mixed_learns
    mixed, networks = state.params["mixed"], state.training_networks
    return TaskData(
        images=images,
        counts=jnp.asarray([len(values) for values in rows.values()], jnp.int32),
        rngs=jnp.stack(rngs),
        total_steps=jnp.int32(count_steps(state.config.learning, largest)),
        shared=_precompute_mixed(mixed, images, networks=networks) if frozen else None,
    )


def count_steps(settings: LearningConfig, largest: int) -> int:
    """Training steps of a task whose largest category has so many images: whole chunks."""
    steps = max(settings.min_steps, settings.epochs * math.ceil(largest / settings.batch_size), 1)
    return math.ceil(steps / settings.steps_per_call) * settings.steps_per_call


@partial(jax.jit, static_argnames="networks")
def _precompute_mixed(mixed: Any, images: jax.Array, *, networks: Networks) -> Any:
    """Mixed neurons of images `[categories, rows, pixels]`: once, where every step would give the same."""
    model = cvae.CategoryModel(mixed, {}, networks)
    blocks = images.reshape(-1, MIN_ROWS, images.shape[-1])
    neurons = jax.lax.map(lambda rows: cvae.mixed_activations(model, "encoder", to_float(rows)), blocks)
    return jax.tree.map(lambda leaf: leaf.reshape(*images.shape[:2], -1), neurons)


def initial_carry(state: LifelongState, names: Sequence[str]) -> TrainCarry:
    """The carry that the task `names` starts with, but for its values: traceable, for shapes and types."""
    blank = dict.fromkeys(names, jnp.zeros((state.networks.pixels,)))
    grown = add_new_categories(state, blank, rng=jax.random.key(0))
    return init_carry(grown, tuple(names), train_mixed=state.mixed_learns)


def merge_trained(
    state: LifelongState,
    names: tuple[str, ...],
    params: dict[str, Any],
    data: TaskData,
    teacher: Teacher,
    *,
    new: int,
) -> LifelongState:
    """The state with what the task trained put in; whatever was frozen is taken from before."""
    mixed = params["mixed"] if state.mixed_learns else state.params["mixed"]
    trained = params["categories"][TASK]
    settled = category_fits.fit_category_parts(mixed, trained, data, names, state)
    if teacher.remembers and category_fits.fits_priors(state):
        stack = teacher.stack(teacher.names)
        settled |= category_fits.shift_priors(state, mixed, stack, teacher.names, rng=teacher.rng)
    check_finite(settled, "after the last step", names)
    learned = unstack_subtrees(trained, names)
    categories = {
        name: {**subtree, **learned.get(name, {}), **settled.get(name, {})}
        for name, subtree in state.params["categories"].items()
    }
    visits = tuple(v + (n in names) for n, v in zip(state.names, state.visits, strict=True))
    return state.replace(
        params={**state.params, "mixed": mixed, "categories": categories},
        visits=visits,
        base_categories_left=max(0, state.base_categories_left - new),
    )
