"""What a setting may be, and values as its type: one line of InputError for anything else."""

from __future__ import annotations

from typing import Any

from lifelong_cvae.errors import InputError


def require(condition: bool, message: str) -> None:
    """Raises InputError with the message where the condition does not hold."""
    if not condition:
        raise InputError(message)


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Of a setting that is one of a few texts."""
    require(value in choices, f"setting {name}={value!r}: one of {', '.join(choices)} is expected")


def require_positive(name: str, *values: float) -> None:
    """Of a setting that is a number above 0, or several."""
    require(all(v > 0 for v in values), f"setting {name}: values above 0 are expected, got {values}")


def require_not_negative(name: str, value: float) -> None:
    """Of a setting that is a number, 0 or more."""
    require(value >= 0, f"setting {name}={value}: at least 0 is expected")


def cast(name: str, value: Any, kind: Any) -> Any:
    """`value` as `kind` (str, int, float or tuple of int), where nothing is lost by it."""
    if kind == tuple[int, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)):
            raise InputError(f'setting {name}={value!r}: whole numbers such as "400,400" are expected')
        return tuple(cast(name, part, int) for part in parts)
    expected = {str: "a text", int: "a whole number", float: "a number"}[kind]
    try:
        found = kind(value)
        exact = isinstance(value, str) or found == value
    except (TypeError, ValueError, OverflowError):
        exact = False
    if not exact or isinstance(value, bool) or found != found or found in (float("inf"), -float("inf")):
        raise InputError(f"setting {name}={value!r}: {expected} is expected")
    return found
