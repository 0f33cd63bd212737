"""Numbered checkpoints on disk, by Orbax: written as a whole or not at all, verified when they are read.

A checkpoint is trees of arrays, its parts, and a JSON object beside them. Orbax holds what it writes three
times over in memory, so that parts are built and written one after another. It restores a flipped bit without
a word, so that the object holds a checksum for each array and one for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from lifelong_cvae.errors import DamageError, InputError

T = TypeVar("T")

# 1: before it was said which version of the arrays a checkpoint holds. 2: all arrays in one part. 3: Gram
# matrices with the half that symmetry tells.
SCHEMA = 4

Part = Callable[[], Any]


def write(folder: str | Path, step: int, parts: Sequence[Part], meta: dict[str, Any], *, keep: int | None) -> None:
    """Writes a checkpoint; it is complete when this returns, and earlier ones are intact if it fails.

    Args:
        folder: of numbered checkpoints, made where it is missing.
        step: number of this one, above that of the newest.
        parts: functions that build trees of dicts of arrays, each time the same.
        meta: what else is to be kept, ready for JSON.
        keep: how many of the newest are kept; None: all.

    Raises:
        InputError: there is a checkpoint of this number, or of a higher one.
        OSError: the disk is full, or not to be written to.
    """
    meta = {"schema": SCHEMA, **meta, "checksums": [checksums(part()) for part in parts]}
    meta["digest"] = _digest(meta)
    arguments = ocp.args.Composite(params=_SaveParts(parts), meta=ocp.args.JsonSave(meta))
    newest = None
    try:
        with _manager(folder, keep=keep, writes=True) as manager:
            newest = manager.latest_step()
            # Orbax passes over a number that is not above the newest, in silence but for what it returns.
            written = (newest is None or step > newest) and manager.save(step, args=arguments)
    except Exception as error:  # whatever stands behind it: Orbax raises what its storage raises
        intact = "nothing was written before" if newest is None else f"checkpoint {newest} is intact"
        raise OSError(f"{folder}: checkpoint {step} could not be written ({error_summary(error)}); {intact}") from error
    if not written:
        raise InputError(f"{folder}: checkpoint {step} was not written, {newest} is there: a higher number is expected")


def read(
    folder: str | Path, step: int, templates: Callable[[dict[str, Any]], Sequence[Any]]
) -> tuple[dict[str, Any], list[Any]]:
    """Reads a checkpoint, and verifies all that was written.

    Args:
        folder: what `write` wrote to.
        step: number of the checkpoint.
        templates: from the JSON object to shapes and types of the arrays of each part.

    Returns:
        The JSON object and the parts.

    Raises:
        InputError: it is of another version.
        DamageError: it is not what was written; says what is damaged.
    """
    try:
        with _manager(folder) as manager:
            meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
            _check_meta(folder, step, meta)
            arguments = ocp.args.Composite(params=_RestoreParts(templates(meta)))
            parts = manager.restore(step, args=arguments)["params"]
    except InputError:
        raise
    except Exception as error:  # Orbax raises six kinds for damage, a bare Exception among them
        raise DamageError(folder, step, f"cannot be read ({error_summary(error)})") from error
    for part, expected in zip(parts, meta["checksums"], strict=True):
        for name, checksum in checksums(part).items():
            if expected.get(name) != checksum:
                raise DamageError(folder, step, f"is damaged: array {name} differs from its checksum")
    return meta, parts


def _check_meta(folder: str | Path, step: int, meta: Any) -> None:
    if not isinstance(meta, dict):
        raise DamageError(folder, step, "is damaged: its settings are no JSON object")
    schema, digest = meta.get("schema"), meta.pop("digest", None)
    # Where all but the number fits, the number was damaged.
    if schema != SCHEMA and digest != _digest({**meta, "schema": SCHEMA}):
        raise InputError(
            f"{folder}: checkpoint {step} has schema {schema}, of another version of lifelong_cvae: "
            f"schema {SCHEMA} is expected"
        )
    if digest != _digest(meta):
        raise DamageError(folder, step, "is damaged: its settings differ from their checksum")


def steps(folder: str | Path) -> list[int]:
    """Numbers of the checkpoints in a folder, ascending; empty where there is no such folder."""
    if not Path(folder).is_dir():
        return []
    with _manager(folder) as manager:
        return sorted(manager.all_steps())


def read_newest(
    folder: str | Path, read: Callable[[int], T], damaged: Callable[[DamageError], None]
) -> tuple[int, T] | None:
    """Number and content of the newest checkpoint that is not damaged; None where there is none.

    Args:
        folder: of the checkpoints.
        read: from the number of one to its content.
        damaged: told of each newer one that is damaged.
    """
    for step in reversed(steps(folder)):
        try:
            return step, read(step)
        except DamageError as error:
            damaged(error)
    return None


def move_checkpoint(folder: str | Path, step: int, place: str | Path) -> Path:
    """Moves a checkpoint out of the way, into the folder `place`, under a free name; returns where it is."""
    place = Path(place)
    place.mkdir(exist_ok=True)
    name, count = f"{Path(folder).name}_{step}", 1
    while (place / name).exists():
        count += 1
        name = f"{Path(folder).name}_{step}_{count}"
    os.rename(Path(folder) / str(step), place / name)
    return place / name


def error_summary(error: Exception) -> str:
    """Kind and first line of an error's message."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def checksums(arrays: Any) -> dict[str, str]:
    """SHA-256 of every array of a tree, under its place in it."""
    leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(arrays))[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): hashlib.sha256(np.ascontiguousarray(leaf)).hexdigest()
        for path, leaf in leaves
    }


def _digest(meta: dict[str, Any]) -> str:
    """Checksum of the JSON beside the arrays."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _manager(folder: str | Path, *, keep: int | None = None, writes: bool = False) -> ocp.CheckpointManager:
    """A reader creates and cleans up nothing: another process may just be writing.

    Every process reads and writes by itself, whether or not there are others.
    """
    if writes:
        Path(folder).mkdir(parents=True, exist_ok=True)
    alone = _single_process()
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=False,
        enable_async_checkpointing=False,
        cleanup_tmp_directories=writes,
        multiprocessing_options=alone,
    )
    handlers = {"params": _PartsHandler(), "meta": ocp.JsonCheckpointHandler(multiprocessing_options=alone)}
    return ocp.CheckpointManager(Path(folder).absolute(), options=options, item_handlers=handlers)


def _single_process() -> ocp.options.MultiprocessingOptions:
    """Has Orbax wait for no other process."""
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
    )


def _handler() -> ocp.StandardCheckpointHandler:
    return ocp.StandardCheckpointHandler(multiprocessing_options=_single_process())


class _PartsHandler(ocp.AsyncCheckpointHandler):
    """Writes and reads parts one after another, each in a folder of its number."""

    async def async_save(self, directory: Any, args: _SaveParts) -> None:
        for number, part in enumerate(args.parts):
            place = directory / str(number)
            place.mkdir()
            with contextlib.closing(_handler()) as handler:
                arguments = ocp.args.StandardSave(jax.device_get(part()))
                for written in await handler.async_save(place, args=arguments) or []:
                    written.result()

    def save(self, directory: Any, args: _SaveParts) -> None:
        asyncio.run(self.async_save(directory, args))

    def finalize(self, directory: Any) -> None:
        for place in directory.iterdir():
            with contextlib.closing(_handler()) as handler:
                handler.finalize(place)

    def restore(self, directory: Any, args: _RestoreParts) -> list[Any]:
        with contextlib.closing(_handler()) as handler:
            return [
                handler.restore(directory / str(number), args=ocp.args.StandardRestore(template))
                for number, template in enumerate(args.templates)
            ]


@ocp.args.register_with_handler(_PartsHandler, for_save=True)
@dataclasses.dataclass
class _SaveParts(ocp.args.CheckpointArgs):
    parts: Sequence[Part]


@ocp.args.register_with_handler(_PartsHandler, for_restore=True)
@dataclasses.dataclass
class _RestoreParts(ocp.args.CheckpointArgs):
    templates: Sequence[Any]
