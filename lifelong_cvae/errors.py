"""What a user can get wrong, and what can happen to a run, told in one line."""

from __future__ import annotations

from pathlib import Path


class InputError(ValueError):
    """Bad input. The message is one line: what was wrong, and what would be right."""


class MissingExtraError(InputError):
    """An optional package is not installed. The message names the extra that holds it."""

    def __init__(self, purpose: str, package: str, extra: str):
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed: "
            f'install the extra "{extra}" (pip install "lifelong_cvae[{extra}]")'
        )


class DamageError(InputError):
    """A checkpoint is not what was written. The message names it and says what is damaged.

    Attributes:
        step: its number.
    """

    def __init__(self, folder: str | Path, step: int, damage: str):
        super().__init__(f"{folder}: checkpoint {step} {damage}")
        self.step = step


class Stopped(Exception):  # noqa: N818 (nothing is wrong)
    """A run was asked to stop, and has saved what it did. The message is one line."""
