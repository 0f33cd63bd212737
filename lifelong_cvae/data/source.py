"""Sources of labeled images, read one category at a time."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lifelong_cvae.errors import InputError
from lifelong_cvae.images import Shape, check_image_shape, flatten_images
from lifelong_cvae.state import check_name

ALL = slice(None)


@dataclass(frozen=True)
class Source:
    """Labeled images in splits.

    Attributes:
        name: the specification from which the source was opened.
        categories: names in label order.
        image_shape: (height, width, channels).
        fingerprint: hash of all images and labels.
        counts: number of images by split and category.
        read: `read(split, category)` returns the images `[n, h, w, c]` of a category in the order of the source.
            Splits are `train`, `test`, and `validation` if images are held out. A third argument, a `slice`, selects
            some of the images.
    """

    name: str
    categories: tuple[str, ...]
    image_shape: Shape
    fingerprint: str
    counts: Mapping[str, Mapping[str, int]]
    read: Callable[..., np.ndarray]


def from_arrays(name: str, *, train_images: Any, train_labels: Any, test_images: Any, test_labels: Any) -> Source:
    """Creates a source of arrays in memory. The text of a label is the name of its category.

    Args:
        name: name of the source in error messages and records.
        train_images: `[n, h, w]` or `[n, h, w, c]`.
        train_labels: whole numbers or texts, `[n]`.
        test_images: as `train_images`.
        test_labels: as `train_labels`.

    Raises:
        InputError: shapes, lengths or labels do not fit together.
    """
    splits = {}
    for split, images, labels in (("train", train_images, train_labels), ("test", test_images, test_labels)):
        splits[split] = _check_pair(name, split, np.asarray(images), np.asarray(labels))
    (images, labels), (test_images, test_labels) = splits["train"], splits["test"]
    if images.shape[1:] != test_images.shape[1:]:
        raise InputError(
            f"{name}: expected train and test images of one shape, got {images.shape[1:]} and {test_images.shape[1:]}"
        )
    if labels.dtype.kind != test_labels.dtype.kind and "U" in (labels.dtype.kind, test_labels.dtype.kind):
        raise InputError(
            f"{name}: expected train and test labels of one type, got {labels.dtype} and {test_labels.dtype}"
        )
    distinct = np.unique(labels)
    in_one_split = np.setxor1d(distinct, np.unique(test_labels))
    if in_one_split.size:
        split = "train" if in_one_split[0] in distinct else "test"
        raise InputError(f"{name}: label {in_one_split[0]}: expected train and test images, got {split} images only")
    by_name = {str(label): label for label in distinct}

    def read(split: str, category: str, rows: slice = ALL) -> np.ndarray:
        check_split(name, split, splits)
        images, labels = splits[split]
        return images[np.flatnonzero(labels == by_name[category])[rows]]

    counts = {
        split: {category: int((labels == label).sum()) for category, label in by_name.items()}
        for split, (_, labels) in splits.items()
    }
    digest = hashlib.sha256()
    for images, labels in splits.values():
        digest.update(repr((images.shape, images.dtype.str)).encode())
        digest.update(np.ascontiguousarray(images))
        digest.update("\n".join(map(str, labels.tolist())).encode())
    return Source(name, tuple(by_name), check_image_shape(images.shape[1:]), digest.hexdigest(), counts, read)


def check_split(name: str, split: str, splits: Iterable[str]) -> None:
    """Raises InputError unless `split` is one of the splits of the source `name`."""
    if split not in splits:
        raise InputError(f"{name}: unknown split: expected one of {', '.join(splits)}, got {split!r}")


def hold_out(source: Source, fraction: float) -> Source:
    """Sets the last part of the training images of each category aside as the split `validation`.

    Raises:
        InputError: the fraction is not in [0, 1), or a category has too few images to split.
    """
    if not 0 <= fraction < 1:
        raise InputError(f"validation_fraction: expected at least 0 and below 1, got {fraction}")
    if fraction == 0:
        return source
    train_counts = source.counts["train"]
    held_out = {name: round(fraction * count) for name, count in train_counts.items()}
    kept = {name: count - held_out[name] for name, count in train_counts.items()}
    for name, count in train_counts.items():
        if 0 in (held_out[name], kept[name]):
            raise InputError(
                f"validation_fraction={fraction}: too few images to split: expected at least one image of category "
                f"{name!r} in each part, got {kept[name]} and {held_out[name]} of {count}"
            )

    def read(split: str, category: str, rows: slice = ALL) -> np.ndarray:
        if split not in ("train", "validation"):
            return source.read(split, category, rows)
        indices = range(train_counts[category])
        part = indices[: kept[category]] if split == "train" else indices[kept[category] :]
        return source.read("train", category, _as_slice(part[rows]))

    return replace(source, read=read, counts={**source.counts, "train": kept, "validation": held_out})


def limit_train_images(source: Source, names: Collection[str], count: int) -> Source:
    """Keeps only the first `count` training images of the categories `names`.

    Raises:
        InputError: the count is below 1.
    """
    if count < 1:
        raise InputError(f"images_per_category: expected at least 1, got {count}")

    def read(split: str, category: str, rows: slice = ALL) -> np.ndarray:
        if split == "train" and category in names:
            rows = _as_slice(range(source.counts["train"][category])[:count][rows])
        return source.read(split, category, rows)

    train_counts = {name: min(n, count) if name in names else n for name, n in source.counts["train"].items()}
    return replace(source, read=read, counts={**source.counts, "train": train_counts})


def split_reading(source: Source) -> Source:
    """Divides reading among the processes of a run: each reads a part and sends it to the others.

    Collective: every process must read the same images in the same order. A single process reads everything itself.
    """
    processes = jax.process_count()
    if processes == 1:
        return source

    def read(split: str, category: str, rows: slice = ALL) -> np.ndarray:
        indices = range(source.counts[split][category])[rows]
        length = -(-len(indices) // processes)
        # Parts have one length, so they may overlap.
        starts = [min(process * length, len(indices) - length) for process in range(processes)]
        start = starts[jax.process_index()]
        local = source.read(split, category, _as_slice(indices[start : start + length]))
        images = np.empty((len(indices), *local.shape[1:]), local.dtype)
        for start, part in zip(starts, multihost_utils.process_allgather(local), strict=True):
            images[start : start + length] = part
        return images

    return replace(source, read=read)


def _as_slice(indices: range) -> slice:
    return slice(indices.start, indices.stop, indices.step)


def _check_pair(name: str, split: str, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Checks the images and labels of a split. Returns images with a channel axis, and labels."""
    if images.ndim not in (3, 4) or not len(images):
        raise InputError(f"{name}: {split} images: expected [n, h, w] or [n, h, w, c], got {images.shape}")
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise InputError(
            f"{name}: {split} labels: expected whole numbers or texts [n], got {labels.dtype} {labels.shape}"
        )
    if len(images) != len(labels):
        raise InputError(
            f"{name}: expected as many {split} labels as images, got {len(labels)} labels and {len(images)} images"
        )
    for label in np.unique(labels):
        check_name(str(label))
    flatten_images(images, check_image_shape(images.shape[1:]), what=f"{name}: {split} images")
    return (images[..., None] if images.ndim == 3 else images), labels
