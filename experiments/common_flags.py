"""Flags that several launchers have, and their values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from lifelong_cvae.config import RECOGNIZERS, SPLITS
from lifelong_cvae.errors import InputError

if TYPE_CHECKING:
    from lifelong_cvae.data import SourceOptions

# Flags defined here count as flags of the launcher that calls.
flags.disclaim_key_flags()

DATASETS = (
    "mnist5k (5,000 real MNIST digits, embedded), idx:DIR (the four IDX files), npz:FILE, "
    "images:DIR (a folder of pictures per category), tfds:NAME (TensorFlow Datasets)"
)


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
    flags.DEFINE_float(
        "max_value",
        None,
        "Pixel value that stands for white in the files of --dataset. Default: the smallest of 1, 16, 255, 1023, 4095, "
        "16383 and 65535 that no training image exceeds; 255 for 8 bits above 16, 1 for floats up to 1.",
        lower_bound=0,
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


def define_moved_data() -> None:
    """Defines --dataset, for launchers that read the images of a run."""
    flags.DEFINE_string("dataset", None, "Where the images of the run are now, if they have moved: as for `learn`.")


def workdir() -> Path:
    """Returns the value of --workdir."""
    return path("workdir")


def path(flag: str) -> Path | None:
    """Returns the path that a flag names, with `~` expanded; None if the flag is not given.

    Raises:
        InputError: an address, such as gs://bucket/folder.
    """
    from lifelong_cvae.files import local_path

    value = flags.FLAGS[flag].value
    return None if value is None else local_path(value, what=f"--{flag}")


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
