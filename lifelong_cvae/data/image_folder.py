"""Sources of pictures in folders, one folder per category."""

import hashlib
import io
import os
from collections import Counter
from pathlib import Path

import numpy as np

from lifelong_cvae.data.pictures import (
    PICTURE_SUFFIXES,
    check_same_kind,
    describe_skipped,
    find_pictures,
    read_picture,
    read_pictures,
    visible_entries,
)
from lifelong_cvae.data.source import ALL, Source, check_split
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import (
    PixelValues,
    Shape,
    check_image_shape,
    check_pixel_range,
    find_max_value,
    pixel_values,
    to_certain_pixels,
)
from lifelong_cvae.state import check_name

# Names of the folders that hold a split, the preferred one first.
SPLITS = {"train": ("train", "training"), "test": ("test", "testing", "val", "valid", "validation")}
# Without folders of splits, one picture in this many of a category is a test image.
TEST_EVERY = 5

# Split to category to paths.
Paths = dict[str, dict[str, list[Path]]]


def open_image_folder(
    spec: str, folder: Path, *, image_size: int | None = None, grayscale: bool = False, max_value: float | None = None
) -> Source:
    """Opens a folder of pictures as a source.

    The files are `train/CATEGORY/*` and `test/CATEGORY/*` (`SPLITS` lists further names), or `CATEGORY/*` alone. In the
    second case every fifth picture of a category, in natural order, is a test image (the last one if there are fewer
    than five). So the split is a function of the file names, and the fingerprint, which every run records, covers it.
    Categories and the pictures in them are in natural order of their names.

    Every picture is decoded once here, so that a damaged one is reported before learning begins. None is kept: `read`
    decodes the pictures of its category again.

    Args:
        spec: name of the source in error messages and records.
        folder: the folder. Files that are no pictures are skipped and counted.
        image_size: side in pixels of the square to which the middle of each picture is scaled; None keeps the size.
        grayscale: True for images of one channel, False for three.
        max_value: value that stands for white; default that of the training pictures (`images.find_max_value`).

    Raises:
        InputError: no category, a category without pictures or with one split only, a damaged picture, or pictures
            of different sizes without an `image_size`.
    """
    paths, skipped = _find_splits(folder)
    channels = 1 if grayscale else 3
    shape, values, fingerprint = _check_pictures(paths, channels, image_size)
    max_value = find_max_value(values["train"], what=spec) if max_value is None else max_value

    def read(split: str, category: str, rows: slice = ALL) -> np.ndarray:
        check_split(spec, split, paths)
        images = read_pictures(paths[split][category][rows], channels, image_size=image_size)
        check_pixel_range(images, max_value, what=f"{spec}: {split} images of category {category!r}")
        return to_certain_pixels(images, max_value)

    counts = {split: {name: len(files) for name, files in by_name.items()} for split, by_name in paths.items()}
    return Source(
        name=spec,
        categories=tuple(paths["train"]),
        image_shape=shape,
        fingerprint=fingerprint,
        counts=counts,
        read=read,
        values=values["train"],
        max_value=max_value,
        note="; ".join(filter(None, (_describe_formats(paths), describe_skipped(skipped)))),
    )


def _find_splits(folder: Path) -> tuple[Paths, Counter[str]]:
    """Returns the pictures by split and category, in natural order, and the kinds of other entries."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected one with a folder of pictures per category")
    split_names = {name for names in SPLITS.values() for name in names}
    candidates = [path for path in visible_entries(folder) if path.name.lower() in split_names and path.is_dir()]
    folders = {path.name.lower(): path for path in candidates if not _has_pictures(path)}
    found = {split: [folders[name] for name in names if name in folders] for split, names in SPLITS.items()}
    if not any(found.values()):
        by_name, skipped = _find_categories(folder)
        return _split_pictures(by_name), skipped
    for split, other in (("train", "test"), ("test", "train")):
        if not found[other]:
            raise InputError(
                f"{folder}: expected train/ and test/, or a folder per category alone, "
                f"got {found[split][0].name}/ without {other}/"
            )
    (train, skipped), (test, more_skipped) = (_find_categories(found[split][0]) for split in SPLITS)
    for name in train.keys() ^ test.keys():
        split = found["train" if name in train else "test"][0].name
        raise InputError(f"{folder}: category {name!r}: expected in train/ and test/, got in {split}/ only")
    used = [found[split][0] for split in SPLITS]
    unused = [path for path in visible_entries(folder) if path not in used]
    skipped += more_skipped + Counter(f"{path.name}{'/' * path.is_dir()}" for path in unused)
    return {"train": train, "test": {name: test[name] for name in train}}, skipped


def _describe_formats(paths: Paths) -> str:
    """Counts the pictures by the ending of their file names, if there are several."""
    pictures = (path for by_name in paths.values() for files in by_name.values() for path in files)
    suffixes = Counter(path.suffix.lower() for path in pictures)
    counts = ", ".join(f"{suffix} ({count})" for suffix, count in suffixes.most_common())
    return f"pictures: {counts}" if len(suffixes) > 1 else ""


def _has_pictures(folder: Path) -> bool:
    return bool(find_pictures(folder)[0])


def _find_categories(folder: Path) -> tuple[dict[str, list[Path]], Counter[str]]:
    """Returns the pictures by category of a folder of categories, and the kinds of other entries."""
    entries = visible_entries(folder)
    categories = [path for path in entries if path.is_dir()]
    skipped = Counter(path.suffix.lower() or "without ending" for path in entries if not path.is_dir())
    if not categories:
        raise InputError(f"{folder}: no category folder, expected CATEGORY/*.png, CATEGORY/*.jpg or the like")
    paths: dict[str, list[Path]] = {}
    for category in categories:
        name = check_name(category.name)
        pictures, others = find_pictures(category)
        if name in paths:
            raise InputError(f"{folder}: category {name!r}: expected one folder of this name, got two Unicode forms")
        if not pictures:
            raise InputError(f"{category}: no picture in this category folder, expected {', '.join(PICTURE_SUFFIXES)}")
        paths[name] = pictures
        skipped += others
    return paths, skipped


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


def _check_pictures(paths: Paths, channels: int, image_size: int | None) -> tuple[Shape, dict[str, PixelValues], str]:
    """Decodes all pictures. Returns their shape, values by split, and a hash of names and contents."""
    digest = hashlib.sha256(repr((image_size, channels)).encode())
    first, first_path, values = None, None, {}
    for split, by_name in paths.items():
        for path in (path for pictures in by_name.values() for path in pictures):
            content = path.read_bytes()
            name = os.fsencode(Path(split, path.parent.name, path.name))
            digest.update(repr((name, len(content))).encode())
            digest.update(content)
            pixels = read_picture(io.BytesIO(content), channels, image_size=image_size, what=path)
            if first is None:
                first, first_path = pixels, path
            check_same_kind(path, pixels, first_path, first)
            found = pixel_values(pixels[None], what=str(path))
            values[split] = found.merge(values.get(split, found))
    return check_image_shape(first.shape), values, digest.hexdigest()
