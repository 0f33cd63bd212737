"""Parts shared by the launchers: flag parsing, error reporting, and common flags."""

from __future__ import annotations

import logging as python_logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from absl import app, flags, logging
from tqdm import tqdm

from lifelong_cvae import deprecated
from lifelong_cvae.config import RECOGNIZERS, SPLITS
from lifelong_cvae.errors import InputError, Stopped

if TYPE_CHECKING:
    from lifelong_cvae.data import SourceOptions

# Flags defined here count as flags of the launcher that calls.
flags.disclaim_key_flags()

# Seconds that the main process outlives an error. The others die with it, and may have to report the same error.
LINGER = 2

DATASETS = (
    "mnist5k (5,000 real MNIST digits, embedded), idx:DIR (the four IDX files), npz:FILE, "
    "images:DIR (a folder of PNG or JPEG files per category), tfds:NAME (TensorFlow Datasets)"
)


def run(main: Callable[[], None]) -> None:
    """Parses flags and calls `main`. Bad input ends in one line on stderr and exit code 2."""
    flags.DEFINE_string(
        "compilation_cache",
        None,
        "Folder that keeps compiled programs for the next command; default in the user's cache folder; none keeps "
        "nothing.",
    )
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
    log_beside_bars()
    _warn_of_old_flags()
    _set_compilation_cache(flags.FLAGS.compilation_cache)
    try:
        main()
    except (InputError, OSError) as error:
        fail(str(error))
    except FloatingPointError as error:
        fail(str(error), code=1)
    except MemoryError:
        fail("out of memory: use fewer or smaller images", code=1)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        leave(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        fail("interrupted", code=130)


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


def _set_compilation_cache(folder: str | None) -> None:
    """Makes JAX keep compiled programs, unless its own variable names a folder or `folder` is "none"."""
    if folder == "none" or (folder is None and os.environ.get("JAX_COMPILATION_CACHE_DIR")):
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
    """Exits after an error. One of several processes does not wait for the others."""
    jax = sys.modules.get("jax")  # before it is imported there are no others
    if jax is None or not jax.distributed.is_initialized():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.process_index() == 0:
        time.sleep(LINGER)
    os._exit(code)


def stop_requested() -> Callable[[], bool]:
    """Installs a handler for SIGTERM and returns a function that is true once it has arrived.

    A second SIGTERM ends the process at once.
    """
    requested = threading.Event()

    def on_sigterm(*_: object) -> None:
        requested.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, on_sigterm)
    return requested.is_set


def define_workdir() -> None:
    """Defines --workdir, for launchers that read a run."""
    flags.DEFINE_string("workdir", None, "Run directory that `learn` wrote.", required=True)


def define_seed() -> None:
    """Defines --seed."""
    flags.DEFINE_integer("seed", 0, "Seed of all randomness, below 2**32.", lower_bound=0, upper_bound=2**32 - 1)


def define_settings() -> None:
    """Defines --set, for launchers that learn."""
    flags.DEFINE_multi_string("set", [], "A single setting as key=value; repeatable. See lifelong_cvae/config.py.")


def define_recognizer(text: str) -> None:
    """Defines --recognizer with a help text, and its name of version 0.1."""
    flags.DEFINE_enum("recognizer", None, RECOGNIZERS, text)
    flags.DEFINE_alias("recogniser", "recognizer")


def define_data() -> None:
    """Defines the flags of data sources, for launchers that learn."""
    flags.DEFINE_string("dataset", "mnist5k", f"Images: {DATASETS}.")
    flags.DEFINE_integer(
        "image_size",
        None,
        "Side in pixels of the square that images of images:DIR and tfds:NAME are scaled to. Default: no scaling; all "
        "images must have the same size.",
        lower_bound=1,
    )
    flags.DEFINE_bool("grayscale", False, "Convert the images of images:DIR and tfds:NAME to gray.")
    flags.DEFINE_string(
        "tfds_data_dir", None, "Folder of prepared data sets for tfds:NAME; default that of TensorFlow Datasets."
    )
    flags.DEFINE_string(
        "tfds_manual_dir",
        None,
        "Folder with the original files of tfds:mnist, fashion_mnist, kmnist or emnist, or with a folder of that name; "
        "default: the files are downloaded.",
    )
    flags.DEFINE_float(
        "validation_fraction", 0.0, "Fraction of each training category to hold out, from its end, in [0, 1)."
    )
    flags.DEFINE_enum("evaluate_on", "test", SPLITS, "Images that metrics are computed on.")


def source_options(recorded: SourceOptions | None = None) -> SourceOptions:
    """Returns the options of a data source from the flags of `define_data`.

    Args:
        recorded: options that hold where a flag is not given; default those of `SourceOptions`.
    """
    from lifelong_cvae.data import SourceOptions

    base = SourceOptions() if recorded is None else recorded
    options = {name: flags.FLAGS[name] for name in vars(base)}
    return replace(base, **{name: flag.value for name, flag in options.items() if flag.present})


def define_evaluation() -> None:
    """Defines the flags for evaluating generation."""
    flags.DEFINE_integer("samples", 10_000, "Imagined images of all categories together.", lower_bound=2)
    flags.DEFINE_string("judges", "runs/judges", "Folder that keeps trained reference classifiers, one per data set.")


def workdir() -> Path:
    """Returns the value of --workdir."""
    return Path(flags.FLAGS.workdir)


def parse_settings(pairs: list[str]) -> dict[str, str]:
    """Parses the `key=value` pairs of --set."""
    settings = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise InputError(f"--set: expected key=value, got {pair}")
        settings[key] = value
    return settings


def parse_whole_numbers(flag: str, texts: list[str]) -> list[int]:
    """Parses the items of a list flag as whole numbers, at least 0."""
    for text in texts:
        if not text.isdecimal():
            raise InputError(f"--{flag}: expected whole numbers such as 1,2,3, got {','.join(texts)}")
    return [int(text) for text in texts]
