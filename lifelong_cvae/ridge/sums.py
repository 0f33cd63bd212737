"""Exact sums of features: whole numbers, whose order of addition has no effect on any bit.

A batch's products are added in float32, where they are exact (`features.BATCH_SIZES`), batches in int32, and categories
in fixed-point numbers of 48 or 64 bits, which two arrays hold. A Gram matrix is symmetric: of each block of rows, only
the columns from its first row on are stored.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import Shape, padded_batches
from lifelong_cvae.ridge import features

# Blocks of rows of a Gram matrix.
ROW_BLOCKS = 8
# Bits after the binary point of Gram matrices and of vectors. The mean needs more, since its square is subtracted.
GRAM_BITS, VECTOR_BITS = 20, 32
# Batches whose int32 sums cannot overflow: 2^24 * 127 < 2^31.
MAX_BATCHES = 127
# Numbers that are handled at once on the host.
PART_LENGTH = 2**18
TOO_MANY = "sums of features: expected at most 8,000 visits of categories, got more"

# Fixed-point numbers in two arrays: `high` int32, and `low` uint16 (Gram matrices) or uint32 (vectors).
ExactSum = dict[str, Any]


def zeros_gram(num_features: int) -> ExactSum:
    """Returns a Gram matrix of no images, `[packed]`."""
    return _zeros(packed_size(num_features), np.uint16)


def zeros_vector(length: int) -> ExactSum:
    """Returns the sums of features of no images, `[length]`."""
    return _zeros(length, np.uint32)


def _zeros(length: int, low: Any) -> ExactSum:
    # From the host, where nothing is compiled.
    return jax.device_put({"high": np.zeros(length, np.int32), "low": np.zeros(length, low)})


def _encode(length: int, values: Callable[[slice], np.ndarray], low: Any) -> ExactSum:
    """Splits int64 numbers, which a function returns part by part, so that few are in memory at once.

    Raises:
        InputError: a number is too large, which takes more than 8,000 visits of categories.
    """
    bits = 8 * np.dtype(low).itemsize
    exact = {"high": np.empty(length, np.int32), "low": np.empty(length, low)}
    for start in range(0, length, PART_LENGTH):
        part = slice(start, min(start + PART_LENGTH, length))
        numbers = values(part)
        high = numbers >> bits
        if max(high.max(), ~high.min()) >= 2**31:
            raise InputError(TOO_MANY)
        exact["high"][part], exact["low"][part] = high, numbers & (2**bits - 1)
    return exact


def decode(exact: ExactSum, part: slice = slice(None)) -> np.ndarray:
    """Returns a part of an exact sum as int64, in units of its last bit."""
    high, low = np.asarray(exact["high"])[part], np.asarray(exact["low"])[part]
    return (high.astype(np.int64) << 8 * low.itemsize) + low


def add(first: ExactSum, second: ExactSum) -> ExactSum:
    """Adds two exact sums on the host.

    Raises:
        InputError: as in `_encode`.
    """
    first, second = jax.device_get((first, second))
    low = first["low"] + second["low"]
    high = first["high"] + second["high"]
    high += low < second["low"]  # the carry
    if high.size and (((first["high"] ^ high) & (second["high"] ^ high)) < 0).any():
        raise InputError(TOO_MANY)
    return {"high": high, "low": low}


def row_blocks(num_features: int) -> list[slice]:
    """Returns the rows of each block of a Gram matrix."""
    height = -(-num_features // ROW_BLOCKS)
    return [slice(start, min(start + height, num_features)) for start in range(0, num_features, height)]


def packed_size(num_features: int) -> int:
    """Returns the number of stored values of a Gram matrix."""
    return max(part.stop for _, part in _packed_blocks(num_features))


def gram_products(phi: jax.Array) -> list[jax.Array]:
    """Computes the stored blocks of phi' phi of features `[n, features]`.

    A CPU computes these blocks only, which takes little more than half the work; other devices one product.
    """
    blocks = row_blocks(phi.shape[1])

    def by_block(phi: jax.Array) -> list[jax.Array]:
        return [phi[:, rows].T @ phi[:, rows.start :] for rows in blocks]

    def at_once(phi: jax.Array) -> list[jax.Array]:
        gram = phi.T @ phi
        return [gram[rows, rows.start :] for rows in blocks]

    with jax.default_matmul_precision("float32"):
        return jax.lax.platform_dependent(phi, cpu=by_block, default=at_once)


def gram_blocks(
    added: Sequence[ExactSum], num_features: int, *, subtracted: Sequence[ExactSum] = ()
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields the rows of each block of a sum of Gram matrices, and the block from its first row on.

    Args:
        added: matrices `[packed]` that are added.
        num_features: size of the full matrix.
        subtracted: matrices `[packed]` that are subtracted.

    Yields:
        rows, and `[rows, features - rows.start]`: exact, as float64 in units of 2^-GRAM_BITS.
    """
    grams = [*((gram, 1.0) for gram in added), *((gram, -1.0) for gram in subtracted)]
    grams = [(jax.device_get(gram), sign) for gram, sign in grams]
    for rows, part in _packed_blocks(num_features):
        total = np.zeros(part.stop - part.start)
        for gram, sign in grams:
            total += gram["high"][part] * (sign * 2.0**16)
            total += gram["low"][part] * sign
        yield rows, total.reshape(rows.stop - rows.start, -1)


def _packed_blocks(num_features: int) -> Iterator[tuple[slice, slice]]:
    """Yields the rows of each block and its part of the packed matrix."""
    start = 0
    for rows in row_blocks(num_features):
        stop = start + (rows.stop - rows.start) * (num_features - rows.start)
        yield rows, slice(start, stop)
        start = stop


def strided_gram(gram: ExactSum, num_features: int, stride: int) -> ExactSum:
    """Selects the rows and columns 0, stride, 2 stride, ... of a Gram matrix `[packed]`, packed again."""
    gram, size = jax.device_get(gram), -(-num_features // stride)
    return {key: _strided(values, num_features, stride, size) for key, values in gram.items()}


def _strided(values: np.ndarray, num_features: int, stride: int, size: int) -> np.ndarray:
    matrix = np.zeros((size, size), values.dtype)
    for rows, part in _packed_blocks(num_features):
        first = -(-rows.start // stride)
        offset = first * stride - rows.start
        block = values[part].reshape(rows.stop - rows.start, -1)[offset::stride, offset::stride]
        matrix[first : first + len(block), first:] = block
    symmetric = np.triu(matrix) + np.triu(matrix, 1).T
    return np.concatenate([symmetric[rows, rows.start :].ravel() for rows in row_blocks(size)])


def strided_vector(vector: ExactSum, stride: int) -> ExactSum:
    """Selects the features 0, stride, 2 stride, ... of a vector `[features + 1]`, and its last value."""
    selected = select_features(decode(vector), stride)
    return _encode(len(selected), selected.__getitem__, np.uint32)


def select_features(values: np.ndarray, stride: int) -> np.ndarray:
    """Selects the rows 0, stride, 2 stride, ... of values `[features + 1, ...]`, and the last row."""
    return np.concatenate([values[:-1:stride], values[-1:]])


def compute_sums(
    dictionary: features.Dictionary,
    expand: jax.Array,
    rows: np.ndarray,
    weight: int,
    *,
    image_shape: Shape,
    settings: ClosedFormConfig,
) -> tuple[ExactSum, ExactSum]:
    """Computes the sums of phi phi' `[packed]` and of phi `[features + 1]`, divided by a number of images.

    Args:
        dictionary: from `features.make_dictionary`.
        expand: from `features.expansion_matrix`.
        rows: images `[n, pixels]`, uint8 or float in [0, 1].
        weight: number to divide by.
        image_shape: shape of an image.
        settings: settings of the features.

    Returns:
        The Gram matrix, and the vector, whose last value is n / weight.
    """
    size = features.feature_sizes(settings, image_shape).features
    accumulate = partial(_accumulate, dictionary, expand, image_shape=image_shape, settings=settings)
    batches, grams, vector = list(padded_batches(rows, *features.BATCH_SIZES)), [], np.zeros(size, np.int64)
    for first in range(0, len(batches), MAX_BATCHES):
        totals = _zero_totals(size)
        for start, batch in batches[first : first + MAX_BATCHES]:
            totals = accumulate(totals, batch, np.int32(len(rows) - start))
        *blocks, last = jax.device_get(totals)
        grams.append(np.concatenate([block.ravel() for block in blocks]))
        vector += last
        del totals, blocks
    mean = np.asarray([_divide(int(total), weight, VECTOR_BITS) for total in (*vector, len(rows))], np.int64)
    return (
        _encode(packed_size(size), lambda part: _divide(_sum_parts(grams, part), weight, GRAM_BITS), np.uint16),
        _encode(len(mean), mean.__getitem__, np.uint32),
    )


@partial(jax.jit, static_argnums=0)
def _zero_totals(size: int) -> list[jax.Array]:
    """Returns int32 zeros: the stored blocks of a Gram matrix, and a vector."""
    shapes = [(part.stop - part.start, size - part.start) for part in row_blocks(size)]
    return [jnp.zeros(shape, jnp.int32) for shape in (*shapes, (size,))]


def _sum_parts(arrays: Sequence[np.ndarray], part: slice) -> np.ndarray:
    return sum((np.int64(array[part]) for array in arrays), np.zeros(part.stop - part.start, np.int64))


def _divide(total: Any, weight: int, bits: int) -> Any:
    """Divides whole numbers, rounded to the nearest multiple of 2^-bits, in units of 2^-bits."""
    return ((total << bits + 1) + weight) // (2 * weight)


@partial(jax.jit, static_argnames=("image_shape", "settings"), donate_argnums=(2,))
def _accumulate(
    dictionary: features.Dictionary,
    expand: jax.Array,
    totals: list[jax.Array],
    rows: jax.Array,
    valid: jax.Array,
    *,
    image_shape: Shape,
    settings: ClosedFormConfig,
) -> list[jax.Array]:
    """Adds the products and the features of the first `valid` rows to int32 sums."""
    phi = features.extract(dictionary, expand, rows, image_shape=image_shape, settings=settings)
    phi = jnp.where(jnp.arange(len(rows))[:, None] < valid, phi, 0.0)
    added = [*gram_products(phi), phi.sum(axis=0)]
    return [total + values.astype(jnp.int32) for total, values in zip(totals, added, strict=True)]
