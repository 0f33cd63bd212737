"""Images: checks, flattening to rows of pixels, conversion, padding and batching."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.errors import InputError

Shape = tuple[int, int, int]
# Number of images from which on `mean_image` keeps single pixels: a mean of fewer would show the images themselves.
MIN_AVERAGED = 50


def check_image_shape(shape: Sequence[int]) -> Shape:
    """Returns `shape` as (height, width, channels); (height, width) means one channel.

    Raises:
        InputError: not two or three positive whole numbers.
    """
    if len(shape) not in (2, 3) or any(int(s) != s or s < 1 for s in shape):
        raise InputError(
            f"image shape: expected positive (height, width) or (height, width, channels), got {tuple(shape)}"
        )
    height, width, channels = (*shape, 1)[:3]
    return int(height), int(width), int(channels)


def flatten_images(images: Any, image_shape: Shape, *, what: str = "images") -> Any:
    """Checks images and flattens them to `[n, h * w * c]`, uint8 or float32.

    Inside a `jit` of the caller the values are unknown: only type and shape are checked there.

    Args:
        images: uint8, or float in [0, 1]; `[n, h, w, c]`, or `[n, h, w]` for one channel.
        image_shape: expected (h, w, c).
        what: name of the images in error messages.

    Raises:
        InputError: another type, rank or size, or values that are not finite or out of range.
    """
    traced = isinstance(images, jax.core.Tracer)
    if not traced:
        images = np.asarray(images)
    if images.dtype != np.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"{what}: expected uint8 or float in [0, 1], got {images.dtype}")
    if images.ndim not in (3, 4) or (*images.shape[1:], 1)[:3] != image_shape:
        raise InputError(f"{what}: expected shape [n, {', '.join(map(str, image_shape))}], got {images.shape}")
    rows = images.reshape(images.shape[0], math.prod(image_shape))
    if rows.dtype == np.uint8:
        return rows
    if not traced and rows.size:
        if not np.isfinite(rows).all():
            index = _first(~np.isfinite(rows))
            raise InputError(f"{what}: expected finite values, got NaN or infinity in image {index}")
        if rows.min() < 0 or rows.max() > 1:
            index = _first((rows < 0) | (rows > 1))
            raise InputError(f"{what}: expected uint8 or float in [0, 1], got float outside [0, 1] in image {index}")
    return rows.astype(np.float32)


def _first(mask: np.ndarray) -> int:
    """Returns the index of the first row of `mask` that holds a True."""
    return int(np.argmax(mask.any(axis=1)))


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


def padded_batches(rows: Any, smallest: int, largest: int) -> Iterator[tuple[int, jax.Array]]:
    """Splits rows into batches of one size, padded with zeros, so that few sizes are compiled.

    Args:
        rows: `[n, ...]`.
        smallest: smallest size of a batch, a power of two.
        largest: size of a batch if there are at least as many rows; with fewer rows the size is a power of two.

    Yields:
        Index of the first row, and the batch.
    """
    size = min(largest, power_of_two(len(rows), smallest))
    for start in range(0, len(rows), size):
        yield start, jnp.asarray(pad_rows(rows[start : start + size], size))


def concat_unpadded(parts: Sequence[jax.Array], rows: int, columns: int) -> jax.Array:
    """Concatenates results of `padded_batches` and cuts off the padding: `[rows, columns]`.

    Outside a `jit` of the caller this runs on the host, so that no further size is compiled.
    """
    if not parts:
        return jnp.zeros((rows, columns))
    if any(isinstance(part, jax.core.Tracer) for part in parts):
        return jnp.concatenate(parts)[:rows, :columns]
    return jax.device_put(np.concatenate(parts)[:rows, :columns])


def mean_image(rows: np.ndarray) -> np.ndarray:
    """Returns the mean of images `[n, pixels]`, in [0, 1].

    The mean of fewer than `MIN_AVERAGED` images is one constant for all pixels, since it must not show any image.
    """
    mean = rows.mean(axis=0, dtype=np.float32) / np.float32(255 if rows.dtype == np.uint8 else 1)
    return mean if len(rows) >= MIN_AVERAGED else np.full_like(mean, mean.mean())
