"""Optional packages: what is done with them is done where they are installed, or where it is asked for."""

from __future__ import annotations

import importlib.util

from lifelong_cvae.errors import MissingExtraError


def required(wanted: bool | None, module: str, *, purpose: str, extra: str) -> bool:
    """Whether something that needs an optional package is done.

    Args:
        wanted: None: where the package is installed.
        module: name of the package.
        purpose: what needs it, for the message.
        extra: the extra that holds it.

    Raises:
        MissingExtraError: it is wanted, and the package is not installed.
    """
    if wanted is False:
        return False
    installed = importlib.util.find_spec(module) is not None
    if wanted and not installed:
        raise MissingExtraError(purpose, module, extra)
    return installed
