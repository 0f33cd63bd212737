"""scikit-learn, which only evaluation needs: an extra."""

from __future__ import annotations

import importlib
from types import ModuleType

from lifelong_cvae.errors import MissingExtraError


def scikit_learn(module: str) -> ModuleType:
    """A module of scikit-learn by its name, such as `metrics`.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise MissingExtraError("evaluation", "scikit-learn", "evaluation") from error


def require_scikit_learn() -> None:
    """Raises MissingExtraError where scikit-learn is not installed: before hours of learning, not after."""
    scikit_learn("neighbors")
