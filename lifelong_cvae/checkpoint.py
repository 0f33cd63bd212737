"""Checkpoints by Orbax: categories stacked in a few arrays, settings and checksums in JSON beside them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from lifelong_cvae.config import Config
from lifelong_cvae.errors import InputError
from lifelong_cvae.growth import LifelongState, fresh_category, init
from lifelong_cvae.images import check_image_shape
from lifelong_cvae.stacking import stack_subtrees, unstack_subtrees

SCHEMA = 1


def save(
    state: LifelongState, folder: str | Path, *, step: int | None = None, keep: int | None = None
) -> None:
    """Writes a checkpoint; it is complete when this returns.

    Args:
        state: what has been learned.
        folder: a folder of numbered checkpoints, made where it is missing.
        step: number of this checkpoint; default one more than the newest.
        keep: how many of the newest are kept; default all.

    Raises:
        InputError: there is a checkpoint of this number, or of a higher one.
    """
    stacked = stack_subtrees(state, state.names, left_out=()) if state.names else {}
    params = jax.device_get({**state.params, "categories": stacked})
    meta = {
        "schema": SCHEMA,
        "names": list(state.names),
        "visits": list(state.visits),
        "childhood_left": state.childhood_left,
        "image_shape": list(state.image_shape),
        "config": state.config.to_dict(),
        "checksums": _checksums(params),
    }
    if (keep is not None and keep < 1) or (step is not None and (step < 0 or int(step) != step)):
        raise InputError(f"keep={keep}, step={step}: whole numbers of at least 1 and 0 are expected")
    if Path(folder).exists() and not Path(folder).is_dir():
        raise InputError(f"{folder}: a folder is expected")
    meta["digest"] = _digest(meta)
    with _manager(folder, keep=keep, writes=True) as manager:
        newest = manager.latest_step()
        step = (0 if newest is None else newest + 1) if step is None else step
        arguments = ocp.args.Composite(params=ocp.args.StandardSave(params), meta=ocp.args.JsonSave(meta))
        # Orbax passes over a number that is not above the newest, in silence but for what it returns.
        if (newest is not None and step <= newest) or not manager.save(step, args=arguments):
            raise InputError(
                f"{folder}: checkpoint {step} was not written, {newest} is there: a higher number is expected"
            )


def load(folder: str | Path, *, step: int | None = None) -> LifelongState:
    """Reads a checkpoint, and verifies every array's checksum.

    Args:
        folder: what `save` wrote to.
        step: number of the checkpoint; default the newest.

    Raises:
        InputError: there is none, it is of another version, or it is damaged.
    """
    steps = checkpoint_steps(folder)
    if not steps or (step is not None and step not in steps):
        raise InputError(f"{folder}: no checkpoint{'' if step is None else f' {step}'} there")
    step = steps[-1] if step is None else step
    try:
        with _manager(folder) as manager:
            meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
            if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
                raise InputError(f"{folder}: checkpoint {step} has another schema, {SCHEMA} is expected")
            if meta.pop("digest", None) != _digest(meta):
                raise InputError(
                    f"{folder}: checkpoint {step} is damaged: its settings differ from their checksum"
                )
            config = Config.from_dict(meta["config"])
            template = _template(config, check_image_shape(meta["image_shape"]), len(meta["names"]))
            arguments = ocp.args.Composite(params=ocp.args.StandardRestore(template))
            params = manager.restore(step, args=arguments)["params"]
    except InputError:
        raise
    except Exception as error:  # Orbax raises six kinds for damage, a bare Exception among them
        reason = (str(error).splitlines() or [""])[0][:200]
        raise InputError(
            f"{folder}: checkpoint {step} cannot be read ({type(error).__name__}: {reason})"
        ) from error
    for name, checksum in _checksums(params).items():
        if meta["checksums"].get(name) != checksum:
            raise InputError(
                f"{folder}: checkpoint {step} is damaged: array {name} differs from its checksum"
            )
    return _state(meta, config, params)


def checkpoint_steps(folder: str | Path) -> list[int]:
    """Numbers of the checkpoints in a folder, ascending; empty where there is no such folder."""
    if not Path(folder).is_dir():
        return []
    with _manager(folder) as manager:
        return sorted(manager.all_steps())


def _manager(folder: str | Path, *, keep: int | None = None, writes: bool = False) -> ocp.CheckpointManager:
    """A reader creates and cleans up nothing: another process may just be writing."""
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=writes, enable_async_checkpointing=False, cleanup_tmp_directories=writes
    )
    return ocp.CheckpointManager(Path(folder).absolute(), options=options, item_names=("params", "meta"))


def _template(config: Config, image_shape: tuple[int, int, int], count: int) -> dict[str, Any]:
    """Shapes and types of what was saved."""

    def build(rng: jax.Array) -> dict[str, Any]:
        state = init(config, image_shape, rng=rng)
        stacked = jax.tree.map(
            lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), fresh_category(state)
        )
        return {**state.params, "categories": stacked if count else {}}

    return jax.eval_shape(build, jax.random.key(0))


def _state(meta: dict[str, Any], config: Config, params: dict[str, Any]) -> LifelongState:
    categories = unstack_subtrees(params["categories"], meta["names"])
    return LifelongState(
        params={**jax.tree.map(jnp.asarray, params), "categories": categories},
        names=tuple(meta["names"]),
        visits=tuple(meta["visits"]),
        childhood_left=meta["childhood_left"],
        image_shape=check_image_shape(meta["image_shape"]),
        config=config,
    )


def _digest(meta: dict[str, Any]) -> str:
    """Checksum of the JSON beside the arrays."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _checksums(params: dict[str, Any]) -> dict[str, str]:
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): hashlib.sha256(
            np.ascontiguousarray(leaf)
        ).hexdigest()
        for path, leaf in leaves
    }
