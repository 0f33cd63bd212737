"""Images: checks, flattening to rows of pixels, conversion, padding and batching."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.errors import InputError
from lifelong_cvae.model.rows import blocks

# (height, width, channels) of images, or (d,) of vectors.
Shape = tuple[int, ...]
# Values that may stand for white: of masks, of 16 gray levels, and of 8, 10, 12, 14 and 16 bits.
MAX_VALUES = (1, 16, 255, 1023, 4095, 16383, 65535)
# Images whose brightest pixel is at most this fraction of white are taken for images of another range.
DARK = 16 / 255
# Number of images from which on `mean_image` keeps single pixels: a mean of fewer would show the images themselves.
MIN_AVERAGED = 50
# Sizes of padded batches: each is this many times the one before, and serves at most this many batches.
SIZE_FACTOR, FEW_BATCHES = 16, 8


def check_image_shape(shape: Sequence[int]) -> Shape:
    """Returns `shape` as (height, width, channels), or (d,) of vectors; (height, width) means one channel.

    Raises:
        InputError: not one to three positive whole numbers.
    """
    if len(shape) not in (1, 2, 3) or any(int(s) != s or s < 1 for s in shape):
        raise InputError(
            "image shape: expected positive (height, width) or (height, width, channels), or (d,) of vectors, "
            f"got {tuple(shape)}"
        )
    return tuple(map(int, shape if len(shape) == 1 else (*shape, 1)[:3]))


class PixelValues(NamedTuple):
    """Values of pixels in a set of images.

    Attributes:
        low: smallest value.
        high: largest value.
        is_float: whether the pixels are of a float type.
        is_whole: whether all values are whole numbers.
    """

    low: float
    high: float
    is_float: bool
    is_whole: bool

    def __str__(self) -> str:
        kind = "floats" if self.is_float else "whole numbers"
        return f"{kind} from {self.low:g} to {self.high:g}"

    def merge(self, other: PixelValues) -> PixelValues:
        """Returns the values of both sets together."""
        return PixelValues(
            min(self.low, other.low),
            max(self.high, other.high),
            self.is_float or other.is_float,
            self.is_whole and other.is_whole,
        )


def pixel_values(images: np.ndarray, *, what: str = "images") -> PixelValues:
    """Summarizes the pixels of images, at least one.

    Raises:
        InputError: a type that is not of real numbers, or values that are not finite.
    """
    if images.dtype.kind not in "biu" and not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"{what}: expected whole numbers or floats, got {images.dtype}")
    is_float = images.dtype.kind not in "biu"
    if is_float and not np.isfinite(images).all():
        raise InputError(f"{what}: expected finite values, got NaN or infinity in image {_first(~np.isfinite(images))}")
    high = float(images.max())
    is_whole = not is_float or (high > 1 and bool((images == np.rint(images)).all()))
    return PixelValues(float(images.min()), high, is_float, is_whole)


def find_max_value(values: PixelValues, *, what: str = "images") -> float | None:
    """Returns the value that stands for white, or None if it is that of the type: 255, or 1 for floats.

    It is the smallest of `MAX_VALUES` that no pixel exceeds. Values up to 16 of whole numbers, such as those of masks
    and of scikit-learn's digits, are therefore not taken for almost black ones.

    Raises:
        InputError: the values fit none, or float values leave more than one possibility.
    """
    hint = "; scale them to [0, 1], or give max_value, the value that stands for white"
    if values.low < 0:
        raise InputError(f"{what}: expected no value below 0, got {values}{hint}")
    if values.is_float and values.high <= 1:
        return None
    if values.high == 0 or (not values.is_float and MAX_VALUES[1] < values.high <= 255):
        return None
    fits = [value for value in MAX_VALUES if values.high <= value]
    if not fits or (values.is_float and not values.is_whole and not MAX_VALUES[1] < values.high <= 255):
        raise InputError(f"{what}: expected values up to 1, 16, 255 or 65535, got {values}{hint}")
    return float(fits[0])


def flatten_images(
    images: Any, image_shape: Shape, *, max_value: float | None = None, refuse_dark: bool = False, what: str = "images"
) -> Any:
    """Checks images and flattens them to `[n, h * w * c]`, uint8 or float32 in [0, 1].

    Inside a `jit` of the caller the values are unknown: only type and shape are checked there.

    Args:
        images: whole numbers up to `max_value`, or floats in [0, 1] or up to `max_value`; `[n, h, w, c]`,
            `[n, c, h, w]`, or `[n, h, w]` for one channel.
        image_shape: expected (h, w, c).
        max_value: value that stands for white. None: 255 for whole numbers, 1 for floats.
        refuse_dark: whether to refuse whole numbers so small that they probably have another range (`DARK`).
        what: name of the images in error messages.

    Raises:
        InputError: another type, rank or size, or values that are not finite, out of range, or too small.
    """
    if not isinstance(images, jax.core.Tracer):
        images = np.asarray(images)
    is_float = jnp.issubdtype(images.dtype, jnp.floating)
    if not is_float and images.dtype.kind not in "biu":
        raise InputError(f"{what}: expected uint8 or float in [0, 1], got {images.dtype}")
    height, width, channels = image_shape
    if images.shape[1:] == (channels, height, width) != image_shape:
        images = images.transpose(0, 2, 3, 1)
    if images.ndim not in (3, 4) or (*images.shape[1:], 1)[:3] != image_shape:
        raise InputError(f"{what}: expected shape [n, {', '.join(map(str, image_shape))}], got {images.shape}")
    rows, limit = images.reshape(len(images), math.prod(image_shape)), _limit(images, max_value)
    if not isinstance(images, jax.core.Tracer) and images.size:
        values = check_pixel_range(rows, max_value, what=what)
        if refuse_dark and not is_float and 0 < values.high <= DARK * limit:
            raise InputError(
                f"{what}: expected values from 0 to {limit:g}, got {values}, which would be almost black; "
                "scale them to floats in [0, 1]"
            )
        is_float = is_float and values.high <= 1
    if is_float:
        return rows.astype(np.float32)
    return rows if rows.dtype == np.uint8 and limit == 255 else rows.astype(np.float32) / np.float32(limit)


def unify_types(images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Converts images by category, uint8 or float32 in [0, 1], to float32 unless they all are uint8."""
    if len({values.dtype for values in images.values()}) < 2:
        return dict(images)
    return {name: np.asarray(to_float(values[:]), np.float32) for name, values in images.items()}


def to_certain_pixels(images: np.ndarray, max_value: float | None) -> np.ndarray:
    """Brings pixels of known `max_value` to what `flatten_images` reads without it, uint8 or float32.

    Almost black images become floats, whose meaning is certain.
    """
    limit = _limit(images, max_value)
    if images.dtype == np.uint8 and limit == 255 and not 0 < images.max(initial=0) <= DARK * limit:
        return images
    return images.astype(np.float32) / np.float32(limit)


def _limit(images: Any, max_value: float | None) -> float:
    return max_value or (1.0 if jnp.issubdtype(images.dtype, jnp.floating) else 255.0)


def move_channels_last(images: np.ndarray) -> np.ndarray:
    """Returns images `[n, h, w, c]`, given so, without channels, or certainly as `[n, c, h, w]`.

    The order is certain if only the second axis can be that of channels: of length 1, 3 or 4, and the last two longer.
    """
    if images.ndim == 3:
        return images[..., None]
    is_first = images.ndim == 4 and images.shape[1] in (1, 3, 4) and min(images.shape[2:]) > 4
    return images.transpose(0, 2, 3, 1) if is_first else images


def check_pixel_range(images: np.ndarray, max_value: float | None, *, what: str = "images") -> PixelValues:
    """Raises InputError unless all pixels are from 0 to `max_value`; None stands for 255, or 1 for floats.

    Returns their values.
    """
    values = pixel_values(images, what=what)
    limit = _limit(images, max_value)
    if values.low < 0 or values.high > limit:
        index = _first((images < 0) | (images > limit))
        if values.is_float and limit == 1:
            raise InputError(f"{what}: expected uint8 or float in [0, 1], got float outside [0, 1] in image {index}")
        raise InputError(f"{what}: expected values from 0 to {limit:g}, got {values} in image {index}")
    return values


def _first(mask: np.ndarray) -> int:
    """Returns the index of the first row of `mask` that holds a True."""
    return int(np.argmax(mask.reshape(len(mask), -1).any(axis=1)))


def to_float(rows: jax.Array) -> jax.Array:
    """Converts pixels of any shape to float32 in [0, 1]. Floats are returned unchanged."""
    return rows.astype(jnp.float32) / 255 if rows.dtype == jnp.uint8 else rows


def to_uint8(images: Any) -> np.ndarray:
    """Rounds pixels of any shape from [0, 1] to uint8. Images of type uint8 are returned unchanged."""
    images = np.asarray(images)
    return images if images.dtype == np.uint8 else np.rint(255 * images).astype(np.uint8)


def power_of_two(count: int, minimum: int) -> int:
    """Returns the smallest power of two that is at least `count` and at least `minimum`, a power of two."""
    return max(minimum, 1 << max(count - 1, 0).bit_length())


def pad_rows(rows: Any, length: int) -> Any:
    """Appends zeros along the first axis up to `length`."""
    missing = length - rows.shape[0]
    pad = jnp.pad if isinstance(rows, jax.core.Tracer) else np.pad
    return pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1)) if missing else rows


def aligned_zeros(shape: Shape, dtype: Any) -> np.ndarray:
    """Returns zeros that a CPU device shares instead of copying: they take no memory until they are set."""
    alignment, size = 64, math.prod(shape) * np.dtype(dtype).itemsize
    values = np.zeros(size + alignment, np.uint8)
    start = -values.ctypes.data % alignment
    return values[start : start + size].view(dtype).reshape(shape)


def every_nth(count: int, n: int) -> np.ndarray:
    """Returns the mask of every n-th of `count` rows, from the n-th on: bool `[count]`."""
    return np.arange(count) % n == n - 1


def batch_size(count: int, smallest: int, largest: int) -> int:
    """Returns the size of the `padded_batches` of `count` rows."""
    size = smallest
    while size < largest and count > FEW_BATCHES * size:
        size *= SIZE_FACTOR
    return min(size, largest)


def padded_batches(rows: Any, smallest: int, largest: int) -> Iterator[tuple[int, jax.Array]]:
    """Splits rows into batches of one size, padded with zeros, so that few sizes are compiled.

    Args:
        rows: `[n, ...]`.
        smallest: size of a batch for the fewest rows. Each further size is `SIZE_FACTOR` times as large; the smallest
            one that needs at most `FEW_BATCHES` batches is taken.
        largest: largest size.

    Yields:
        Index of the first row, and the batch.
    """
    size = batch_size(len(rows), smallest, largest)
    for start in range(0, len(rows), size):
        yield start, jax.device_put(pad_rows(rows[start : start + size], size))


def concat_unpadded(parts: Sequence[jax.Array], rows: int, columns: int) -> jax.Array:
    """Concatenates results of `padded_batches` and cuts off the padding: `[rows, columns]`.

    Outside a `jit` of the caller this runs on the host, so that no further size is compiled.
    """
    if not parts:
        return jnp.zeros((rows, columns))
    if any(isinstance(part, jax.core.Tracer) for part in parts):
        return jnp.concatenate(parts)[:rows, :columns]
    return jax.device_put(np.concatenate(jax.device_get(list(parts)))[:rows, :columns])


def split_by_category(images: Mapping[str, Any], values: Any) -> dict[str, np.ndarray]:
    """Splits values of all images together, `[n, ...]`, into those of each category."""
    ends = np.cumsum([len(x) for x in images.values()])[:-1]
    return dict(zip(images, np.split(np.asarray(values), ends), strict=True))


def mean_image(rows: Any, *, is_vector: bool = False) -> np.ndarray:
    """Returns the mean of images `[n, pixels]`, in [0, 1], or of vectors.

    The mean of fewer than `MIN_AVERAGED` images is one constant for all pixels, since it must not show any image; that
    of fewer vectors is 0, the mean of all.
    """
    # Of the means of blocks, since all rows may not fit into memory.
    means = [rows[block].mean(axis=0, dtype=np.float32) for block in blocks(rows)]
    mean = np.average(means, axis=0, weights=[len(range(len(rows))[block]) for block in blocks(rows)])
    mean = mean.astype(np.float32)
    if is_vector:
        return mean * np.float32(len(rows) >= MIN_AVERAGED)
    mean /= np.float32(255 if rows.dtype == np.uint8 else 1)
    return mean if len(rows) >= MIN_AVERAGED else np.full_like(mean, mean.mean())
