"""Generative models that learn one category of images after another and never forget."""

import importlib
from typing import Any

from lifelong_cvae import deprecated

# Public names by module. Modules are imported on first use: importing JAX and Orbax takes seconds.
_PUBLIC = {
    "checkpoints": ("load", "save"),
    "config": ("ClosedFormConfig", "Config", "LearningConfig", "NetworkConfig", "RecognitionConfig"),
    "estimators.classifier": ("LifelongClassifier",),
    "errors": ("InputError", "MissingExtraError"),
    "presets": ("preset",),
    "recognition": ("evidence", "make_recognizer", "recognize", "unknown"),
    "recognition.ridge_sums": ("drop",),
    "sampling": ("decode", "encode", "imagine"),
    "sharding": ("make_mesh",),
    "state": ("LifelongState", "init"),
    "training.learn": ("Report", "learn", "learn_many", "learn_stream"),
    "version": ("__version__",),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name in deprecated.PUBLIC_NAMES:
        deprecated.warn(f"{__name__}.{name}", f"{__name__}.{deprecated.PUBLIC_NAMES[name]}")
        name = deprecated.PUBLIC_NAMES[name]
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
