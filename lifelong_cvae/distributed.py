"""Several processes that run the same program: what the main one decides, all of them know."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from lifelong_cvae.errors import InputError

T = TypeVar("T")


def is_main_process() -> bool:
    """Whether this is the first process, the one that writes files and speaks."""
    return jax.process_index() == 0


def broadcast_from_main(values: T) -> T:
    """What the first process holds here, in all of them: values ready for JSON."""
    if jax.process_count() == 1:
        return values
    text = np.frombuffer(json.dumps(values).encode(), np.uint8) if is_main_process() else np.zeros(0, np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    buffer = text if is_main_process() else np.zeros(length, np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes())


def run_on_main(function: Callable[[], T]) -> T | None:
    """What a function gives in the first process, which alone calls it; the others wait, and get None.

    Raises:
        InputError: the function did, in the first process; then in all of them.
    """
    if jax.process_count() == 1:
        return function()
    result = failed = None
    if is_main_process():
        try:
            result = function()
        except InputError as error:
            failed = error
    message = broadcast_from_main(failed and str(failed))
    if message is not None:
        raise failed or InputError(message)
    return result


def any_process(asked: Callable[[], bool]) -> Callable[[], bool]:
    """Whether something is asked of any process: all of them get the same answer, and have to ask."""
    if jax.process_count() == 1:
        return asked
    return lambda: bool(multihost_utils.process_allgather(np.asarray(asked())).any())
