"""Sources of TensorFlow Datasets, read without TensorFlow. `tfds_prepare` prepares missing data sets."""

import hashlib
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lifelong_cvae.data.pictures import read_picture
from lifelong_cvae.data.source import ALL, Source, check_split
from lifelong_cvae.data.tfds_prepare import prepare
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import Shape, check_pixel_range, find_max_value, pixel_values, to_certain_pixels
from lifelong_cvae.state import check_name

NAME = re.compile(r"\w+(/[\w.-]+)?(:[\w.*]+)?")
FORMAT = "array_record"
# Records that are in memory at once.
BATCH = 1024
# Training images that show which value stands for white. Every image is checked against it when it is read.
SAMPLE = 1000
# Without a test split, the last 1 / TEST_PART of the train images of a category are its test images.
TEST_PART = 5

# Split of the source to category to records: the split of the data set, and their indices in it.
RecordIndex = dict[str, dict[str, tuple[str, np.ndarray]]]


def open_tfds(
    spec: str,
    name: str,
    *,
    image_size: int | None = None,
    grayscale: bool = False,
    max_value: float | None = None,
    tfds_data_dir: str | None = None,
    tfds_manual_dir: str | None = None,
) -> Source:
    """Opens a data set of TensorFlow Datasets with the features `image` and `label` as a source.

    Categories are named as the classes; classes without an image are left out. Splits are `train` and `test`; without
    a split `test` the last fifth of the train images of each category are test images. Opening reads all labels;
    `read` decodes the images of its category. The fingerprint covers the labels and the encoded images: a data set
    that was prepared with another image encoder has another fingerprint.

    Args:
        spec: name of the source in error messages and records.
        name: name of the data set, such as `mnist`, `emnist/letters` or `mnist:3.0.1`.
        image_size: side in pixels of the square to which the middle of each image is scaled; required if images
            differ in size.
        grayscale: True for images of one channel; False for the channels of the data set, one or three.
        max_value: value that stands for white; default that of training images (`images.find_max_value`).
        tfds_data_dir: folder of prepared data sets; default that of TensorFlow Datasets.
        tfds_manual_dir: folder of the files from which the data set is prepared (see `tfds_prepare.prepare`).

    Raises:
        InputError: an unknown data set, one that is not and cannot be prepared, or one that is not for image
            classification.
    """
    if not NAME.fullmatch(name):
        raise InputError(f"{spec}: expected a name such as mnist, emnist/letters or mnist:3.0.1, got {name!r}")
    tfds_data_dir = tfds_data_dir and os.path.expanduser(tfds_data_dir)
    builder = _builder(spec, name, tfds_data_dir)
    if not builder.is_prepared():
        prepare(spec, builder, None if tfds_manual_dir is None else Path(tfds_manual_dir).expanduser())
        builder = _builder(spec, name, tfds_data_dir)
    shape = _image_shape(spec, builder.info.features, image_size, grayscale)
    records = _open_records(spec, builder)
    names = builder.info.features["label"].names
    labels, digest = {}, hashlib.sha256(repr((image_size, shape, names)).encode())
    for split, data in records.items():
        labels[split] = _read_labels(data, digest)
    index = _index_records(spec, names, labels)

    def read_stored(split: str, rows: Sequence[int]) -> np.ndarray:
        whats = [f"{spec}, record {row} of {split}" for row in rows]
        return _decode_images(whats, _read_examples(records[split], rows), shape, image_size)

    train_rows = np.concatenate([rows for _, rows in index["train"].values()])
    values = pixel_values(read_stored("train", train_rows[:: max(1, len(train_rows) // SAMPLE)]), what=spec)
    max_value = find_max_value(values, what=spec) if max_value is None else max_value

    def read(split: str, category: str, rows: slice = ALL) -> np.ndarray:
        check_split(spec, split, index)
        stored_split, indices = index[split][category]
        images = read_stored(stored_split, indices[rows])
        if len(images):
            check_pixel_range(images, max_value, what=f"{spec}: {split} images of category {category!r}")
        return to_certain_pixels(images, max_value)

    counts = {split: {name: len(rows) for name, (_, rows) in parts.items()} for split, parts in index.items()}
    return Source(spec, tuple(index["train"]), shape, digest.hexdigest(), counts, read, values, max_value)


def _decode_images(
    whats: Sequence[str], examples: Iterator[Mapping[str, Any]], shape: Shape, image_size: int | None
) -> np.ndarray:
    """Decodes the images of records, which errors name by `whats`."""
    images = []
    for what, example in zip(whats, examples, strict=True):
        images.append(read_picture(io.BytesIO(example["image"]), shape[2], image_size=image_size, what=what))
        if images[-1].shape != shape:
            raise InputError(f"{what}: expected an image of shape {shape}, got {images[-1].shape}")
    return np.stack(images) if images else np.zeros((0, *shape), np.uint8)


def _builder(spec: str, name: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir, file_format=FORMAT)
    except tfds.core.DatasetNotFoundError as error:
        raise InputError(f"{spec}: expected a name and version in TensorFlow Datasets, got {name!r}") from error
    except Exception as error:  # a wrong name and damaged files raise many types
        reason = " ".join(str(error).split())
        raise InputError(
            f"{spec}: expected an available configuration, version and format, got an error ({reason})"
        ) from error


def _open_records(spec: str, builder: Any) -> dict[str, Sequence[Any]]:
    """Returns the records of each split. Their images are encoded."""
    import tensorflow_datasets as tfds

    if "train" not in builder.info.splits:
        raise InputError(f"{spec}: expected a split train, got {', '.join(builder.info.splits)}")
    splits = [split for split in ("train", "test") if split in builder.info.splits]
    decoders = {"image": tfds.decode.SkipDecoding()}
    try:
        return {split: builder.as_data_source(split, decoders=decoders) for split in splits}
    except (NotImplementedError, ValueError, OSError) as error:
        raise InputError(
            f"{spec}: expected records in the format {FORMAT}, got others in {builder.data_dir}: prepare them again"
        ) from error


def _image_shape(spec: str, features: Mapping[str, Any], image_size: int | None, grayscale: bool) -> Shape:
    import tensorflow_datasets as tfds

    feature_types = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    for feature, feature_type in feature_types.items():
        if feature not in features or not isinstance(features[feature], feature_type):
            raise InputError(f"{spec}: expected the features image and label, got {', '.join(features)}")
    height, width, channels = features["image"].shape
    if image_size is None and None in (height, width):
        raise InputError(f"{spec}: expected an image_size to scale images of different sizes to, got none")
    size = (height, width) if image_size is None else (image_size, image_size)
    return *size, 1 if grayscale or channels == 1 else 3


def _read_examples(data: Any, rows: Sequence[int]) -> Iterator[Mapping[str, Any]]:
    """Yields the records `rows` of a split, read in batches."""
    for start in range(0, len(rows), BATCH):
        try:
            examples = data.__getitems__([int(row) for row in rows[start : start + BATCH]])
            if any(example[key] is None for example in examples for key in ("image", "label")):
                raise ValueError("an empty record")
        except Exception as error:  # damaged files raise many types
            folder, reason = data.dataset_info.data_dir, " ".join(str(error).split())
            raise InputError(
                f"{folder}: expected intact records, got damaged ones ({reason}); remove the folder to prepare it again"
            ) from error
        yield from examples


def _read_labels(data: Any, digest: Any) -> np.ndarray:
    """Returns the labels `[n]` of all records, and adds labels and encoded images to the digest."""
    labels = np.empty(len(data), np.int64)
    for row, example in enumerate(_read_examples(data, range(len(data)))):
        labels[row] = example["label"]
        digest.update(b"%d %d " % (example["label"], len(example["image"])))
        digest.update(example["image"])
    return labels


def _index_records(spec: str, names: Sequence[str], labels: Mapping[str, np.ndarray]) -> RecordIndex:
    """Returns the records of each category, split into train and test images."""
    index: RecordIndex = {"train": {}, "test": {}}
    for label, name in enumerate(names):
        rows = {split: np.flatnonzero(values == label) for split, values in labels.items()}
        count = len(rows["train"])
        if not any(map(len, rows.values())):
            continue
        name = check_name(name)
        kept = count - max(1, count // TEST_PART) if "test" not in rows else count
        test = ("test", rows["test"]) if "test" in rows else ("train", rows["train"][kept:])
        if not kept or not len(test[1]):
            raise InputError(
                f"{spec}: category {name!r}: expected both train and test images, got {kept} and {len(test[1])}"
            )
        index["train"][name], index["test"][name] = ("train", rows["train"][:kept]), test
    if not index["train"]:
        raise InputError(f"{spec}: expected labeled images, got none")
    return index
