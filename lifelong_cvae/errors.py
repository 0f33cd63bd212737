"""What a user can get wrong, told in one line."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input. The message is one line: what was wrong, and what would be right."""


class MissingExtraError(InputError):
    """An optional package is not installed. The message names the extra that holds it."""

    def __init__(self, purpose: str, package: str, extra: str):
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed: "
            f'install the extra "{extra}" (pip install "lifelong_cvae[{extra}]")'
        )
