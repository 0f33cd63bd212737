"""Generative models that learn one category of images after another and never forget."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lifelong_cvae.config import ClosedFormConfig, Config, LearningConfig, NetworkConfig, RecognitionConfig
from lifelong_cvae.errors import InputError, MissingExtraError
from lifelong_cvae.presets import preset
from lifelong_cvae.version import __version__

if TYPE_CHECKING:
    from lifelong_cvae.checkpoint import load, save
    from lifelong_cvae.closed_form import drop
    from lifelong_cvae.growth import LifelongState, init
    from lifelong_cvae.learning import Report, learn, learn_stream
    from lifelong_cvae.parallel import make_mesh
    from lifelong_cvae.playback import imagine
    from lifelong_cvae.recognition import evidence, recognise, recogniser, unknown

__all__ = [
    "ClosedFormConfig",
    "Config",
    "InputError",
    "LearningConfig",
    "LifelongState",
    "MissingExtraError",
    "NetworkConfig",
    "RecognitionConfig",
    "Report",
    "__version__",
    "drop",
    "evidence",
    "imagine",
    "init",
    "learn",
    "learn_stream",
    "load",
    "make_mesh",
    "preset",
    "recognise",
    "recogniser",
    "save",
    "unknown",
]

# Imported when first asked for: constants and errors are there at once, JAX and Orbax take seconds.
_MODULES = {
    "LifelongState": "growth",
    "Report": "learning",
    "drop": "closed_form",
    "evidence": "recognition",
    "imagine": "playback",
    "init": "growth",
    "learn": "learning",
    "learn_stream": "learning",
    "load": "checkpoint",
    "make_mesh": "parallel",
    "recognise": "recognition",
    "recogniser": "recognition",
    "save": "checkpoint",
    "unknown": "recognition",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
