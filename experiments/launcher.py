"""What the launchers share: how flags are read, how errors are told, the flags that all of them have."""

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

from lifelong_cvae.config import SPLITS
from lifelong_cvae.errors import InputError, Stopped

if TYPE_CHECKING:
    from lifelong_cvae.data import SourceOptions

# Flags that are defined in here belong to the launcher that calls.
flags.disclaim_key_flags()

# Seconds that the first of several processes outlives an error.
LINGER = 2

DATASETS = (
    "mnist5k (5,000 real MNIST digits, embedded), idx:DIR (the four IDX files), npz:FILE, "
    "images:DIR (a folder of PNG or JPEG files per category), tfds:NAME (TensorFlow Datasets)"
)


def run(main: Callable[[], None]) -> None:
    """Parses flags and calls `main`; bad input ends in one line on stderr and exit 2."""
    flags.DEFINE_string(
        "compilation_cache",
        None,
        "Folder that keeps compiled programs for the next command; default in the user's cache folder; "
        "none: nothing is kept.",
    )

    def parse(arguments: list[str]) -> list[str]:
        try:
            rest = flags.FLAGS(arguments)
        except flags.Error as error:
            fail(str(error))
        except SystemExit:  # --help has been printed, for which absl exits with 1
            sys.exit(0)
        if rest[1:]:
            fail(f"unexpected argument {rest[1]!r}: flags are written --name=value")
        return rest

    def guarded(_: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:  # what goes wrong is told in one line, by us
            logging.set_verbosity(logging.FATAL)
        log_beside_bars()
        _keep_compiled(flags.FLAGS.compilation_cache)
        try:
            main()
        except (InputError, OSError) as error:
            fail(str(error))
        except FloatingPointError as error:
            fail(str(error), code=1)
        except MemoryError:
            fail("there is not enough memory for this; fewer or smaller images are expected", code=1)
        except Stopped as stopped:
            print(stopped, file=sys.stderr)
            leave(128 + signal.SIGTERM)
        except KeyboardInterrupt:
            fail("interrupted", code=130)

    app.run(guarded, flags_parser=parse)


class _BesideBars(python_logging.Handler):
    """Clears the bars on the screen while another handler writes, and draws them again."""

    def __init__(self, handler: python_logging.Handler):
        super().__init__(handler.level)
        self.handler = handler

    def emit(self, record: python_logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=sys.stderr):
            self.handler.handle(record)


def log_beside_bars() -> None:
    """From now on log lines tear no bar."""
    root = python_logging.getLogger()
    root.handlers = [_BesideBars(handler) for handler in root.handlers]


def _keep_compiled(folder: str | None) -> None:
    """Has JAX keep what it compiles, unless its own variable says where or the folder is called none."""
    if folder == "none" or (folder is None and os.environ.get("JAX_COMPILATION_CACHE_DIR")):
        return
    import jax  # here, as in launchers: --help does not wait for it

    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(folder or Path(caches) / "lifelong_cvae"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def fail(message: str, *, code: int = 2) -> None:
    """Writes one line to stderr and exits."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    leave(code)


def leave(code: int) -> None:
    """Exits after something went wrong: one of several processes without waiting for the others."""
    jax = sys.modules.get("jax")  # until it is imported there are no others
    if jax is None or not jax.distributed.is_initialized():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.process_index() == 0:  # the others would be ended with it, and may have to say the same
        time.sleep(LINGER)
    os._exit(code)


def asked_to_stop() -> Callable[[], bool]:
    """From now on SIGTERM stops nothing at once: the answer says whether it has come. A second one does."""
    asked = threading.Event()

    def take_note(*_: object) -> None:
        asked.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, take_note)
    return asked.is_set


def define_workdir() -> None:
    """The folder of a run, for the launchers that read one."""
    flags.DEFINE_string("workdir", None, "Folder of a run that `learn` wrote.", required=True)


def define_seed() -> None:
    """The seed, for the launchers that draw samples."""
    flags.DEFINE_integer("seed", 0, "Seed of all randomness, below 2**32.", lower_bound=0, upper_bound=2**32 - 1)


def define_settings() -> None:
    """Single settings, for the launchers that learn."""
    flags.DEFINE_multi_string("set", [], "A single setting as key=value; may be repeated. See lifelong_cvae/config.py.")


def define_data() -> None:
    """What is learned from and measured on, for the launchers that learn."""
    flags.DEFINE_string("dataset", "mnist5k", f"Images: {DATASETS}.")
    flags.DEFINE_integer(
        "image_size",
        None,
        "Pixels of the side of a square that images of images:DIR and tfds:NAME are scaled to; default: they "
        "stay as they are, and must have one size.",
        lower_bound=1,
    )
    flags.DEFINE_bool("grayscale", False, "Take the images of images:DIR and tfds:NAME as gray ones.")
    flags.DEFINE_string(
        "tfds_data_dir",
        None,
        "Folder of prepared data sets for tfds:NAME; default that of TensorFlow Datasets.",
    )
    flags.DEFINE_string(
        "tfds_manual_dir",
        None,
        "Folder of the original files that tfds:mnist, fashion_mnist, kmnist or emnist is prepared from, "
        "there or in a folder of that name; default: they are downloaded.",
    )
    flags.DEFINE_float(
        "validation_fraction", 0.0, "Part of each training category to hold out, from its end, in [0, 1)."
    )
    flags.DEFINE_enum("evaluate_on", "test", SPLITS, "Images that figures are measured on.")


def options(recorded: SourceOptions | None = None) -> SourceOptions:
    """How a source is opened, by the flags of `define_data`; those not given are as recorded, if they are."""
    from lifelong_cvae.data import SourceOptions

    before = SourceOptions() if recorded is None else recorded
    given = {name: flags.FLAGS[name] for name in vars(before)}
    return replace(before, **{name: flag.value for name, flag in given.items() if flag.present})


def define_judging() -> None:
    """How imagined images are judged, for the launchers that measure generation."""
    flags.DEFINE_integer("samples", 10_000, "Imagined images of all categories together.", lower_bound=2)
    flags.DEFINE_string("judges", "runs/judges", "Folder that keeps trained reference classifiers, one per data set.")


def workdir() -> Path:
    """The value of --workdir."""
    return Path(flags.FLAGS.workdir)


def settings_of(pairs: list[str]) -> dict[str, str]:
    """`key=value` pairs of --set as a dict."""
    settings = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise InputError(f"--set={pair}: key=value is expected")
        settings[key] = value
    return settings


def whole_numbers(flag: str, texts: list[str]) -> list[int]:
    """The parts of a list flag as whole numbers, at least 0."""
    for text in texts:
        if not text.isdecimal():
            raise InputError(f"--{flag}={','.join(texts)}: whole numbers such as 1,2,3 are expected")
    return [int(text) for text in texts]
