"""Sources of pictures in folders, one folder per category."""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lifelong_cvae.data.files import IMAGE_SUFFIXES, natural_order, read_image_file, read_image_files
from lifelong_cvae.data.source import ALL, Source, check_split
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import Shape, check_image_shape
from lifelong_cvae.state import check_name

SPLITS = ("train", "test")
# Without folders of splits, one picture in this many of a category is a test image.
TEST_EVERY = 5

# Split to category to paths.
Paths = dict[str, dict[str, list[Path]]]


def open_image_folder(spec: str, folder: Path, *, image_size: int | None = None, grayscale: bool = False) -> Source:
    """Opens a folder of PNG and JPEG files as a source.

    The files are `train/CATEGORY/*` and `test/CATEGORY/*`, or `CATEGORY/*` alone. Without `train` and `test` every
    fifth picture of a category, in natural order, is a test image (the last one if there are fewer than five). So the
    split is a function of the file names, and the fingerprint, which every run records, covers it. Categories and
    the pictures in them are in natural order of their names.

    Every picture is decoded once here, so that a damaged one is reported before learning begins. None is kept: `read`
    decodes the pictures of its category again.

    Args:
        spec: name of the source in error messages and records.
        folder: the folder. Hidden files and files of other kinds in it are skipped.
        image_size: side in pixels of the square to which the middle of each picture is scaled; None keeps the size.
        grayscale: True for images of one channel, False for three.

    Raises:
        InputError: no category, a category without pictures or with one split only, a damaged picture, or pictures
            of different sizes without an `image_size`.
    """
    paths = _find_pictures(folder)
    categories = tuple(paths["train"])
    for name in categories:
        check_name(name)
    channels = 1 if grayscale else 3
    shape, fingerprint = _check_pictures(paths, channels, image_size)

    def read(split: str, category: str, rows: slice = ALL) -> np.ndarray:
        check_split(spec, split, paths)
        return read_image_files(paths[split][category][rows], channels, image_size=image_size)

    counts = {split: {name: len(files) for name, files in by_name.items()} for split, by_name in paths.items()}
    return Source(spec, categories, shape, fingerprint, counts, read)


def _find_pictures(folder: Path) -> Paths:
    """Returns the pictures of each split and category, in natural order."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected one with a folder of pictures per category")
    splits = [split for split in SPLITS if (folder / split).is_dir()]
    if not splits:
        return _split_pictures(_find_categories(folder))
    if len(splits) == 1:
        other = SPLITS[1 - SPLITS.index(splits[0])]
        raise InputError(
            f"{folder}: expected train/ and test/, or a folder per category alone, got {splits[0]}/ without {other}/"
        )
    paths = {split: _find_categories(folder / split) for split in SPLITS}
    in_one_split = paths["train"].keys() ^ paths["test"].keys()
    for split in SPLITS:
        for name in paths[split]:
            if name in in_one_split:
                raise InputError(f"{folder}: category {name!r}: expected in train/ and test/, got in {split}/ only")
    return paths


def _find_categories(folder: Path) -> dict[str, list[Path]]:
    """Returns the pictures of each category in a folder of categories, in natural order."""
    categories = sorted((path for path in _visible_entries(folder) if path.is_dir()), key=natural_order)
    if not categories:
        raise InputError(f"{folder}: no category folder, expected CATEGORY/*.png or CATEGORY/*.jpg")
    paths = {}
    for category in categories:
        pictures = [p for p in _visible_entries(category) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
        if not pictures:
            raise InputError(f"{category}: no picture in this category folder, expected {', '.join(IMAGE_SUFFIXES)}")
        paths[category.name] = sorted(pictures, key=natural_order)
    return paths


def _visible_entries(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _split_pictures(by_name: dict[str, list[Path]]) -> Paths:
    """Splits the pictures of each category into train and test images."""
    paths: Paths = {split: {} for split in SPLITS}
    for name, pictures in by_name.items():
        if len(pictures) < 2:
            raise InputError(f"{pictures[0].parent}: expected at least two pictures, one of them for test, got one")
        every = min(TEST_EVERY, len(pictures))
        paths["test"][name] = pictures[every - 1 :: every]
        paths["train"][name] = [path for number, path in enumerate(pictures, start=1) if number % every]
    return paths


def _check_pictures(paths: Paths, channels: int, image_size: int | None) -> tuple[Shape, str]:
    """Decodes all pictures. Returns their shape, and a hash of their names, contents and options."""
    digest = hashlib.sha256(repr((image_size, channels)).encode())
    first_shape, first_path = None, None
    for split, by_name in paths.items():
        for path in (path for pictures in by_name.values() for path in pictures):
            content = path.read_bytes()
            name = os.fsencode(Path(split, path.parent.name, path.name))
            digest.update(repr((name, len(content))).encode())
            digest.update(content)
            shape = read_image_file(io.BytesIO(content), channels, image_size=image_size, what=path).shape
            if first_shape is None:
                first_shape, first_path = shape, path
            elif shape != first_shape:
                raise InputError(
                    f"{path}: expected the size {first_shape[:2]} of {first_path}, got {shape[:2]}; "
                    "give an image_size to scale all pictures"
                )
    return check_image_shape(first_shape), digest.hexdigest()
