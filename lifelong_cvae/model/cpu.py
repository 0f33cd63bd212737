"""Choices that were tuned for CPUs. Each gives the same values on every device, up to rounding.

A CPU is fastest on loops over small blocks that stay in its caches, an accelerator on few large batches. The
functions below pick the form with `jax.lax.platform_dependent`.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp

# Images per batch of filter responses. Powers of two, at most the smallest padded batch.
CPU_IMAGES, ACCELERATOR_IMAGES = 4, 64
# A CPU computes fewer responses of an image than this in one thread, one image at a time: in two threads they take half
# as much processor time again.
FEW_RESPONSES = 2**17
# Tiles of (image, category) pairs that are evaluated at once.
CPU_TILES, ACCELERATOR_TILES = 1, 64
# Categories whose parts are fitted at once.
ACCELERATOR_FITS = 16
# Rows of a thin matrix product are padded to a multiple of the vector width: 50 take twice as long as 64.
LANES = 16


def silu(x: jax.Array) -> jax.Array:
    """Computes x * sigmoid(x) by tanh. XLA's sigmoid takes twice as long on a CPU."""
    half = 0.5 * x
    return half * jnp.tanh(half) + half


def vmap(function: Callable[..., Any], *arguments: Any, count: int) -> Any:
    """Maps a function over a leading axis of length `count`, without `vmap` if it is one.

    A `vmap` over one category makes a training step a third slower on a CPU.
    """
    if count > 1:
        return jax.vmap(function)(*arguments)
    return jax.tree.map(lambda leaf: leaf[None], function(*jax.tree.map(lambda leaf: leaf[0], arguments)))


def map_fits(function: Callable[[Any], Any], arguments: Any, *, count: int) -> Any:
    """Maps a function that needs much memory over a leading axis of length `count`, few rows at once."""
    one_by_one = partial(jax.lax.map, function)
    if count == 1:  # the same in both forms, and traced once
        return one_by_one(arguments)
    in_blocks = partial(jax.lax.map, function, batch_size=min(count, ACCELERATOR_FITS))
    return jax.lax.platform_dependent(arguments, cpu=one_by_one, default=in_blocks)


def map_valid(function: Callable[..., Any], valid: jax.Array, *arguments: Any) -> Any:
    """Maps a function over the first `valid` rows of padded arguments.

    Args:
        function: from one row of each argument to a tree of arrays.
        valid: number of rows that are not padding, int32 scalar.
        *arguments: trees with leaves `[capacity, ...]`.

    Returns:
        Results with leaves `[capacity, ...]`. A CPU loops and leaves zeros in the padding; other devices `vmap` over
        everything.
    """

    def loop(valid: jax.Array, *arguments: Any) -> Any:
        result = jax.eval_shape(function, *jax.tree.map(lambda leaf: leaf[0], arguments))

        def skip(*_: Any) -> Any:
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), result)

        def step(index: jax.Array, rows: tuple[Any, ...]):
            return index + 1, jax.lax.cond(index < valid, function, skip, *rows)

        return jax.lax.scan(step, jnp.int32(0), arguments)[1]

    def vectorized(_: jax.Array, *arguments: Any) -> Any:
        return jax.vmap(function)(*arguments)

    return jax.lax.platform_dependent(valid, *arguments, cpu=loop, default=vectorized)


def has_few_responses(image_shape: Sequence[int], filters: Sequence[int]) -> bool:
    """Returns whether an image has few responses to filters.

    Args:
        image_shape: (height, width, channels).
        filters: shape of the filters, (side, side, channels, number).
    """
    return math.prod(_positions(image_shape, filters)) * filters[-1] < FEW_RESPONSES


def _positions(image_shape: Sequence[int], filters: Sequence[int]) -> tuple[int, int]:
    """Returns the rows and columns of positions of a filter in an image."""
    return image_shape[0] - filters[0] + 1, image_shape[1] - filters[0] + 1


def map_images(function: Callable[[jax.Array], jax.Array], images: jax.Array, *, one_by_one: bool) -> jax.Array:
    """Applies a function to images in small batches.

    Args:
        function: from images `[batch, pixels]` to `[batch, outputs]`.
        images: `[n, pixels]`.
        one_by_one: whether a CPU takes one image at a time, which needs only one thread (`has_few_responses`).
    """
    cpu_images = 1 if one_by_one else CPU_IMAGES

    def in_batches_of(size: int) -> Callable[[jax.Array], jax.Array]:
        size = math.gcd(size, len(images))
        return lambda rows: jax.lax.map(function, rows.reshape(-1, size, rows.shape[1])).reshape(len(rows), -1)

    return jax.lax.platform_dependent(images, cpu=in_batches_of(cpu_images), default=in_batches_of(ACCELERATOR_IMAGES))


def correlate(images: jax.Array, filters: jax.Array) -> jax.Array:
    """Computes the products of filters with every patch of images.

    A CPU convolves with few filters, since copies of patches would take longer than their products. Otherwise patches
    are multiplied, so that no algorithm is selected by timing.

    Args:
        images: `[n, h, w, channels]`.
        filters: `[side, side, channels, filters]`.

    Returns:
        `[n, h - side + 1, w - side + 1, filters]`.
    """
    side, count = len(filters), filters.shape[-1]
    down, across = _positions(images.shape[1:], filters.shape)

    def convolve(images: jax.Array, filters: jax.Array) -> jax.Array:
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(images, filters, (1, 1), "VALID", dimension_numbers=layout)

    def multiply(images: jax.Array, filters: jax.Array) -> jax.Array:
        shifted = [images[:, y : y + down, x : x + across] for y in range(side) for x in range(side)]
        patches = jnp.concatenate(shifted, axis=-1).reshape(-1, filters.size // count)
        return (patches @ filters.reshape(-1, count)).reshape(len(images), down, across, count)

    on_cpu = convolve if has_few_responses(images.shape[1:], filters.shape) else multiply
    return jax.lax.platform_dependent(images, filters, cpu=on_cpu, default=multiply)


def map_tiles(function: Callable[[jax.Array], jax.Array], valid: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Evaluates the first `valid` tiles of `shape` = (tiles, width); the others are zero.

    Args:
        function: from the index of a tile to its values `[width]`.
        valid: number of tiles, a traced scalar.
        shape: of the result. `tiles` is a multiple of `ACCELERATOR_TILES`.
    """

    def loop(at_once: int) -> jax.Array:
        evaluate = function if at_once == 1 else jax.vmap(function)

        def step(turn: jax.Array, values: jax.Array) -> jax.Array:
            first = turn * at_once
            indices = first if at_once == 1 else first + jnp.arange(at_once)
            return jax.lax.dynamic_update_slice(values, evaluate(indices).reshape(at_once, shape[1]), (first, 0))

        return jax.lax.fori_loop(0, -(-valid // at_once), step, jnp.zeros(shape))

    return jax.lax.platform_dependent(cpu=lambda: loop(CPU_TILES), default=lambda: loop(ACCELERATOR_TILES))


def average_cells(responses: jax.Array, axis: int, cells: int) -> jax.Array:
    """Averages responses over the cells that `axis` is divided into, all of the same width.

    A position that an edge cuts belongs to two cells in parts, so that mirrored responses have mirrored means.
    Positions are added one by one: XLA fuses the additions into one loop, while its reduction is slow on a CPU.
    """
    positions = responses.shape[axis]

    def take(position: int, cell: int) -> jax.Array:
        # In units of 1 / cells of a position, a cell is `positions` wide.
        overlap = min((position + 1) * cells, (cell + 1) * positions) - max(position * cells, cell * positions)
        values = jax.lax.index_in_dim(responses, position, axis=axis, keepdims=False)
        return values if overlap == cells else values * (overlap / cells)

    def average(cell: int) -> jax.Array:
        first, last = cell * positions // cells, -(-(cell + 1) * positions // cells)
        return reduce(jnp.add, (take(position, cell) for position in range(first, last))) * (cells / positions)

    return jnp.stack([average(cell) for cell in range(cells)], axis=axis)
