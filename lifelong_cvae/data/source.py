"""Sources of labelled images, read category by category."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
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
    """Labelled images in splits.

    Attributes:
        name: what it was opened as.
        categories: names in label order.
        image_shape: (height, width, channels).
        fingerprint: a hash of all images and labels.
        counts: split to category to number of images.
        read: `read(split, category)` gives the images `[n, h, w, c]` of a category in the source's
            order; splits are `train`, `test`, and `validation` where some were held out. A third argument,
            a `slice` of them, gives no others.
    """

    name: str
    categories: tuple[str, ...]
    image_shape: Shape
    fingerprint: str
    counts: Mapping[str, Mapping[str, int]]
    read: Callable[..., np.ndarray]


def from_arrays(name: str, *, train_images: Any, train_labels: Any, test_images: Any, test_labels: Any) -> Source:
    """A source of arrays in memory; a label's text is its category's name.

    Args:
        name: what messages and records call it.
        train_images: `[n, h, w]` or `[n, h, w, c]`.
        train_labels: whole numbers or texts, `[n]`.
        test_images: as `train_images`.
        test_labels: as `train_labels`.

    Raises:
        InputError: shapes, lengths or labels that do not fit together.
    """
    splits = {}
    for split, images, labels in (("train", train_images, train_labels), ("test", test_images, test_labels)):
        splits[split] = _check_pair(name, split, np.asarray(images), np.asarray(labels))
    (images, labels), (other_images, other_labels) = splits["train"], splits["test"]
    if images.shape[1:] != other_images.shape[1:]:
        raise InputError(f"{name}: train images are {images.shape[1:]}, test images {other_images.shape[1:]}")
    if labels.dtype.kind != other_labels.dtype.kind and "U" in (labels.dtype.kind, other_labels.dtype.kind):
        raise InputError(f"{name}: train labels are {labels.dtype}, test labels {other_labels.dtype}")
    distinct = np.unique(labels)
    lonely = np.setxor1d(distinct, np.unique(other_labels))
    if lonely.size:
        raise InputError(f"{name}: label {lonely[0]} has train images or test images only: both are expected")
    by_name = {str(label): label for label in distinct}

    def read(split: str, category: str, rows: slice = ALL) -> np.ndarray:
        if split not in splits:
            raise InputError(f"{name} has no split {split!r}: one of {', '.join(splits)} is expected")
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


def hold_out(source: Source, fraction: float) -> Source:
    """The source with the last part of each training category set aside as the split `validation`.

    Raises:
        InputError: the fraction is not in [0, 1), or a category has too few images to split.
    """
    if not 0 <= fraction < 1:
        raise InputError(f"validation_fraction={fraction}: at least 0 and below 1 is expected")
    if fraction == 0:
        return source
    held = {name: round(fraction * count) for name, count in source.counts["train"].items()}
    kept = {name: count - held[name] for name, count in source.counts["train"].items()}
    for name, count in source.counts["train"].items():
        if 0 in (held[name], kept[name]):
            raise InputError(f"validation_fraction={fraction}: category {name!r} has {count} images, too few to split")

    def read(split: str, category: str, rows: slice = ALL) -> np.ndarray:
        if split not in ("train", "validation"):
            return source.read(split, category, rows)
        places = range(source.counts["train"][category])
        own = places[: kept[category]] if split == "train" else places[kept[category] :]
        return source.read("train", category, _as_slice(own[rows]))

    return replace(source, read=read, counts={**source.counts, "train": kept, "validation": held})


def limit_train_images(source: Source, names: Collection[str], count: int) -> Source:
    """The source with only the first `count` training images of some categories.

    Raises:
        InputError: the count is below 1.
    """
    if count < 1:
        raise InputError(f"images_per_category={count}: at least 1 is expected")

    def read(split: str, category: str, rows: slice = ALL) -> np.ndarray:
        if split == "train" and category in names:
            rows = _as_slice(range(source.counts["train"][category])[:count][rows])
        return source.read(split, category, rows)

    train = {name: min(n, count) if name in names else n for name, n in source.counts["train"].items()}
    return replace(source, read=read, counts={**source.counts, "train": train})


def split_reading(source: Source) -> Source:
    """The source as the processes of a run read it: each a part, which it gives to the others.

    All of them have to ask for the same, in the same order. One process reads all by itself.
    """
    processes = jax.process_count()
    if processes == 1:
        return source

    def read(split: str, category: str, rows: slice = ALL) -> np.ndarray:
        places = range(source.counts[split][category])[rows]
        length = -(-len(places) // processes)
        # As many for each: parts may overlap.
        starts = [min(index * length, len(places) - length) for index in range(processes)]
        start = starts[jax.process_index()]
        own = source.read(split, category, _as_slice(places[start : start + length]))
        images = np.empty((len(places), *own.shape[1:]), own.dtype)
        for start, part in zip(starts, multihost_utils.process_allgather(own), strict=True):
            images[start : start + length] = part
        return images

    return replace(source, read=read)


def _as_slice(places: range) -> slice:
    return slice(places.start, places.stop, places.step)


def _check_pair(name: str, split: str, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if images.ndim not in (3, 4) or not len(images):
        raise InputError(f"{name}: {split} images [n, h, w] or [n, h, w, c] are expected, got {images.shape}")
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise InputError(
            f"{name}: {split} labels [n] of whole numbers or texts are expected, got {labels.dtype} {labels.shape}"
        )
    if len(images) != len(labels):
        raise InputError(f"{name}: {len(images)} {split} images but {len(labels)} labels: as many are expected")
    for label in np.unique(labels):
        check_name(str(label))
    flatten_images(images, check_image_shape(images.shape[1:]), what=f"{name}: {split} images")
    return (images[..., None] if images.ndim == 3 else images), labels
