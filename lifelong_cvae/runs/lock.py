"""A lock on a run directory, so that one process writes into it."""

import contextlib
import errno
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

from lifelong_cvae.errors import InputError

LOCK = ".lock"
# Errors of systems and disks without file locks.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)

_logger = logging.getLogger("lifelong_cvae")


@contextlib.contextmanager
def lock_workdir(workdir: Path) -> Iterator[None]:
    """Locks an existing directory for one process. The lock ends with the process, however it dies.

    Where the system or the disk has no such locks, a warning is logged instead.

    Raises:
        InputError: another process holds the lock.
    """
    with warnings.catch_warnings():  # it warns itself where there are no locks
        warnings.simplefilter("ignore")
        import filelock
    lock = filelock.FileLock(workdir / LOCK, timeout=0, mode=0o666)
    with contextlib.ExitStack() as stack:
        try:
            if isinstance(lock, filelock.SoftFileLock):  # would outlive a killed process
                raise OSError(errno.ENOSYS, "no file locks on this system")
            stack.enter_context(lock)
        except filelock.Timeout as error:
            raise InputError(f"{workdir}: another process is writing there, wait for its end") from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            _logger.warning("%s: no file locks here: do not let two processes write there at once", workdir)
        yield
