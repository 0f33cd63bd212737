"""A task that is being learned, on disk: what a run that was killed goes on with.

It holds what training changes: the trainables, the optimizer's state and the position. The teacher is the
state before the task, which its own checkpoint holds; which one that was is recorded here, and verified. What
the teacher remembers is imagined anew, from the same randomness, and images come from the source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from lifelong_cvae import checkpoints
from lifelong_cvae.checkpoints import orbax_store
from lifelong_cvae.errors import DamageError
from lifelong_cvae.state import LifelongState
from lifelong_cvae.training.learn import initial_carry
from lifelong_cvae.training.train import TaskProgress


def save_task(folder: Path, resume_from: TaskProgress, teacher: str) -> None:
    """Writes where a task is, in place of what was written before.

    Args:
        folder: of this task alone.
        resume_from: what `learn` has come to.
        teacher: digest of the state before the task.

    Raises:
        OSError: the disk is full, or not to be written to.
    """
    meta = {
        "teacher": teacher,
        "names": list(resume_from.names),
        "terms": resume_from.terms,
        "seconds": resume_from.seconds,
    }
    orbax_store.write(folder, resume_from.steps, [lambda: {"carry": _flatten(resume_from.carry)}], meta, keep=1)


def load_task(
    folder: Path,
    state: LifelongState,
    names: Sequence[str],
    *,
    damaged: Callable[[DamageError], None] = lambda _: None,
) -> TaskProgress | None:
    """What `save` wrote, or None where there is nothing that follows on the state.

    Args:
        folder: of the task.
        state: before the task.
        names: the categories of the task.
        damaged: told what cannot be read, and passed over.
    """
    template, structure = jax.tree_util.tree_flatten_with_path(
        jax.eval_shape(lambda params: initial_carry(state.replace(params=params), names), state.params)
    )
    expected = {"carry": {_leaf_name(path): leaf for path, leaf in template}}
    found = orbax_store.read_newest(folder, lambda step: orbax_store.read(folder, step, lambda _: [expected]), damaged)
    if found is None:
        return None
    meta, (arrays,) = found[1]
    if meta["names"] != list(names) or meta["teacher"] != checkpoints.digest(state):
        return None
    carry = structure.unflatten(jnp.asarray(arrays["carry"][_leaf_name(path)]) for path, _ in template)
    return TaskProgress(tuple(names), carry, meta["terms"], meta["seconds"])


def _flatten(tree: Any) -> dict[str, Any]:
    return {_leaf_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _leaf_name(path: tuple[Any, ...]) -> str:
    """Where a leaf is, as a name: categories of a task are stacked, so no category's name is in it."""
    return jax.tree_util.keystr(path, simple=True, separator=".")
