"""Work beside training, in a thread: training alone leaves parts of a processor idle."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax

from lifelong_cvae.model.types import own_types

T = TypeVar("T")


@contextlib.contextmanager
def run_beside(function: Callable[..., T], *arguments: Any) -> Iterator[Future[T]]:
    """Context in which a function runs in a thread, on the default device of this one.

    An error inside the context does not wait for the function; one of the function is raised by the result.
    """
    device = jax.config.jax_default_device

    def call() -> T:
        with own_types(), jax.default_device(device):
            return function(*arguments)

    executor = ThreadPoolExecutor(1)
    try:
        yield executor.submit(call)
    finally:
        executor.shutdown(wait=False)
