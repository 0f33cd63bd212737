"""Counts what XLA compiles, through JAX's own monitoring."""

import contextlib
from collections.abc import Iterator

import jax.monitoring

_EVENT = "/jax/core/compile/backend_compile_duration"


class CompilationCounter:
    """Number of compilations so far."""

    def __init__(self) -> None:
        self.count = 0


@contextlib.contextmanager
def count_compilations(function: str | None = None) -> Iterator[CompilationCounter]:
    """Counts compilations within the block: those of one jitted function by its name, or all."""
    counter = CompilationCounter()

    def listen(event: str, duration: float, **details: str) -> None:
        if event == _EVENT and function in (None, details.get("fun_name", "").removeprefix("jit(").rstrip(")")):
            counter.count += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield counter
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
