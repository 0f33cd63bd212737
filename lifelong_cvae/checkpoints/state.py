"""Checkpoints of a state: categories stacked in a few arrays, names and settings in JSON beside them.

The first part holds what is common to all categories, each further one a group of them as they were learned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.checkpoints import orbax_store
from lifelong_cvae.config import Config
from lifelong_cvae.errors import DamageError, InputError
from lifelong_cvae.images import check_image_shape
from lifelong_cvae.stacked import unstack_subtrees
from lifelong_cvae.state import LifelongState, category_shapes, init, parameters_per_category

# A part of a checkpoint holds so many bytes of categories, or one.
PART_BYTES = 2**27


def save(state: LifelongState, folder: str | Path, *, step: int | None = None, keep: int | None = None) -> None:
    """Writes a checkpoint; it is complete when this returns.

    Args:
        state: what has been learned.
        folder: a folder of numbered checkpoints, made where it is missing.
        step: number of this checkpoint; default one more than the newest.
        keep: how many of the newest are kept; default all.

    Raises:
        InputError: there is a checkpoint of this number, or of a higher one.
        OSError: the disk is full, or not to be written to; earlier checkpoints are intact.
    """
    if (keep is not None and keep < 1) or (step is not None and (step < 0 or int(step) != step)):
        raise InputError(f"keep={keep}, step={step}: whole numbers of at least 1 and 0 are expected")
    if Path(folder).exists() and not Path(folder).is_dir():
        raise InputError(f"{folder}: a folder is expected")
    if step is None:
        step = max(orbax_store.steps(folder), default=-1) + 1
    orbax_store.write(folder, step, _parts(state), _meta(state), keep=keep)


def load(folder: str | Path, *, step: int | None = None) -> LifelongState:
    """Reads a checkpoint, and verifies every array's checksum.

    Args:
        folder: what `save` wrote to.
        step: number of the checkpoint; default the newest.

    Raises:
        InputError: there is none, or it is of another version.
        DamageError: it is damaged.
    """
    steps = orbax_store.steps(folder)
    if not steps or (step is not None and step not in steps):
        raise InputError(f"{folder}: no checkpoint{'' if step is None else f' {step}'} there")
    step = steps[-1] if step is None else step
    meta, parts = orbax_store.read(folder, step, _templates)
    try:
        return _state(meta, parts)
    except (KeyError, TypeError, ValueError) as error:
        raise DamageError(folder, step, f"cannot be read ({orbax_store.error_summary(error)})") from error


def digest(state: LifelongState) -> str:
    """A checksum of all that a checkpoint of the state would hold."""
    values = {**_meta(state), "checksums": [orbax_store.checksums(part()) for part in _parts(state)]}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _parts(state: LifelongState) -> list[orbax_store.Part]:
    """What builds the parts, on the host, where a number of categories more compiles nothing."""

    def common() -> dict[str, Any]:
        return {key: values for key, values in state.params.items() if key != "categories"}

    def group(names: tuple[str, ...]) -> dict[str, Any]:
        subtrees = [jax.device_get(state.params["categories"][name]) for name in names]
        return {"categories": jax.tree.map(lambda *leaves: np.stack(leaves), *subtrees)}

    return [common, *[partial(group, names) for names in _groups(state.names, _group_size(state))]]


def _group_size(state: LifelongState) -> int:
    """How many categories a part holds."""
    return max(1, PART_BYTES // (4 * max(parameters_per_category(state), 1)))


def _groups(names: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(names[start : start + size]) for start in range(0, len(names), size)]


def _meta(state: LifelongState) -> dict[str, Any]:
    return {
        "names": list(state.names),
        "visits": list(state.visits),
        "base_categories_left": state.base_categories_left,
        "image_shape": list(state.image_shape),
        "config": state.config.to_dict(),
        "group_size": _group_size(state),
    }


def _templates(meta: dict[str, Any]) -> list[dict[str, Any]]:
    """Shapes and types of the parts that were saved."""

    def build(rng: jax.Array) -> list[dict[str, Any]]:
        state = init(Config.from_dict(meta["config"]), check_image_shape(meta["image_shape"]), rng=rng)
        fresh = category_shapes(state)
        common = {key: values for key, values in state.params.items() if key != "categories"}

        def group(count: int) -> dict[str, Any]:
            return {"categories": jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), fresh)}

        return [common, *[group(len(names)) for names in _groups(meta["names"], meta["group_size"])]]

    return jax.eval_shape(build, jax.random.key(0))


def _state(meta: dict[str, Any], parts: Sequence[dict[str, Any]]) -> LifelongState:
    common, *groups = parts
    categories: dict[str, Any] = {}
    for names, part in zip(_groups(meta["names"], meta["group_size"]), groups, strict=True):
        categories |= unstack_subtrees(part["categories"], names)
    return LifelongState(
        params={**jax.tree.map(jnp.asarray, common), "categories": categories},
        names=tuple(meta["names"]),
        visits=tuple(meta["visits"]),
        base_categories_left=meta["base_categories_left"],
        image_shape=check_image_shape(meta["image_shape"]),
        config=Config.from_dict(meta["config"]),
    )
