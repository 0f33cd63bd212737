"""Parts shared by the launchers: flag parsing, error reporting, and common flags."""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging as python_logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging
from tqdm import tqdm

from experiments import common_flags, failures
from lifelong_cvae import deprecated
from lifelong_cvae.errors import InputError, error_summary

# Flags defined here count as flags of the launcher that calls.
flags.disclaim_key_flags()

# XLA writes, compiles and times tens of kernels for each matrix product on a GPU. Among those of cuBLAS it chooses at
# once: the programs of a run compile in 10 seconds instead of 60, and a training step takes a tenth longer.
GPU_FLAG = "--xla_gpu_enable_triton_gemm=false"

# Seconds that the main process outlives an error. The others die with it, and may have to report the same error.
LINGER = 2


def run(main: Callable[[], None]) -> None:
    """Parses flags and calls `main`. Every failure ends in one line; bad input has the exit code 2."""
    flags.DEFINE_string(
        "compilation_cache",
        None,
        "Folder that keeps compiled programs for the next command; default in the user's cache folder; none keeps "
        "nothing.",
    )
    for stream in (sys.stdout, sys.stderr):  # a console may lack the letters of a category's name
        with contextlib.suppress(OSError):
            stream.reconfigure(errors="backslashreplace")
    warnings.filterwarnings("ignore", "only soft file lock")  # we warn ourselves where that matters
    # Orbax's threads complain after an error that has been reported.
    sys.unraisablehook = lambda unraisable: failures.record(unraisable.exc_value)
    threading.excepthook = lambda ended: failures.record(ended.exc_value)
    # Half a second that a process would search its memory for garbage before it ends.
    atexit.register(gc.freeze)
    app.run(lambda _: _guard(main), flags_parser=_parse)


def _parse(arguments: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(arguments)
    except flags.Error as error:
        fail(str(error))
    except SystemExit:  # absl has printed --help and exits with 1
        sys.exit(0)
    if rest[1:]:
        fail(f"expected flags written as --name=value, got {rest[1]!r}")
    return rest


def _guard(main: Callable[[], None]) -> None:
    """Calls `main` and reports its errors in one line."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.FATAL)
        python_logging.getLogger("lifelong_cvae").setLevel(python_logging.WARNING)
        python_logging.getLogger("PIL").setLevel(python_logging.CRITICAL)  # its errors are raised as well
    log_beside_bars()
    try:
        _warn_of_old_flags()
        _shorten_gpu_compilation()
        _set_compilation_cache(common_flags.path("compilation_cache"))
        main()
    except (InputError, OSError) as error:
        fail(str(error))
    except FloatingPointError as error:
        fail(str(error), code=1)
    except MemoryError:
        fail("out of memory: use fewer or smaller images", code=1)
    except KeyboardInterrupt:
        fail("interrupted", code=128 + signal.SIGINT)
    except Exception as error:
        _check_devices()
        fail(f"unexpected {error_summary(error)}; the full text is in {failures.record(error)}", code=1)


def _check_devices() -> None:
    """Reports in one line if JAX_PLATFORMS names a device that is missing."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms and "jax" in sys.modules:
        try:
            sys.modules["jax"].devices()
        except Exception as error:  # JAX raises several kinds
            fail(f"JAX_PLATFORMS={platforms}: expected devices of this machine, got none ({error_summary(error)})")


class _BesideBars(python_logging.Handler):
    """Clears progress bars while another handler writes, and draws them again."""

    def __init__(self, handler: python_logging.Handler):
        super().__init__(handler.level)
        self.handler = handler

    def emit(self, record: python_logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=sys.stderr):
            self.handler.handle(record)


def log_beside_bars() -> None:
    """Makes log lines leave progress bars intact."""
    root = python_logging.getLogger()
    root.handlers = [_BesideBars(handler) for handler in root.handlers]


def _warn_of_old_flags() -> None:
    for old, new in deprecated.FLAGS.items():
        if old in flags.FLAGS and flags.FLAGS[old].present:
            deprecated.warn(f"--{old}", f"--{new}")


def _shorten_gpu_compilation() -> None:
    """Adds `GPU_FLAG` to XLA_FLAGS, unless they have it already."""
    given = os.environ.get("XLA_FLAGS", "")
    if GPU_FLAG.partition("=")[0] not in given:
        os.environ["XLA_FLAGS"] = f"{given} {GPU_FLAG}".strip()


def _set_compilation_cache(folder: Path | None) -> None:
    """Makes JAX keep compiled programs, unless its own variable names a folder or `folder` is "none"."""
    if folder == Path("none") or (folder is None and os.environ.get("JAX_COMPILATION_CACHE_DIR")):
        return
    import jax  # imported here so that --help does not wait for it

    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(folder or Path(caches) / "lifelong_cvae"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def fail(message: str, *, code: int = 2) -> None:
    """Writes one line to stderr and exits."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    leave(code)


def leave(code: int) -> None:
    """Exits at once after an error, without what threads of JAX or Orbax would still print.

    One of several processes does not wait for the others.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    jax = sys.modules.get("jax")  # before it is imported there are no others
    if jax is None:
        sys.exit(code)
    if jax.distributed.is_initialized() and jax.process_index() == 0:
        time.sleep(LINGER)
    os._exit(code)
