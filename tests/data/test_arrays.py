"""Labels, axes and pixel values as people store them."""

import numpy as np
import pytest

from lifelong_cvae.data import from_arrays
from lifelong_cvae.data.arrays import to_labels
from lifelong_cvae.errors import InputError
from tests.conftest import one_line
from tests.data.sources import numbered_arrays

PLAIN = np.array([2, 0, 1, 1])


@pytest.mark.parametrize(
    "stored",
    [
        PLAIN.astype(np.uint8),
        PLAIN[:, None],
        PLAIN.astype(np.float64),
        PLAIN[:, None].astype(np.float32),
        np.eye(3)[PLAIN],
        np.eye(3, dtype=bool)[PLAIN],
        np.eye(3, dtype=np.uint8)[PLAIN],
    ],
    ids=["uint8", "column", "floats", "column of floats", "one-hot", "one-hot bool", "one-hot uint8"],
)
def test_to_labels_reads_whole_numbers(stored):
    labels = to_labels(stored, what="labels")
    assert labels.dtype.kind in "iu"
    assert labels.tolist() == PLAIN.tolist()


@pytest.mark.parametrize(
    "stored",
    [
        np.array(["cat", "été"]),
        np.array([["cat"], ["été"]]),
        np.array([b"cat", "été".encode()]),
        np.array(["cat", "été"], object),
        np.array([b"cat", "été"], object),
        np.array(["cat", "e\u0301te\u0301"]),
    ],
    ids=["texts", "column", "bytes", "objects", "mixed objects", "NFD"],
)
def test_to_labels_reads_texts(stored):
    assert to_labels(stored, what="labels").tolist() == ["cat", "été"]


def test_to_labels_names_booleans():
    assert to_labels([True, False], what="labels").tolist() == ["True", "False"]


@pytest.mark.parametrize(
    "stored",
    [[0.5, 1], [np.nan, 1], [[0, 1], [1, 1]], [[0, 0], [0, 1]], [[0.2, 0.8]], [b"\xff"], [None, "a"], [1j], 3, [[[1]]]],
)
def test_to_labels_refuses_others(stored):
    with pytest.raises(InputError) as error:
        to_labels(np.asarray(stored), what="mine: train labels")
    one_line(error, "mine: train labels: expected ")


def test_from_arrays_merges_equal_names_of_different_unicode_forms():
    names = {2: "e\u0301", 7: "é", 10: "b"}
    labels = {key: [names[label] for label in numbered_arrays()[key]] for key in ("train_labels", "test_labels")}
    source = from_arrays("mine", **numbered_arrays(**labels))
    assert source.counts == {"train": {"b": 3, "é": 6}, "test": {"b": 2, "é": 2}}


def shaped_arrays(images):
    """Arguments of `from_arrays` with the same four images for training and test."""
    labels = [0, 1, 1, 0]
    return {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_from_arrays_moves_certain_channels_last(channels):
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 6, channels), np.uint8)
    source = from_arrays("mine", **shaped_arrays(images.transpose(0, 3, 1, 2)))
    assert source.image_shape == (5, 6, channels)
    np.testing.assert_array_equal(source.read("train", "1"), images[[1, 2]])


@pytest.mark.parametrize("shape", [(3, 4, 9), (2, 9, 9), (3, 9, 3)])
def test_from_arrays_keeps_axes_that_may_be_in_order(shape):
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)
    assert from_arrays("mine", **shaped_arrays(images)).image_shape == shape


@pytest.mark.parametrize(
    ("stored_type", "white"),
    [(np.uint8, 1), (bool, 1), (np.int64, 16), (np.uint8, 16), (np.float64, 16), (np.float32, 255), (np.uint16, 4095)],
)
def test_from_arrays_finds_the_value_of_white(stored_type, white):
    gray = np.random.default_rng(0).integers(0, white + 1, (4, 5, 5))
    gray[:, 0, 0] = white
    source = from_arrays("mine", **shaped_arrays(gray.astype(stored_type)))
    assert source.max_value == white
    images = source.read("train", "1")
    assert images.dtype == np.float32
    np.testing.assert_allclose(images[..., 0], gray[[1, 2]] / white, rtol=1e-6)


@pytest.mark.parametrize("stored_type", [np.uint8, np.int32])
def test_from_arrays_takes_255_as_white_of_brighter_whole_numbers(stored_type):
    gray = np.random.default_rng(0).integers(0, 41, (4, 5, 5)).astype(stored_type)
    source = from_arrays("mine", **shaped_arrays(gray))
    assert source.max_value is None
    assert (source.read("train", "1").dtype == np.uint8) == (stored_type == np.uint8)
    np.testing.assert_allclose(
        source.read("train", "0") / (1 if stored_type == np.int32 else 255), gray[[0, 3]][..., None] / 255, rtol=1e-6
    )


def test_from_arrays_takes_the_given_value_of_white():
    gray = np.full((4, 5, 5), 8, np.uint8)
    for white in (255, 10):
        images = from_arrays("mine", **shaped_arrays(gray), max_value=white).read("train", "0")
        np.testing.assert_allclose(images, np.full((2, 5, 5, 1), 8 / white), rtol=1e-6)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.linspace(-1, 1, 100).reshape(4, 5, 5), "expected no value below 0, got floats from -1 to 1"),
        (np.linspace(0, 1.2, 100).reshape(4, 5, 5), "got floats from 0 to 1.2"),
        (np.full((4, 5, 5), 70000), "got whole numbers from 70000 to 70000"),
        (np.full((4, 5, 5), 1 + 2j), "complex128"),
        (np.full((4, 5, 5), np.inf), "NaN or infinity in image 0"),
    ],
)
def test_from_arrays_refuses_values_without_a_certain_meaning(images, words):
    with pytest.raises(InputError) as error:
        from_arrays("mine", **shaped_arrays(images))
    one_line(error, "mine: train images: ", words)


def test_from_arrays_refuses_test_images_beyond_the_value_of_white():
    arrays = shaped_arrays(np.eye(4, 25, dtype=np.uint8).reshape(4, 5, 5))
    arrays["test_images"] = 255 * arrays["test_images"]
    with pytest.raises(InputError) as error:
        from_arrays("mine", **arrays)
    one_line(error, "mine: test images: expected values from 0 to 1, got whole numbers from 0 to 255 in image 0")


def test_read_keeps_the_meaning_of_almost_black_categories():
    gray = np.stack([np.full((5, 5), value, np.uint8) for value in (200, 3, 3, 210)])
    source = from_arrays("mine", **shaped_arrays(gray))
    assert source.read("train", "0").dtype == np.uint8
    np.testing.assert_allclose(source.read("train", "1"), np.full((2, 5, 5, 1), 3 / 255), rtol=1e-6)
