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

from lifelong_cvae import closed_form, compilations, cvae, growth, parallel, settling, stacking
from lifelong_cvae.config import LearningConfig
from lifelong_cvae.errors import InputError
from lifelong_cvae.growth import LifelongState
from lifelong_cvae.images import as_rows, mean_image, pad_rows, power_of_two, to_unit
from lifelong_cvae.losses import TASK, TaskData
from lifelong_cvae.networks import Networks
from lifelong_cvae.teacher import Teacher, with_own_memory
from lifelong_cvae.training import Carry, Midway, Progress, check_all, start_carry, train

MINIMUM_ROWS = 1024
# Of a category: what is learned of a single image would be that image.
MINIMUM_IMAGES = 2


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
    progress: Progress | None = None,
    midway: Midway | None = None,
    mesh: Mesh | None = None,
) -> tuple[LifelongState, Report]:
    """Learns one task: one category or several at once. New names grow, known ones are thawed.

    Args:
        state: what is known so far; stays as it is.
        images: category name to its images, uint8 or float in [0, 1], `[n, h, w, c]`, or
            `[n, h, w]` for one channel.
        rng: the seed's key; pass the same one to every task, each category draws its own from it.
        progress: called after every chunk of steps; what it raises ends the task.
        midway: what `progress` was told in an earlier call with the same arguments, to go on from there.
        mesh: devices that share each batch (see `parallel.make_mesh`); what they learn is what one device
            learns but for rounding.

    Returns:
        The state with the task learned, and a report.

    Raises:
        InputError: a bad name, no category, images of a wrong type, shape, range or number, or a batch that
            the devices cannot share evenly.
        FloatingPointError: a loss or a parameter that is not finite; says which, in which task, which step.
    """
    start = time.perf_counter() - (midway.seconds if midway else 0)
    parallel.check_batch(mesh, state.config.learning.batch_size)
    rows = _check_task(state, images)
    if midway and midway.names != tuple(rows):
        raise InputError(f"midway in the task {', '.join(midway.names)}: got images of {', '.join(rows)}")
    trained_on = {name: values[~closed_form.held_out(state, len(values))] for name, values in rows.items()}
    names = tuple(rows)
    means = {name: jnp.asarray(mean_image(values)) for name, values in trained_on.items()}
    grown = _grown(state, means, rng=rng)
    data = task_data(grown, with_own_memory(state, trained_on, rng=rng), rng=rng)
    teacher = Teacher(grown, names, rng=rng, mesh=mesh)
    with compilations.counted("train_chunk") as compiled:
        trained = train(grown, names, data, teacher, midway=midway, progress=progress, start=start, mesh=mesh)
    new = len(set(names) - set(state.names))
    params = trained.carry.params
    learned = _absorb(closed_form.add(grown, rows, rng=rng), names, params, data, teacher, new=new)
    learned = settling.calibrate(growth.count_images(learned, rows), rows, rng=rng, mesh=mesh)
    seconds = time.perf_counter() - start
    steps = int(data.total_steps)
    return learned, Report(
        names=names,
        steps=steps,
        terms=trained.terms,
        seconds=seconds,
        images_per_second=steps * state.config.learning.batch_size * len(names) / seconds,
        compilations=compiled.count,
        parameters_per_category=growth.parameters_per_category(state),
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


def _grown(state: LifelongState, mean_images: Mapping[str, jax.Array], *, rng: jax.Array) -> LifelongState:
    """The state with a fresh subtree for each name that is new."""
    for name, image in mean_images.items():
        if name not in state.names:
            state = growth.grow(state, name, image, rng=rng)
    return state


def _check_task(state: LifelongState, images: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if not images:
        raise InputError("no category to learn: a dict of one or more names with their images is expected")
    rows = {}
    for name, values in images.items():
        growth.check_name(name)
        rows[name] = as_rows(values, state.image_shape, what=f"images of category {name!r}")
        if len(rows[name]) < MINIMUM_IMAGES:
            raise InputError(
                f"images of category {name!r}: at least {MINIMUM_IMAGES} are expected, got {len(rows[name])}"
            )
    return rows


def task_data(state: LifelongState, rows: dict[str, np.ndarray], *, rng: jax.Array) -> TaskData:
    """Images `[n, pixels]` of a task's categories, all known, on the device and padded."""
    largest = max(map(len, rows.values()))
    length = power_of_two(largest, MINIMUM_ROWS)
    rngs = [jax.random.fold_in(growth.category_rng(rng, name, state.visit(name)), 1) for name in rows]
    images = jnp.asarray(np.stack([pad_rows(values, length) for values in rows.values()]))
    frozen = state.config.has_mixed and not state.mixed_learns
    mixed, networks = state.params["mixed"], state.trained_networks
    return TaskData(
        images=images,
        counts=jnp.asarray([len(values) for values in rows.values()], jnp.int32),
        rngs=jnp.stack(rngs),
        total_steps=jnp.int32(steps_of(state.config.learning, largest)),
        shared=_neurons(mixed, images, networks=networks) if frozen else None,
    )


def steps_of(settings: LearningConfig, largest: int) -> int:
    """Training steps of a task whose largest category has so many images: whole chunks."""
    steps = max(settings.min_steps, settings.epochs * math.ceil(largest / settings.batch_size), 1)
    return math.ceil(steps / settings.chunk_steps) * settings.chunk_steps


@partial(jax.jit, static_argnames="networks")
def _neurons(mixed: Any, images: jax.Array, *, networks: Networks) -> Any:
    """Mixed neurons of images `[categories, rows, pixels]`: once, where every step would give the same."""
    path = cvae.Path(mixed, {}, networks)
    blocks = images.reshape(-1, MINIMUM_ROWS, images.shape[-1])
    neurons = jax.lax.map(lambda rows: cvae.shared_neurons(path, "encoder", to_unit(rows)), blocks)
    return jax.tree.map(lambda leaf: leaf.reshape(*images.shape[:2], -1), neurons)


def first_carry(state: LifelongState, names: Sequence[str]) -> Carry:
    """The carry that the task `names` starts with, but for its values: traceable, for shapes and types."""
    blank = dict.fromkeys(names, jnp.zeros((state.networks.pixels,)))
    grown = _grown(state, blank, rng=jax.random.key(0))
    return start_carry(grown, tuple(names), train_mixed=state.mixed_learns)


def _absorb(
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
    settled = settling.settle(mixed, trained, data, names, state)
    if teacher.remembers and settling.fits_priors(state):
        stack = teacher.stack(teacher.names)
        settled |= settling.move_priors(state, mixed, stack, teacher.names, rng=teacher.rng)
    check_all(settled, "after the last step", names)
    learned = stacking.unstack_subtrees(trained, names)
    categories = {
        name: {**subtree, **learned.get(name, {}), **settled.get(name, {})}
        for name, subtree in state.params["categories"].items()
    }
    visits = tuple(v + (n in names) for n, v in zip(state.names, state.visits, strict=True))
    return state.replace(
        params={**state.params, "mixed": mixed, "categories": categories},
        visits=visits,
        childhood_left=max(0, state.childhood_left - new),
    )
