"""Small arrays in which every image shows its number, and functions to compare sources."""

import numpy as np
import pytest

from lifelong_cvae.data import open_source
from lifelong_cvae.errors import InputError


def numbered_images(*numbers):
    """Images of 2 x 3 whose pixels all equal 100 plus the image's number, uint8 `[n, 2, 3]`."""
    return np.array([np.full((2, 3), 100 + number) for number in numbers], np.uint8)


def numbers_of(images):
    """Inverse of `numbered_images`, for `[n, 2, 3, 1]`."""
    assert images.shape[1:] == (2, 3, 1)
    assert (images == images[:, :1, :1]).all()
    return [int(value) - 100 for value in images[:, 0, 0, 0]]


def numbered_arrays(**changes):
    """Arguments of `from_arrays`: three categories of unequal sizes, their images interleaved."""
    arrays = {
        "train_images": numbered_images(0, 1, 2, 3, 4, 5, 6, 7, 8),
        "train_labels": np.array([2, 10, 2, 2, 7, 10, 2, 2, 10], np.uint8),
        "test_images": numbered_images(20, 21, 22, 23),
        "test_labels": np.array([10, 7, 2, 10], np.uint8),
    }
    return {**arrays, **changes}


# Numbers of the images in `numbered_arrays()`, by split and category.
NUMBERS = {"train": {"2": [0, 2, 3, 6, 7], "7": [4], "10": [1, 5, 8]}, "test": {"2": [22], "7": [21], "10": [20, 23]}}


def read_numbers(source):
    """Numbers of all images of a source, by split and category."""
    return {
        split: {category: numbers_of(source.read(split, category)) for category in source.categories}
        for split in ("train", "test")
    }


def sorted_contents(images):
    """Contents of images, sorted, to compare images in different orders."""
    return sorted(image.tobytes() for image in images)


def open_error(spec, options):
    """The InputError that opening a source raises, as `pytest.raises` returns it."""
    with pytest.raises(InputError) as error:
        open_source(spec, options)
    return error
