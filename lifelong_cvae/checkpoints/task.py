"""Checkpoints of a task in progress, from which a killed run resumes.

Such a checkpoint holds what training changes: parameters, optimizer state and position. The teacher is the state
before the task, which has a checkpoint of its own; its digest is recorded here and compared. Replayed pairs are
sampled again from the same keys, and images are read from their source.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from lifelong_cvae.checkpoints import orbax_store
from lifelong_cvae.checkpoints.state import digest
from lifelong_cvae.errors import DamageError
from lifelong_cvae.model.types import own_types
from lifelong_cvae.state import LifelongState
from lifelong_cvae.training.learn import initial_carry
from lifelong_cvae.training.train import TaskProgress


@own_types()
def save_task(folder: Path, progress: TaskProgress, teacher: str) -> None:
    """Writes the progress of a task, in place of the last one.

    Args:
        folder: folder of this task alone.
        progress: progress of the task.
        teacher: digest of the state before the task.

    Raises:
        OSError: the disk is full or not writable.
    """
    meta = {
        "teacher": teacher,
        "names": list(progress.names),
        "terms": progress.terms,
        "seconds": progress.seconds,
        "losses": progress.losses,
    }
    leaves = jax.tree_util.tree_flatten_with_path(progress.carry)[0]
    part = {"carry": {_leaf_name(path): leaf for path, leaf in leaves}}
    orbax_store.write(folder, progress.steps, [lambda: part], meta, keep=1)


@own_types()
def load_task(
    folder: Path,
    state: LifelongState,
    names: Sequence[str],
    *,
    on_damage: Callable[[DamageError], None] = lambda _: None,
) -> TaskProgress | None:
    """Reads the progress of a task.

    Args:
        folder: folder of the task.
        state: state before the task.
        names: categories of the task.
        on_damage: called with each damaged checkpoint, which is skipped.

    Returns:
        The progress, or None if there is none that continues the state. Progress of an older schema is ignored: the
        task is then learned from its start, with the same result.
    """
    template, structure = jax.tree_util.tree_flatten_with_path(
        jax.eval_shape(lambda params: initial_carry(state.replace(params=params), names), state.params)
    )
    parts = [{"carry": {_leaf_name(path): leaf for path, leaf in template}}]

    def read(step: int) -> tuple[dict[str, Any], list[Any]] | None:
        meta = orbax_store.read_meta(folder, step)
        # Version 0.2 wrote no losses of categories.
        if meta["schema"] != orbax_store.SCHEMA or meta["names"] != list(names) or "losses" not in meta:
            return None
        return orbax_store.read(folder, step, lambda _: parts)

    newest = orbax_store.read_newest(folder, read, on_damage)
    if newest is None or newest[1] is None:
        return None
    meta, (arrays,) = newest[1]
    if meta["teacher"] != digest(state):
        return None
    carry = structure.unflatten(jnp.asarray(arrays["carry"][_leaf_name(path)], leaf.dtype) for path, leaf in template)
    return TaskProgress(tuple(names), carry, meta["terms"], meta["seconds"], meta["losses"])


def _leaf_name(path: tuple[Any, ...]) -> str:
    """Joins the keys of a leaf. No category's name is among them: the subtrees of a task are stacked."""
    return jax.tree_util.keystr(path, simple=True, separator=".")
