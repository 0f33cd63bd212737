"""Counts what XLA compiles, through JAX's own monitoring."""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

import jax.monitoring

_EVENT = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def count_compilations(function: str | None = None) -> Iterator[SimpleNamespace]:
    """Counts compilations within the block as `count`: those of one jitted function by its name, or all."""
    counter = SimpleNamespace(count=0)

    def listen(event: str, duration: float, **details: str) -> None:
        if event == _EVENT and function in (None, details.get("fun_name", "").removeprefix("jit(").rstrip(")")):
            counter.count += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield counter
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
