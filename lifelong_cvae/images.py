"""Images as the library takes them: checked, and flattened to rows of pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.errors import InputError

Shape = tuple[int, int, int]
MIN_AVERAGED = 50


def check_image_shape(shape: Sequence[int]) -> Shape:
    """`shape` as (height, width, channels); (height, width) means one channel.

    Raises:
        InputError: not two or three positive whole numbers.
    """
    if len(shape) not in (2, 3) or any(int(s) != s or s < 1 for s in shape):
        raise InputError(f"image shape {tuple(shape)}: (height, width) or (height, width, channels) is expected")
    height, width, channels = (*shape, 1)[:3]
    return int(height), int(width), int(channels)


def flatten_images(images: Any, image_shape: Shape, *, what: str = "images") -> Any:
    """Checks images and flattens each to a row.

    Inside a `jit` of the caller the values cannot be seen: there only type and shape are checked.

    Args:
        images: uint8, or float in [0, 1]; `[n, h, w, c]`, or `[n, h, w]` for one channel.
        image_shape: (h, w, c) that is expected.
        what: how messages call these images.

    Returns:
        `[n, h * w * c]`, uint8 or float32.

    Raises:
        InputError: another type, rank or size; values that are not finite or out of range.
    """
    traced = isinstance(images, jax.core.Tracer)
    if not traced:
        images = np.asarray(images)
    if images.dtype != np.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"{what}: uint8, or float in [0, 1], is expected, got {images.dtype}")
    if images.ndim not in (3, 4) or (*images.shape[1:], 1)[:3] != image_shape:
        raise InputError(f"{what}: shape [n, {', '.join(map(str, image_shape))}] is expected, got {images.shape}")
    rows = images.reshape(images.shape[0], math.prod(image_shape))
    if rows.dtype == np.uint8:
        return rows
    if not traced and rows.size:
        if not np.isfinite(rows).all():
            raise InputError(f"{what}: image {_first(~np.isfinite(rows))} holds NaN or infinity, finite is expected")
        if rows.min() < 0 or rows.max() > 1:
            bad = _first((rows < 0) | (rows > 1))
            raise InputError(f"{what}: image {bad} has values outside [0, 1]: scale them, or pass uint8")
    return rows.astype(np.float32)


def _first(wrong: np.ndarray) -> int:
    return int(np.argmax(wrong.any(axis=1)))


def to_float(rows: jax.Array) -> jax.Array:
    """Pixels as float32 in [0, 1], from uint8 or from float that is there already. Any shape."""
    return rows.astype(jnp.float32) / 255 if rows.dtype == jnp.uint8 else rows


def power_of_two(count: int, minimum: int) -> int:
    """The smallest power of two times `minimum` (itself a power of two) that is at least `count`."""
    return max(minimum, 1 << max(count - 1, 0).bit_length())


def pad_rows(rows: Any, length: int) -> Any:
    """Zeros appended along the first axis up to `length`."""
    missing = length - rows.shape[0]
    pad = jnp.pad if isinstance(rows, jax.core.Tracer) else np.pad
    return pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1)) if missing else rows


def padded_batches(rows: Any, smallest: int, largest: int) -> Iterator[tuple[int, jax.Array]]:
    """Rows in blocks of one size, so that few sizes are compiled: start, and rows padded with zeros.

    Args:
        rows: `[n, ...]`.
        smallest: least size of a block, a power of two.
        largest: size of a block where there are as many rows; otherwise a power of two.
    """
    size = min(largest, power_of_two(len(rows), smallest))
    for start in range(0, len(rows), size):
        yield start, jnp.asarray(pad_rows(rows[start : start + size], size))


def concat_unpadded(parts: Sequence[jax.Array], rows: int, columns: int) -> jax.Array:
    """What was computed of `blocks`, one after another, without what stands for padding: `[rows, columns]`.

    Outside a `jit` of the caller by the host, which compiles nothing for yet another size.
    """
    if not parts:
        return jnp.zeros((rows, columns))
    if any(isinstance(part, jax.core.Tracer) for part in parts):
        return jnp.concatenate(parts)[:rows, :columns]
    return jax.device_put(np.concatenate(parts)[:rows, :columns])


def mean_image(rows: np.ndarray) -> np.ndarray:
    """Average of images `[n, pixels]`, in [0, 1]; of few also over the pixels, for it must not show any."""
    mean = rows.mean(axis=0, dtype=np.float32) / np.float32(255 if rows.dtype == np.uint8 else 1)
    return mean if len(rows) >= MIN_AVERAGED else np.full_like(mean, mean.mean())
