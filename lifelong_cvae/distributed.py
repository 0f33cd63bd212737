"""Several processes (`jax.distributed`) that run the same program: decisions of the main process reach all of them."""

import json
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from lifelong_cvae.errors import InputError

T = TypeVar("T")


def is_main_process() -> bool:
    """True on the main process, which writes files and logs."""
    return jax.process_index() == 0


def broadcast_from_main(values: T) -> T:
    """Returns the main process's values, ready for JSON, on all processes. Every process must call it."""
    if jax.process_count() == 1:
        return values
    text = np.frombuffer(json.dumps(values).encode(), np.uint8) if is_main_process() else np.zeros(0, np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    buffer = text if is_main_process() else np.zeros(length, np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes())


def run_on_main(function: Callable[[], T]) -> T | None:
    """Calls a function on the main process; the others wait and return None. Every process must call it.

    Raises:
        InputError: the function raised it. It is raised on all processes.
    """
    if jax.process_count() == 1:
        return function()
    result = failure = None
    if is_main_process():
        try:
            result = function()
        except InputError as error:
            failure = error
    message = broadcast_from_main(failure and str(failure))
    if message is not None:
        raise failure or InputError(message)
    return result


def any_process(predicate: Callable[[], bool]) -> Callable[[], bool]:
    """Returns a predicate that is true on all processes if `predicate` is true on any.

    The returned predicate is collective: every process must call it.
    """
    if jax.process_count() == 1:
        return predicate
    return lambda: bool(multihost_utils.process_allgather(np.asarray(predicate())).any())
