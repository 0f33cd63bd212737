"""Exact sums of features, whose order of addition has no effect on any bit.

A batch's products are added in float32, where they are exact (`features.BATCH_SIZES`), batches in int32, and categories
in fixed-point numbers of 48 or 64 bits, which two arrays hold. A Gram matrix is symmetric: of each block of rows, only
the columns from its first row on are stored, one block after another (`packed`). Sums of vectors: `vector_sums`.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.errors import InputError
from lifelong_cvae.images import aligned_zeros

# Blocks of rows of a Gram matrix.
ROW_BLOCKS = 8
# Bits after the binary point of Gram matrices and of vectors. The mean needs more, since its square is subtracted.
GRAM_BITS, VECTOR_BITS = 20, 32
# Batches whose int32 sums cannot overflow: 2^24 * 127 < 2^31.
MAX_BATCHES = 127
# Images whose sums of features, 127 * 2^VECTOR_BITS each, cannot overflow int64 with a bit to round.
MAX_IMAGES = 2**22

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
    return jax.device_put({"high": aligned_zeros((length,), np.int32), "low": aligned_zeros((length,), low)})


def decode(exact: ExactSum) -> np.ndarray:
    """Returns an exact sum as int64, in units of its last bit."""
    high, low = np.asarray(exact["high"]), np.asarray(exact["low"])
    return (high.astype(np.int64) << 8 * low.itemsize) + low


def add(first: Any, second: Any) -> Any:
    """Adds two trees of exact sums.

    Raises:
        InputError: a sum is too large, which takes more than 8,000 visits of categories.
    """
    total, overflows = _add(first, second)
    if overflows:
        raise InputError("sums of features: expected at most 8,000 visits of categories, got more")
    return total


@jax.jit
def _add(first: Any, second: Any) -> tuple[Any, jax.Array]:
    """Returns the sums, and whether one overflows."""
    overflows = []

    def add_one(first: ExactSum, second: ExactSum) -> ExactSum:
        low = first["low"] + second["low"]
        high = first["high"] + second["high"] + (low < second["low"])  # the carry
        overflows.append((((first["high"] ^ high) & (second["high"] ^ high)) < 0).any())
        return {"high": high, "low": low}

    total = jax.tree.map(add_one, first, second, is_leaf=lambda tree: "high" in tree)
    return total, jnp.stack(overflows).any()


def row_blocks(num_features: int) -> list[slice]:
    """Returns the rows of each block of a Gram matrix."""
    height = _block_height(num_features)
    return [slice(start, min(start + height, num_features)) for start in range(0, num_features, height)]


def _block_height(num_features: int) -> int:
    return -(-num_features // ROW_BLOCKS)


def packed_size(num_features: int) -> int:
    """Returns the number of stored values of a Gram matrix."""
    return sum((rows.stop - rows.start) * (num_features - rows.start) for rows in row_blocks(num_features))


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


def gram_elements(gram: ExactSum, rows: jax.Array, columns: jax.Array, num_features: int) -> jax.Array:
    """Returns elements of a Gram matrix. Traceable, with 64 bits.

    Args:
        gram: matrix `[packed]`.
        rows: indices int32, of any shape.
        columns: indices int32 of the same shape.
        num_features: size of the full matrix.

    Returns:
        Exact, as float64 in units of 2^-GRAM_BITS.
    """
    index = _packed_index(rows, columns, num_features)
    return stored_elements(jax.tree.map(lambda stored: stored[index], gram))


def stored_elements(part: ExactSum) -> jax.Array:
    """Returns elements of a part of a packed Gram matrix as `gram_elements` does. Traceable, with 64 bits."""
    return part["high"].astype(jnp.float64) * 2.0**16 + part["low"]


def _packed_index(rows: jax.Array, columns: jax.Array, num_features: int) -> jax.Array:
    """Returns the place of elements of a Gram matrix, int32, in its packed form."""
    first, last = jnp.minimum(rows, columns), jnp.maximum(rows, columns)
    height = _block_height(num_features)
    block = first // height
    start = block * height
    before = height * (block * num_features - height * (block * (block - 1) // 2))
    return before + (first - start) * (num_features - start) + last - start


@partial(jax.jit, static_argnames=("num_features", "stride"))
def strided_gram(gram: ExactSum, num_features: int, stride: int) -> ExactSum:
    """Selects the rows and columns 0, stride, 2 stride, ... of a Gram matrix `[packed]`, packed again."""
    selected = jnp.arange(0, num_features, stride, dtype=jnp.int32)
    index = [
        _packed_index(selected[rows][:, None], selected[rows.start :][None], num_features).ravel()
        for rows in row_blocks(len(selected))
    ]
    return jax.tree.map(lambda values: values[jnp.concatenate(index)], gram)


def strided_vector(vector: ExactSum, stride: int) -> ExactSum:
    """Selects the features 0, stride, 2 stride, ... of a vector `[features + 1]`, and its last value."""
    return jax.device_put({key: select_features(np.asarray(values), stride) for key, values in vector.items()})


def select_features(values: np.ndarray, stride: int) -> np.ndarray:
    """Selects the rows 0, stride, 2 stride, ... of values `[features + 1, ...]`, and the last row."""
    return np.concatenate([values[:-1:stride], values[-1:]])


def compute_sums(
    batches: Iterable[jax.Array], count: int, weight: int, *, num_features: int
) -> tuple[ExactSum, ExactSum]:
    """Computes the sums of phi phi' `[packed]` and of phi `[features + 1]`, divided by a number of images.

    Args:
        batches: features of the images, int8 `[batch, features]`, the last batch padded (`features.feature_batches`).
        count: number of images.
        weight: number to divide by.
        num_features: number of features.

    Returns:
        The Gram matrix, and the vector, whose last value is count / weight.

    Raises:
        InputError: there are more than `MAX_IMAGES` images.
    """
    if count > MAX_IMAGES:
        raise InputError(f"images of a category: expected at most {MAX_IMAGES:,} at once, got {count:,}")
    parts, start = [], 0
    for index, phi in enumerate(batches):
        if index % MAX_BATCHES == 0:
            parts.append(zero_totals(num_features))
        parts[-1] = accumulate(parts[-1], phi, np.int32(count - start))
        start += len(phi)
    with jax.enable_x64(True):
        return _divide_totals(parts or [zero_totals(num_features)], np.int64(count), np.int64(weight))


@partial(jax.jit, static_argnums=0)
def zero_totals(size: int) -> list[jax.Array]:
    """Returns zeros, int32: the stored blocks of a Gram matrix, and a vector."""
    shapes = [(part.stop - part.start, size - part.start) for part in row_blocks(size)]
    return [jnp.zeros(shape, "int32") for shape in (*shapes, (size,))]


@jax.jit
def _divide_totals(parts: list[list[jax.Array]], count: jax.Array, weight: jax.Array) -> tuple[ExactSum, ExactSum]:
    """Adds totals of `accumulate` and divides them by the weight; `count` is that of the images."""
    gram = sum(jnp.concatenate([block.ravel() for block in blocks]).astype(jnp.int64) for *blocks, _ in parts)
    vector = jnp.append(sum(vector.astype(jnp.int64) for *_, vector in parts), count)
    return _divide(gram, weight, GRAM_BITS, jnp.uint16), _divide(vector, weight, VECTOR_BITS, jnp.uint32)


def _divide(totals: jax.Array, weight: jax.Array, bits: int, low: Any) -> ExactSum:
    """Divides int64 numbers, rounded to multiples of 2^-bits, into a sum whose lower part has type `low`."""
    dividend, divisor = (totals << bits + 1) + weight, 2 * weight
    # In float64, with an error of less than 1 that is then corrected: processors have no fast division of int64.
    quotient = jnp.floor(dividend.astype(jnp.float64) * (1 / divisor.astype(jnp.float64))).astype(jnp.int64)
    remainder = dividend - quotient * divisor
    quotient += (remainder >= divisor).astype(jnp.int64) - (remainder < 0)
    return split(quotient, low)


def split(values: jax.Array, low: Any) -> ExactSum:
    """Splits int64 values, in units of the last bit, into a sum whose lower part has type `low`."""
    return {"high": (values >> 8 * np.dtype(low).itemsize).astype(jnp.int32), "low": values.astype(low)}


@partial(jax.jit, donate_argnums=0)
def accumulate(totals: list[jax.Array], phi: jax.Array, valid: jax.Array) -> list[jax.Array]:
    """Adds products and sums of the first `valid` rows of features, `[batch, features]`, to totals."""
    phi = jnp.where(jnp.arange(len(phi))[:, None] < valid, phi, 0).astype(jnp.float32)
    added = [*gram_products(phi), phi.sum(axis=0)]
    return [total + values.astype(total.dtype) for total, values in zip(totals, added, strict=True)]
