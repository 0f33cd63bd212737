"""Sources of labeled images, read one category at a time."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import jax
import numpy as np
from jax.experimental import multihost_utils

from lifelong_cvae.errors import InputError
from lifelong_cvae.images import PixelValues, Shape, to_float

ALL = slice(None)


@dataclass(frozen=True)
class Source:
    """Labeled images in splits.

    Attributes:
        name: the specification from which the source was opened.
        categories: names in label order.
        image_shape: (height, width, channels), or (d,) of vectors.
        fingerprint: hash of all images and labels.
        counts: number of images by split and category.
        values: values of the pixels as they are stored; None if not known.
        max_value: stored value that stands for white; None if that of the type (`images.find_max_value`).
        note: a remark for the log, such as what was skipped.
        read: `read(split, category)` returns the images `[n, h, w, c]` of a category in the order of the source.
            Splits are `train`, `test`, and `validation` if images are held out. A third argument, a `slice`, selects
            some of the images. They are uint8, or float32 in [0, 1], whatever is stored; vectors are as stored.
    """

    name: str
    categories: tuple[str, ...]
    image_shape: Shape
    fingerprint: str
    counts: Mapping[str, Mapping[str, int]]
    read: Callable[..., np.ndarray]
    values: PixelValues | None = None
    max_value: float | None = None
    note: str = ""


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
        if multihost_utils.process_allgather(np.int32(local.dtype != np.uint8)).any():
            local = np.asarray(to_float(local))
        images = np.empty((len(indices), *local.shape[1:]), local.dtype)
        for start, part in zip(starts, multihost_utils.process_allgather(local), strict=True):
            images[start : start + length] = part
        return images

    return replace(source, read=read)


def _as_slice(indices: range) -> slice:
    return slice(indices.start, indices.stop, indices.step)
