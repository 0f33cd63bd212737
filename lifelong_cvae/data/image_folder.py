"""Sources of pictures: a folder for each category."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lifelong_cvae.data.files import IMAGE_SUFFIXES, natural_order, read_image_file, read_image_files
from lifelong_cvae.data.source import ALL, Source
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import Shape, check_image_shape
from lifelong_cvae.state import check_name

SPLITS = ("train", "test")
# Where there are no folders of splits, every so many-th picture of a category is a test image.
TEST_EVERY = 5

# Split to category to files.
Files = dict[str, dict[str, list[Path]]]


def open_image_folder(spec: str, folder: Path, *, image_size: int | None = None, grayscale: bool = False) -> Source:
    """A source of PNG and JPEG files: `train/CATEGORY/*` and `test/CATEGORY/*`, or `CATEGORY/*` alone.

    Without `train` and `test` every fifth picture of a category, in natural order, is a test image (of fewer
    than five the last). So the split is a function of the names of the files, and the fingerprint, which
    every run records, covers it. Categories are in natural order of their names, pictures within them too.

    Every picture is decoded once here, so that a damaged one is told before anything is learned; none is
    kept. `read` decodes those of its category.

    Args:
        spec: what messages and records call it.
        folder: the folder. Hidden files and other kinds of files in it are passed over.
        image_size: pixels of the side of a square that the middle of each picture is scaled to.
        grayscale: whether images have one channel; otherwise they have three.

    Raises:
        InputError: there is no category, one that has no picture or only one split, a damaged picture, or
            pictures of different sizes without an `image_size`.
    """
    files = _files(folder)
    categories = tuple(files["train"])
    for name in categories:
        check_name(name)
    channels = 1 if grayscale else 3
    shape, fingerprint = _scan(files, channels, image_size)

    def read(split: str, category: str, rows: slice = ALL) -> np.ndarray:
        if split not in files:
            raise InputError(f"{spec} has no split {split!r}: one of {', '.join(files)} is expected")
        return read_image_files(files[split][category][rows], channels, image_size=image_size)

    counts = {split: {name: len(paths) for name, paths in by_name.items()} for split, by_name in files.items()}
    return Source(spec, categories, shape, fingerprint, counts, read)


def _files(folder: Path) -> Files:
    """The pictures of each split and category, in natural order."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; a folder of pictures per category is expected there")
    there = [split for split in SPLITS if (folder / split).is_dir()]
    if len(there) == 1:
        other = SPLITS[1 - SPLITS.index(there[0])]
        raise InputError(f"{folder}: {there[0]}/ without {other}/; both are expected, or a folder per category alone")
    if not there:
        return _split(_category_files(folder))
    files = {split: _category_files(folder / split) for split in SPLITS}
    lonely = files["train"].keys() ^ files["test"].keys()
    for split in SPLITS:
        for name in files[split]:
            if name in lonely:
                raise InputError(f"{folder}: category {name!r} is in {split}/ only, it is expected in both")
    return files


def _category_files(folder: Path) -> dict[str, list[Path]]:
    categories = sorted((path for path in _visible(folder) if path.is_dir()), key=natural_order)
    if not categories:
        raise InputError(f"{folder}: no folder of a category in it; CATEGORY/*.png or .jpg is expected")
    files = {}
    for category in categories:
        found = [path for path in _visible(category) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
        if not found:
            raise InputError(f"{category}: no picture ({', '.join(IMAGE_SUFFIXES)}) in this folder of a category")
        files[category.name] = sorted(found, key=natural_order)
    return files


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _split(by_name: dict[str, list[Path]]) -> Files:
    files: Files = {split: {} for split in SPLITS}
    for name, paths in by_name.items():
        if len(paths) < 2:
            raise InputError(f"{paths[0].parent}: one picture; at least two are expected, one of them to test")
        every = min(TEST_EVERY, len(paths))
        files["test"][name] = paths[every - 1 :: every]
        files["train"][name] = [path for index, path in enumerate(paths, start=1) if index % every]
    return files


def _scan(files: Files, channels: int, image_size: int | None) -> tuple[Shape, str]:
    """The shape of all pictures, and a hash of their names and contents and of how they are read."""
    digest = hashlib.sha256(repr((image_size, channels)).encode())
    shape, first = None, None
    for split, by_name in files.items():
        for path in (path for paths in by_name.values() for path in paths):
            content = path.read_bytes()
            name = os.fsencode(Path(split, path.parent.name, path.name))
            digest.update(repr((name, len(content))).encode())
            digest.update(content)
            found = read_image_file(io.BytesIO(content), channels, image_size=image_size, what=path).shape
            if shape is None:
                shape, first = found, path
            elif found != shape:
                raise InputError(
                    f"{path}: size {found[:2]}, but {first} has {shape[:2]}; "
                    "pictures of one size are expected, or an image_size to scale them to"
                )
    return check_image_shape(shape), digest.hexdigest()
