"""Flags for several processes that learn together, and the mesh of their devices."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from absl import flags

from lifelong_cvae.errors import InputError

if TYPE_CHECKING:
    from jax.sharding import Mesh

flags.disclaim_key_flags()

# Timeouts in seconds: until all processes have connected, between heartbeats, until all have shut down.
CONNECT_TIMEOUT, HEARTBEAT_TIMEOUT, SHUTDOWN_TIMEOUT = 120, 30, 60
# Words in the errors of a collective operation whose peer is gone.
LOST_PEER = re.compile(r"gloo|nccl|unavailable|coordination service|deadline_exceeded|heartbeat", re.IGNORECASE)


def define() -> None:
    """Defines the flags for processes and devices."""
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of the first of several processes that learn together, or auto where JAX detects it, as on TPU "
        "pods and with Slurm.",
    )
    flags.DEFINE_integer("num_processes", None, "Number of processes, with --coordinator=HOST:PORT.", lower_bound=1)
    flags.DEFINE_integer(
        "process_id", None, "Index of this process, from 0, with --coordinator=HOST:PORT.", lower_bound=0
    )
    flags.DEFINE_string(
        "mesh",
        None,
        "Devices as DATAxCATEGORY: DATA devices share the images of a batch, and for each of them CATEGORY devices "
        "share the categories that are recognized. Default one device; with --coordinator all devices, as Nx1.",
    )


@contextlib.contextmanager
def connect() -> Iterator[Mesh | None]:
    """Connects the processes that the flags name, and yields the mesh of their devices.

    If another process is lost, the next exchange raises and this process exits with code 1 and one line, or JAX's
    coordination service aborts this process with a message of its own after `HEARTBEAT_TIMEOUT`.

    Raises:
        InputError: flags do not fit together, or processes do not connect.
    """
    sizes, several = _mesh_sizes(), _connect()
    import jax  # imported here so that --help and flag errors do not wait for it

    from lifelong_cvae import make_mesh

    try:
        yield make_mesh(*sizes) if sizes or several else None
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, InputError) or not (several and LOST_PEER.search(str(error))):
            raise
        print("error: another process of this run was lost; restart all of them with --resume", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # a normal exit would wait for the lost process


def _mesh_sizes() -> tuple[int, ...]:
    value = flags.FLAGS.mesh
    if value is None:
        return ()
    match = re.fullmatch(r"(\d+)x(\d+)", value)
    if not match:
        raise InputError(f"--mesh: expected numbers of devices such as 4x1, got {value}")
    return tuple(map(int, match.groups()))


def _connect() -> bool:
    """Connects to the other processes; False if there are none."""
    coordinator, count, index = (flags.FLAGS[name].value for name in ("coordinator", "num_processes", "process_id"))
    for name, value in (("num_processes", count), ("process_id", index)):
        if coordinator in (None, "auto") and value is not None:
            raise InputError(f"--{name}={value}: expected --coordinator=HOST:PORT with it, got {coordinator}")
    if coordinator is None:
        return False
    if coordinator != "auto":
        if not re.fullmatch(r".+:\d+", coordinator):
            raise InputError(f"--coordinator: expected HOST:PORT or auto, got {coordinator}")
        if count is None or index is None:
            raise InputError(f"--coordinator={coordinator}: expected --num_processes and --process_id with it")
        if index >= count:
            raise InputError(f"--process_id: expected a number below --num_processes={count}, got {index}")
        if index == 0:
            _check_port(coordinator)
    _initialize(coordinator, count, index)
    return True


def _check_port(coordinator: str) -> None:
    """Raises InputError if the port is taken, which would kill JAX."""
    port = int(coordinator.rpartition(":")[2])
    try:
        socket.create_server(("", port)).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--coordinator: expected a free port, got {coordinator} ({error})") from error


def _initialize(coordinator: str, count: int | None, index: int | None) -> None:
    import jax

    # The launcher handles SIGTERM itself.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            None if coordinator == "auto" else coordinator,
            count,
            index,
            initialization_timeout=CONNECT_TIMEOUT,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
            shutdown_timeout_seconds=SHUTDOWN_TIMEOUT,
        )
    except (RuntimeError, ValueError) as error:
        if coordinator == "auto":
            reason = str(error).splitlines()[0]
            raise InputError(f"--coordinator=auto: expected processes that JAX detects, got none ({reason})") from error
        raise InputError(
            f"--coordinator={coordinator}: the processes did not connect within {CONNECT_TIMEOUT} seconds"
        ) from error
