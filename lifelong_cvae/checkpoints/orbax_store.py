"""Numbered checkpoints on disk, written by Orbax: atomic, and verified when read.

A checkpoint is a list of parts (trees of arrays) and a JSON object beside them. Orbax holds what it writes three times
in memory, so parts are built and written one after another. It restores a flipped bit without a word, so the JSON
object holds a checksum of each array and one of itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from lifelong_cvae.errors import DamageError, InputError, error_summary
from lifelong_cvae.files import json_digest, with_digest

T = TypeVar("T")

# Version of what checkpoints hold. Every schema from 4 on is readable.
# 2: all arrays in one part. 3: several parts. 4: half of symmetric Gram matrices. 5: parameter keys of version 0.2.
# 6: exact sums of features that no category owns.
SCHEMA = 6
READABLE_SCHEMAS = (4, 5, 6)

Part = Callable[[], Any]

_logger = logging.getLogger("lifelong_cvae")


def write(folder: str | Path, step: int, parts: Sequence[Part], meta: dict[str, Any], *, keep: int | None) -> None:
    """Writes a checkpoint.

    The checkpoint is complete when this function returns. If writing fails, earlier ones are intact.

    Args:
        folder: folder of numbered checkpoints, created if missing.
        step: number of the checkpoint, above that of the newest.
        parts: functions that build dicts of arrays, the same ones at each call.
        meta: further values, ready for JSON.
        keep: number of newest checkpoints to keep; None keeps all.

    Raises:
        InputError: a checkpoint of this number or a higher one exists.
        OSError: the disk is full or not writable.
    """
    meta = with_digest({"schema": SCHEMA, **meta, "checksums": [checksums(part()) for part in parts]})
    arguments = ocp.args.Composite(params=_SaveParts(parts), meta=ocp.args.JsonSave(meta))
    newest = None
    try:
        with _manager(folder, writes=True) as manager:
            newest = manager.latest_step()
            # Orbax skips a step that is not above the newest, and says so only by its return value.
            written = (newest is None or step > newest) and manager.save(step, args=arguments)
    except Exception as error:  # Orbax raises whatever its storage raises
        intact = "nothing was written before" if newest is None else f"checkpoint {newest} is intact"
        raise OSError(f"{folder}: checkpoint {step} could not be written ({error_summary(error)}); {intact}") from error
    if not written:
        raise InputError(f"{folder}: expected a checkpoint number above {newest}, the newest there, got {step}")
    if keep is not None:
        for old in steps(folder)[:-keep]:
            delete_folder(Path(folder) / str(old))


def read_meta(folder: str | Path, step: int) -> dict[str, Any]:
    """Reads and verifies the JSON object of a checkpoint.

    Raises:
        InputError: the checkpoint has an unknown schema.
        DamageError: the checkpoint is damaged.
    """
    with _damage_as_error(folder, step), _manager(folder) as manager:
        meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        _check_meta(folder, step, meta)
        return meta


def read(
    folder: str | Path, step: int, templates: Callable[[dict[str, Any]], Sequence[Any]]
) -> tuple[dict[str, Any], list[Any]]:
    """Reads the JSON object and the parts of a checkpoint, and verifies everything in it.

    Args:
        folder: folder that `write` wrote to.
        step: number of the checkpoint.
        templates: from the JSON object to the shapes and types of each part.

    Raises:
        InputError: the checkpoint has an unknown schema.
        DamageError: the checkpoint is damaged. The message names the damage.
    """
    meta = read_meta(folder, step)
    with _damage_as_error(folder, step), _manager(folder) as manager:
        arguments = ocp.args.Composite(params=_RestoreParts(templates(meta)))
        parts = manager.restore(step, args=arguments)["params"]
    for part, expected in zip(parts, meta["checksums"], strict=True):
        for name, checksum in checksums(part).items():
            if expected.get(name) != checksum:
                raise DamageError(folder, step, f"is damaged: array {name} differs from its checksum")
    return meta, parts


@contextlib.contextmanager
def _damage_as_error(folder: str | Path, step: int) -> Iterator[None]:
    """Raises DamageError for whatever reading a damaged checkpoint raises."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # Orbax raises six kinds for damage, a bare Exception among them
        raise DamageError(folder, step, f"cannot be read ({error_summary(error)})") from error


def _check_meta(folder: str | Path, step: int, meta: Any) -> None:
    if not isinstance(meta, dict):
        raise DamageError(folder, step, "is damaged: its settings are no JSON object")
    schema, digest = meta.get("schema"), meta.pop("digest", None)
    if digest == json_digest(meta) and schema in READABLE_SCHEMAS:
        return
    # If everything but the schema number fits, the number was damaged.
    damaged_schema = any(digest == json_digest({**meta, "schema": readable}) for readable in READABLE_SCHEMAS)
    if schema in READABLE_SCHEMAS or damaged_schema:
        raise DamageError(folder, step, "is damaged: its settings differ from their checksum")
    raise InputError(
        f"{folder}: checkpoint {step} was written by another version of lifelong_cvae: "
        f"expected schema {' or '.join(map(str, READABLE_SCHEMAS))}, got {schema!r}"
    )


def steps(folder: str | Path) -> list[int]:
    """Returns the numbers of the checkpoints in a folder, ascending; none if there is no such folder."""
    if not Path(folder).is_dir():
        return []
    with _manager(folder) as manager:
        return sorted(manager.all_steps())


def read_newest(
    folder: str | Path, read: Callable[[int], T], on_damage: Callable[[DamageError], None]
) -> tuple[int, T] | None:
    """Returns number and content of the newest checkpoint that is not damaged, or None if there is none.

    Args:
        folder: folder of the checkpoints.
        read: from the number of a checkpoint to its content.
        on_damage: called with the error of each newer, damaged checkpoint.
    """
    for step in reversed(steps(folder)):
        try:
            return step, read(step)
        except DamageError as error:
            on_damage(error)
    return None


def delete_folder(folder: Path) -> None:
    """Deletes a folder. A failure is logged as a warning."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        _logger.warning("%s could not be deleted (%s)", folder, error)


def move_checkpoint(folder: str | Path, step: int, place: str | Path) -> Path:
    """Moves a checkpoint into the folder `place` under a free name, and returns its new path."""
    place = Path(place)
    place.mkdir(exist_ok=True)
    name, count = f"{Path(folder).name}_{step}", 1
    while (place / name).exists():
        count += 1
        name = f"{Path(folder).name}_{step}_{count}"
    os.rename(Path(folder) / str(step), place / name)
    return place / name


def checksums(arrays: Any) -> dict[str, str]:
    """Computes the SHA-256 of every array of a tree, by its path."""
    leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(arrays))[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): hashlib.sha256(np.ascontiguousarray(leaf)).hexdigest()
        for path, leaf in leaves
    }


def _manager(folder: str | Path, *, writes: bool = False) -> ocp.CheckpointManager:
    """Creates a manager for one process, even if there are several.

    A reader neither creates nor cleans up anything, since another process may be writing.
    """
    if writes:
        Path(folder).mkdir(parents=True, exist_ok=True)
    multiprocessing = _single_process()
    options = ocp.CheckpointManagerOptions(
        create=False,
        enable_async_checkpointing=False,
        cleanup_tmp_directories=writes,
        multiprocessing_options=multiprocessing,
    )
    handlers = {"params": _PartsHandler(), "meta": ocp.JsonCheckpointHandler(multiprocessing_options=multiprocessing)}
    return ocp.CheckpointManager(Path(folder).absolute(), options=options, item_handlers=handlers)


def _single_process() -> ocp.options.MultiprocessingOptions:
    """Makes Orbax treat this process as the only one, so that it waits for no other."""
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process_{index}"
    )


def _handler() -> ocp.StandardCheckpointHandler:
    return ocp.StandardCheckpointHandler(multiprocessing_options=_single_process())


class _PartsHandler(ocp.AsyncCheckpointHandler):
    """Writes and reads parts one after another, each in a numbered folder."""

    async def async_save(self, directory: Any, args: _SaveParts) -> None:
        for number, part in enumerate(args.parts):
            place = directory / str(number)
            place.mkdir()
            with contextlib.closing(_handler()) as handler:
                arguments = ocp.args.StandardSave(jax.device_get(part()))
                for future in await handler.async_save(place, args=arguments) or []:
                    future.result()

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
