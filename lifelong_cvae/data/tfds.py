"""Sources of TensorFlow Datasets, read without TensorFlow. `preparing.py` makes what is not there yet."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lifelong_cvae.data.files import read_image_file
from lifelong_cvae.data.source import ALL, Source
from lifelong_cvae.data.tfds_prepare import prepare
from lifelong_cvae.errors import InputError
from lifelong_cvae.state import check_name

NAME = re.compile(r"\w+(/[\w.-]+)?(:[\w.*]+)?")
FORMAT = "array_record"
# So many records are in memory at once.
BATCH = 1024
# Of a set without a test split, the last so many-th part of each category is test images.
TEST_PART = 5

# Split to category to places in the records of a split of the data set: its name, and which of them.
RecordIndex = dict[str, dict[str, tuple[str, np.ndarray]]]


def open_tfds(
    spec: str,
    name: str,
    *,
    image_size: int | None = None,
    grayscale: bool = False,
    tfds_data_dir: str | None = None,
    tfds_manual_dir: str | None = None,
) -> Source:
    """A source of a data set of TensorFlow Datasets with the features `image` and `label`.

    The names of its classes are those of the categories; classes without an image are left out. Splits
    are `train` and `test`; of a set without `test` the last fifth of each category of `train` is. Labels are
    read here, and images of a category where `read` is asked for it. The fingerprint is one of the labels
    and the encoded images: what another encoder has prepared has another one.

    Args:
        spec: what messages and records call it.
        name: as `mnist`, `emnist/letters` or `mnist:3.0.1`.
        image_size: pixels of the side of a square that the middle of each image is scaled to; needed where
            images differ in size.
        grayscale: whether images have one channel; otherwise as many as the set says, one or three.
        tfds_data_dir: folder of prepared data sets; default that of TensorFlow Datasets.
        tfds_manual_dir: folder of the files to prepare it from (see `preparing.prepare`).

    Raises:
        InputError: no such set, one that is neither prepared nor can be, or one that is no classification
            of images.
    """
    if not NAME.fullmatch(name):
        raise InputError(f"{spec}: a name such as mnist, emnist/letters or mnist:3.0.1 is expected")
    builder = _prepared(spec, name, tfds_data_dir, tfds_manual_dir)
    shape = _image_shape(spec, builder.info.features, image_size, grayscale)
    records = _records(spec, builder)
    names = builder.info.features["label"].names
    labels, digest = {}, hashlib.sha256(repr((image_size, shape, names)).encode())
    for split, data in records.items():
        labels[split] = _labels(data, digest)
    places = _find_records(spec, names, labels)

    def read(split: str, category: str, rows: slice = ALL) -> np.ndarray:
        if split not in places:
            raise InputError(f"{spec} has no split {split!r}: one of {', '.join(places)} is expected")
        source, every = places[split][category]
        chosen = every[rows]
        images = np.empty((len(chosen), *shape), np.uint8)
        for index, example in enumerate(_examples(records[source], chosen)):
            what = f"{spec}, record {chosen[index]} of {source}"
            picture = io.BytesIO(example["image"])
            pixels = read_image_file(picture, shape[2], image_size=image_size, what=what)
            if pixels.shape != shape:
                raise InputError(f"{what}: an image of {shape} is expected, got {pixels.shape}")
            images[index] = pixels
        return images

    counts = {split: {name: len(rows) for name, (_, rows) in parts.items()} for split, parts in places.items()}
    return Source(spec, tuple(places["train"]), shape, digest.hexdigest(), counts, read)


def _prepared(spec: str, name: str, data_dir: str | None, manual_dir: str | None) -> Any:
    """The builder of a set that is prepared, now if not before."""
    builder = _builder(spec, name, data_dir)
    if not builder.is_prepared():
        prepare(spec, builder, None if manual_dir is None else Path(manual_dir))
        builder = _builder(spec, name, data_dir)
    return builder


def _builder(spec: str, name: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir, file_format=FORMAT)
    except tfds.core.DatasetNotFoundError as error:
        raise InputError(f"{spec}: TensorFlow Datasets has no set of this name and version") from error
    except Exception as error:  # a wrong name and damaged files raise many kinds
        reason = " ".join(str(error).split())
        raise InputError(f"{spec}: a configuration, version and format that is there is expected ({reason})") from error


def _records(spec: str, builder: Any) -> dict[str, Sequence[Any]]:
    """Split to records, images as they are encoded."""
    import tensorflow_datasets as tfds

    if "train" not in builder.info.splits:
        found = ", ".join(builder.info.splits)
        raise InputError(f"{spec}: a split train is expected, it has {found}")
    splits = [split for split in ("train", "test") if split in builder.info.splits]
    decoders = {"image": tfds.decode.SkipDecoding()}
    try:
        return {split: builder.as_data_source(split, decoders=decoders) for split in splits}
    except (NotImplementedError, ValueError, OSError) as error:
        raise InputError(f"{spec}: {builder.data_dir} is not prepared as {FORMAT}: prepare it anew") from error


def _image_shape(
    spec: str, features: Mapping[str, Any], image_size: int | None, grayscale: bool
) -> tuple[int, int, int]:
    import tensorflow_datasets as tfds

    kinds = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    for feature, kind in kinds.items():
        if feature not in features or not isinstance(features[feature], kind):
            raise InputError(f"{spec}: features image and label are expected, it has {', '.join(features)}")
    height, width, channels = features["image"].shape
    if image_size is None and None in (height, width):
        raise InputError(f"{spec}: its images have different sizes, an image_size to scale them to is expected")
    size = (height, width) if image_size is None else (image_size, image_size)
    return *size, 1 if grayscale or channels == 1 else 3


def _examples(data: Any, rows: Sequence[int]) -> Iterator[Mapping[str, Any]]:
    for start in range(0, len(rows), BATCH):
        try:
            examples = data.__getitems__([int(row) for row in rows[start : start + BATCH]])
            if any(example[key] is None for example in examples for key in ("image", "label")):
                raise ValueError("an empty record")
        except Exception as error:  # damage raises many kinds
            reason = " ".join(str(error).split())
            raise InputError(
                f"{data.dataset_info.data_dir}: damaged ({reason}); remove it, and it is to be prepared anew"
            ) from error
        yield from examples


def _labels(data: Any, digest: Any) -> np.ndarray:
    """The labels of all records `[n]`; they and the encoded images go into the digest."""
    labels = np.empty(len(data), np.int64)
    for index, example in enumerate(_examples(data, range(len(data)))):
        labels[index] = example["label"]
        digest.update(b"%d %d " % (example["label"], len(example["image"])))
        digest.update(example["image"])
    return labels


def _find_records(spec: str, names: Sequence[str], labels: Mapping[str, np.ndarray]) -> RecordIndex:
    places: RecordIndex = {"train": {}, "test": {}}
    for label, name in enumerate(names):
        rows = {split: np.flatnonzero(values == label) for split, values in labels.items()}
        count = len(rows["train"])
        if not any(map(len, rows.values())):
            continue
        check_name(name)
        kept = count - max(1, count // TEST_PART) if "test" not in rows else count
        test = ("test", rows["test"]) if "test" in rows else ("train", rows["train"][kept:])
        if not kept or not len(test[1]):
            raise InputError(f"{spec}: category {name!r} has no train or no test images, both are expected")
        places["train"][name], places["test"][name] = ("train", rows["train"][:kept]), test
    if not places["train"]:
        raise InputError(f"{spec}: no labelled image in it")
    return places
