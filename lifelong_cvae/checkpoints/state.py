"""Checkpoints of a state: parameters in a few stacked arrays, names and settings in JSON beside them.

The first part of a checkpoint holds everything outside the categories. Each further part holds a group of categories,
stacked in order of learning.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae import deprecated
from lifelong_cvae.checkpoints import old_sums, orbax_store
from lifelong_cvae.config import Config
from lifelong_cvae.errors import DamageError, InputError, error_summary
from lifelong_cvae.files import json_digest, local_path
from lifelong_cvae.images import check_image_shape
from lifelong_cvae.model.types import own_types
from lifelong_cvae.stacked import unstack_subtrees
from lifelong_cvae.state import LifelongState, category_shapes, init, parameters_per_category

# A part of a checkpoint holds at most this size of categories, or one category.
PART_BYTES = 2**27
# The last schema with the parameter keys of version 0.1.
OLD_KEYS_SCHEMA = 4
# The last schema with sums of features that are not computed any more. They are verified and left out.
OLD_SUMS_SCHEMA = 5


@own_types()
def save(state: LifelongState, folder: str | Path, *, step: int | None = None, keep: int | None = None) -> None:
    """Writes a checkpoint. It is complete when this function returns.

    Args:
        state: state to save.
        folder: folder of numbered checkpoints, created if missing.
        step: number of the checkpoint; default one more than the newest.
        keep: number of newest checkpoints to keep; default all.

    Raises:
        InputError: a checkpoint of this number or a higher one exists.
        OSError: the disk is full or not writable. Earlier checkpoints are intact.
    """
    folder = local_path(folder, what="folder")
    if keep is not None and keep < 1:
        raise InputError(f"keep: expected a whole number of at least 1, got {keep}")
    if step is not None and (step < 0 or int(step) != step):
        raise InputError(f"step: expected a whole number of at least 0, got {step}")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder, got a file")
    if step is None:
        step = max(orbax_store.steps(folder), default=-1) + 1
    orbax_store.write(folder, step, _parts(state), _meta(state), keep=keep)


@own_types()
def load(folder: str | Path, *, step: int | None = None) -> LifelongState:
    """Reads a checkpoint and verifies the checksum of every array.

    Args:
        folder: folder that `save` wrote to.
        step: number of the checkpoint; default the newest.

    Raises:
        InputError: the checkpoint does not exist, or has an unknown schema.
        DamageError: the checkpoint is damaged.
    """
    folder = local_path(folder, what="folder")
    steps = orbax_store.steps(folder)
    if not steps or (step is not None and step not in steps):
        expected = "a checkpoint" if step is None else f"checkpoint {step}"
        raise InputError(f"{folder}: expected {expected}, got {', '.join(map(str, steps)) or 'none'}")
    step = steps[-1] if step is None else step
    meta, parts = orbax_store.read(folder, step, _templates)
    try:
        return _to_state(meta, parts)
    except (KeyError, TypeError, ValueError) as error:
        raise DamageError(folder, step, f"cannot be read ({error_summary(error)})") from error


@own_types()
def digest(state: LifelongState) -> str:
    """Computes a SHA-256 over everything that a checkpoint of the state would hold, but for its capacity."""
    return json_digest(
        {**_meta(state.replace(capacity=0)), "checksums": [orbax_store.checksums(part()) for part in _parts(state)]}
    )


def _parts(state: LifelongState) -> list[orbax_store.Part]:
    """Returns functions that build the parts on the host, where stacking compiles nothing."""

    def common() -> dict[str, Any]:
        return {key: values for key, values in state.params.items() if key != "categories"}

    def group(names: tuple[str, ...]) -> dict[str, Any]:
        subtrees = [jax.device_get(state.params["categories"][name]) for name in names]
        return {"categories": jax.tree.map(lambda *leaves: np.stack(leaves), *subtrees)}

    return [common, *[partial(group, names) for names in _groups(state.names, _group_size(state))]]


def _group_size(state: LifelongState) -> int:
    """Returns the number of categories per part."""
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
        **({} if state.max_value is None else {"max_value": state.max_value}),
        **({"capacity": state.capacity} if state.capacity else {}),
    }


def _templates(meta: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the shapes and types of the saved parts, under the keys that they were saved with."""

    def build(rng: jax.Array) -> list[dict[str, Any]]:
        state = init(Config.from_dict(meta["config"]), check_image_shape(meta["image_shape"]), rng=rng)
        subtree = dict(category_shapes(state))
        common = {key: values for key, values in state.params.items() if key != "categories"}
        if meta["schema"] <= OLD_SUMS_SCHEMA and state.config.closed_form.dictionary == "first_task":
            common["ridge"], subtree["ridge"] = old_sums.templates(state.config.closed_form, state.image_shape)

        def group(count: int) -> dict[str, Any]:
            return {"categories": jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), subtree)}

        return [common, *[group(len(names)) for names in _groups(meta["names"], meta["group_size"])]]

    parts = jax.eval_shape(build, jax.random.key(0))
    if meta["schema"] > OLD_KEYS_SCHEMA:
        return parts
    return _rename_keys(parts, {new: old for old, new in deprecated.PARAMETER_KEYS.items()})


def _rename_keys(parts: Sequence[dict[str, Any]], table: Mapping[str, str]) -> list[dict[str, Any]]:
    """Renames the keys of the common part, and those of the subtrees in each group."""

    def rename(tree: dict[str, Any]) -> dict[str, Any]:
        return {table.get(key, key): values for key, values in tree.items()}

    common, *groups = parts
    return [rename(common), *[{"categories": rename(group["categories"])} for group in groups]]


def _to_state(meta: dict[str, Any], parts: Sequence[dict[str, Any]]) -> LifelongState:
    if meta["schema"] <= OLD_KEYS_SCHEMA:
        parts = _rename_keys(parts, deprecated.PARAMETER_KEYS)
        meta = {**meta, "base_categories_left": meta["childhood_left"]}
    if meta["schema"] <= OLD_SUMS_SCHEMA:
        parts = [old_sums.remove(part) for part in parts]
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
        max_value=meta.get("max_value"),
        capacity=meta.get("capacity", 0),
    )
