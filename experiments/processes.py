"""Several processes that learn together: the flags that tell of them, and what one of them says in the end.

When a process is lost, the others learn of it in one of two ways. The next exchange raises; or the service of
JAX that watches over all of them ends them by `abort`, after a page of its own. Either way the user is to see
one line. So what is not written by Python is held back, and shown where a process is aborted for another
reason.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from absl import flags, logging

from lifelong_cvae.errors import InputError

if TYPE_CHECKING:
    from jax.sharding import Mesh

flags.disclaim_key_flags()

LOST = "another process of this run was lost; start all of them again with --resume"
# Seconds: for all to come, for a sign of life from each, for all to end.
TO_COME, TO_LIVE, TO_END = 120, 30, 60
# How errors of an exchange call what they could not reach; what the service says before it ends a process.
EXCHANGES = re.compile(r"gloo|nccl|unavailable|coordination service|deadline_exceeded|heartbeat", re.IGNORECASE)
ABORTS = b"JAX distributed service detected fatal errors"


def define() -> None:
    """The processes of a run and their devices, for the launchers that learn."""
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of the first of several processes that learn together; auto: where JAX finds "
        "it by itself, as on TPU pods and with Slurm.",
    )
    flags.DEFINE_integer(
        "num_processes", None, "How many processes there are, with --coordinator=HOST:PORT.", lower_bound=1
    )
    flags.DEFINE_integer(
        "process_id", None, "Which of them this one is, from 0, with --coordinator=HOST:PORT.", lower_bound=0
    )
    flags.DEFINE_string(
        "mesh",
        None,
        "Devices as DATAxCATEGORY: so many share the images of a batch, and for each of them so many the "
        "categories that are recognized; default one device, and with --coordinator all of them, as Nx1.",
    )


@contextlib.contextmanager
def joined() -> Iterator[Mesh | None]:
    """Joins the processes that the flags name; gives the mesh of all devices, None for a single one.

    Raises:
        InputError: flags that do not fit together, processes that do not come, or a mesh that cannot be.
    """
    sizes, several = _mesh_sizes(), _join()
    import jax  # here, as in launchers: --help and wrong flags do not wait for it

    from lifelong_cvae import make_mesh

    try:
        yield make_mesh(*sizes) if sizes or several else None
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, InputError) or not (several and EXCHANGES.search(str(error))):
            raise
        _end(LOST, code=1)


def _mesh_sizes() -> tuple[int, ...]:
    given = flags.FLAGS.mesh
    if given is None:
        return ()
    found = re.fullmatch(r"(\d+)x(\d+)", given)
    if not found:
        raise InputError(f"--mesh={given}: numbers of devices such as 4x1 are expected")
    return tuple(map(int, found.groups()))


def _join() -> bool:
    """Whether there are several processes; they have met then."""
    coordinator, count, own = (flags.FLAGS[name].value for name in ("coordinator", "num_processes", "process_id"))
    for name, value in (("num_processes", count), ("process_id", own)):
        if coordinator in (None, "auto") and value is not None:
            raise InputError(f"--{name}={value}: it is expected with --coordinator=HOST:PORT only")
    if coordinator is None:
        return False
    if coordinator != "auto":
        if not re.fullmatch(r".+:\d+", coordinator):
            raise InputError(f"--coordinator={coordinator}: HOST:PORT, or auto, is expected")
        if count is None or own is None:
            raise InputError(f"--coordinator={coordinator}: --num_processes and --process_id are expected with it")
        if own >= count:
            raise InputError(f"--process_id={own}: a number below --num_processes={count} is expected")
        if own == 0:
            _check_port(coordinator)
    _meet(coordinator, count, own)
    return True


def _check_port(coordinator: str) -> None:
    """Raises InputError where JAX would die of a port that is taken."""
    port = int(coordinator.rpartition(":")[2])
    try:
        socket.create_server(("", port)).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--coordinator={coordinator}: a port that is free here is expected ({error})") from error


def _meet(coordinator: str, count: int | None, own: int | None) -> None:
    import jax

    missing = f"--coordinator={coordinator}: the processes of the run did not meet within {TO_COME} seconds"
    held = _hold_back()
    _when_aborted(held, missing, code=2)
    # SIGTERM is ours.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            None if coordinator == "auto" else coordinator,
            count,
            own,
            initialization_timeout=TO_COME,
            heartbeat_timeout_seconds=TO_LIVE,
            shutdown_timeout_seconds=TO_END,
        )
    except (RuntimeError, ValueError) as error:
        none = f"--coordinator=auto: JAX finds no processes here ({str(error).splitlines()[0]})"
        _end(none if coordinator == "auto" else missing, code=2)
    _when_aborted(held, LOST, code=1)


def _hold_back() -> BinaryIO:
    """Keeps from the screen what is not written by Python: it goes to a file, which is returned."""
    held = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        stream.flush()
        own = open(os.dup(number), "w", buffering=1, encoding=stream.encoding, errors=stream.errors)  # noqa: SIM115
        setattr(sys, name, own)
        os.dup2(held.fileno(), number)
    logging.get_absl_handler().python_handler.setStream(sys.stderr)
    return held


def _when_aborted(held: BinaryIO, message: str, *, code: int) -> None:
    """From now on `abort` says one line where the service of JAX calls it, else what has been held back."""

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def aborted(_: int) -> None:
        said = os.pread(held.fileno(), os.fstat(held.fileno()).st_size, 0)
        if ABORTS in said:
            _end(message, code=code)
        os.write(sys.stderr.fileno(), said)

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(aborted))  # it may be called until the very end
    ctypes.CDLL(None).signal(signal.SIGABRT, aborted)


def _end(message: str, *, code: int) -> NoReturn:
    """Says a line and ends the process at once: what JAX does at an exit would wait for the others."""
    print(f"error: {message}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
