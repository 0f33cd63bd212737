"""Names of version 0.1 that 0.2 still accepts, and the tables from old to new.

Each accepted name logs one line per process. The same tables translate checkpoints and run directories that 0.1
wrote, without a log line.
"""

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

# Public names of the package.
PUBLIC_NAMES = {"recognise": "recognize", "recogniser": "make_recognizer"}
# Settings, and values of settings.
SETTINGS = {
    "growth": "conditioning",
    "rank": "output_rank",
    "scale": "noise_scale",
    "factors": "noise_rank",
    "drawing": "sample_style",
    "childhood": "base_categories",
    "chunk_steps": "steps_per_call",
    "recognise_weight": "recognize_weight",
    "refresh_chunks": "replay_refresh_calls",
    "compute": "compute_dtype",
    "filters": "num_filters",
    "cells": "pool_grid",
    "gram": "gram_sharing",
    "recogniser": "recognizer",
    "block_images": "eval_batch_size",
}
VALUES = {("conditioning", "vectors"): "one_hot"}
# Keys of the parameter dict, at any depth.
PARAMETER_KEYS = {"factors": "low_rank_noise", "spread": "rms_uncertainty", "closed_form": "ridge"}
# Keys of result files. The old ones are written beside the new ones.
RESULT_KEYS = {"recognizer": "recogniser", "recognize": "recognise"}
# Flags of launchers.
FLAGS = {"recogniser": "recognizer"}

T = TypeVar("T", bound=type)
F = TypeVar("F", bound=Callable[..., Any])

_logger = logging.getLogger("lifelong_cvae")


@functools.cache
def warn(old: str, new: str) -> None:
    """Logs, once per process, that `old` is now called `new`."""
    _logger.warning("%s is deprecated and will be removed in version 0.3: use %s", old, new)


def add_new_settings(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Completes settings of a section that an earlier version wrote, with values that change nothing."""
    new = {
        "network": {"pixel_widths": (), "sample_temperature": 1.0},
        "learning": {"pixel_positions": 16, "full_rate_steps": 1, "adam_b2": 0.999},
        "closed_form": {"second_filters": 0},
    }
    return {**new.get(section, {}), **settings}


def rename_settings(settings: Mapping[str, Any], *, log: bool) -> dict[str, Any]:
    """Returns settings of one section, or of several, under the names and values of this version.

    Args:
        settings: setting name to value. An old name wins over the new one beside it.
        log: whether to log the old names.
    """
    renamed = {key: value for key, value in settings.items() if key not in SETTINGS}
    for old in settings.keys() & SETTINGS.keys():
        if log:
            warn(f"setting {old}", SETTINGS[old])
        renamed[SETTINGS[old]] = settings[old]
    for (key, old), new in VALUES.items():
        if renamed.get(key) == old:
            if log:
                warn(f"{key}={old}", f"{key}={new}")
            renamed[key] = new
    return renamed


def accept_old_settings(cls: T) -> T:
    """Class decorator: a dataclass of settings takes old names as arguments and as attributes."""
    init = cls.__init__

    @functools.wraps(init)
    def renaming_init(self: Any, *args: Any, **settings: Any) -> None:
        init(self, *args, **rename_settings(settings, log=True))

    def old_attribute(self: Any, name: str) -> Any:
        new = SETTINGS.get(name)
        if new not in cls.__dataclass_fields__:
            raise AttributeError(f"{cls.__name__!r} object has no attribute {name!r}")
        warn(f"setting {name}", new)
        return getattr(self, new)

    cls.__init__, cls.__getattr__ = renaming_init, old_attribute
    return cls


def renamed_arguments(**names: str) -> Callable[[F], F]:
    """Function decorator: keyword arguments may have their old names, the keys of `names`."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for old in kwargs.keys() & names.keys():
                warn(f"{function.__name__}({old}=)", f"{function.__name__}({names[old]}=)")
                kwargs[names[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate


def with_old_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a result file with old keys beside new ones.

    Of the objects within, only `terms` and `recognition` have such keys: others have categories for keys.
    """
    both: dict[str, Any] = {}
    for key, value in values.items():
        both[key] = with_old_keys(value) if key in ("terms", "recognition") else value
        if key in RESULT_KEYS:
            both[RESULT_KEYS[key]] = both[key]
    return both
