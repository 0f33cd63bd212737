"""Sources of arrays in memory: their axes, pixel values and labels."""

import hashlib
from typing import Any

import numpy as np

from lifelong_cvae.data.source import ALL, Source, check_split
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import (
    check_image_shape,
    check_pixel_range,
    find_max_value,
    move_channels_last,
    pixel_values,
    to_certain_pixels,
)
from lifelong_cvae.model.vectors import check_vectors, is_vector
from lifelong_cvae.state import check_name


def from_arrays(
    name: str,
    *,
    train_images: Any,
    train_labels: Any,
    test_images: Any,
    test_labels: Any,
    max_value: float | None = None,
) -> Source:
    """Creates a source of arrays in memory. The text of a label is the name of its category.

    Args:
        name: name of the source in error messages and records.
        train_images: whole numbers or floats, `[n, h, w]`, `[n, h, w, c]`, or `[n, c, h, w]` where that is certain
            (`images.move_channels_last`); vectors `[n, d]`.
        train_labels: as in `to_labels`.
        test_images: as `train_images`.
        test_labels: as `train_labels`.
        max_value: value that stands for white; default that of the training images (`images.find_max_value`).

    Raises:
        InputError: shapes, values, lengths or labels do not fit together.
    """
    images, labels = _check_pair(name, "train", np.asarray(train_images), np.asarray(train_labels))
    test_images, test_labels = _check_pair(name, "test", np.asarray(test_images), np.asarray(test_labels))
    splits = {"train": (images, labels), "test": (test_images, test_labels)}
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
    values = pixel_values(images, what=f"{name}: train images")
    if is_vector(images.shape[1:]):
        if max_value is not None:
            raise InputError(f"{name}: max_value: expected images, got vectors")
    else:
        max_value = find_max_value(values, what=f"{name}: train images") if max_value is None else max_value
        for split, (pixels, _) in splits.items():
            check_pixel_range(pixels, max_value, what=f"{name}: {split} images")

    def read(split: str, category: str, rows: slice = ALL) -> np.ndarray:
        check_split(name, split, splits)
        pixels, labels = splits[split]
        selected = pixels[np.flatnonzero(labels == by_name[category])[rows]]
        return selected if is_vector(pixels.shape[1:]) else to_certain_pixels(selected, max_value)

    counts = {
        split: {category: int((labels == label).sum()) for category, label in by_name.items()}
        for split, (_, labels) in splits.items()
    }
    shape, fingerprint = check_image_shape(images.shape[1:]), _fingerprint(*splits.values())
    return Source(name, tuple(by_name), shape, fingerprint, counts, read, values, max_value)


def to_labels(values: Any, *, what: str) -> np.ndarray:
    """Returns labels `[n]`: whole numbers, or texts in Unicode's form NFC.

    Args:
        values: whole numbers, also stored as floats; texts, also as bytes in UTF-8 or as objects; booleans. `[n]`, a
            column `[n, 1]`, or one-hot `[n, classes]`, whose labels are the indices of the ones.
        what: name of the labels in error messages.

    Raises:
        InputError: other values, or another shape.
    """
    labels = np.asarray(values)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif labels.ndim == 2 and labels.dtype.kind in "biuf" and _is_one_hot(labels):
        labels = labels.argmax(axis=1)
    try:
        if labels.dtype.kind == "S" or (labels.dtype.kind == "O" and labels.ndim == 1):
            labels = np.asarray([_to_text(label) for label in labels])
    except ValueError as error:
        raise InputError(f"{what}: expected texts or bytes in UTF-8, got an error ({error})") from error
    if labels.dtype.kind == "f" and np.isfinite(labels).all() and (labels == np.rint(labels)).all():
        labels = labels.astype(np.int64)
    if labels.ndim != 1 or labels.dtype.kind not in "biuU":
        raise InputError(f"{what}: expected whole numbers or texts [n], got {np.asarray(values).dtype} {labels.shape}")
    if labels.dtype.kind == "b":
        labels = labels.astype(str)
    if labels.dtype.kind == "U" and len(labels):
        distinct, inverse = np.unique(labels, return_inverse=True)
        labels = np.asarray([check_name(str(label)) for label in distinct])[inverse]
    return labels


def _is_one_hot(labels: np.ndarray) -> bool:
    return labels.shape[1] > 1 and bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())


def _to_text(label: Any) -> str:
    if isinstance(label, bytes):
        return label.decode()
    if isinstance(label, str):
        return label
    raise ValueError(f"a label of type {type(label).__name__}")


def _check_pair(name: str, split: str, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Checks the images and labels of a split. Returns images with a channel axis at the end, and labels."""
    if images.ndim not in (2, 3, 4) or not len(images):
        raise InputError(
            f"{name}: {split} images: expected [n, h, w] or [n, h, w, c], or vectors [n, d], got {images.shape}"
        )
    labels = to_labels(labels, what=f"{name}: {split} labels")
    if len(images) != len(labels):
        raise InputError(
            f"{name}: expected as many {split} labels as images, got {len(labels)} labels and {len(images)} images"
        )
    if images.ndim == 2:
        check_vectors(images, images.shape[1:], f"{name}: {split} vectors")
    else:
        images = move_channels_last(images)
    check_image_shape(images.shape[1:])
    return images, labels


def _fingerprint(*splits: tuple[np.ndarray, np.ndarray]) -> str:
    """Computes a hash of the images and labels of splits."""
    digest = hashlib.sha256()
    for images, labels in splits:
        digest.update(repr((images.shape, images.dtype.str)).encode())
        digest.update(np.ascontiguousarray(images))
        digest.update("\n".join(map(str, labels.tolist())).encode())
    return digest.hexdigest()
