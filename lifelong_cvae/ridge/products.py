"""Products with a Gram matrix, computed from its exact sums."""

import jax
import jax.numpy as jnp

from lifelong_cvae.ridge.sums import ExactSum, row_blocks, stored_elements

# Rows of the matrix that are in memory in float64 at once.
ROWS = 128


def multiply_gram(gram: ExactSum, values: jax.Array) -> jax.Array:
    """Multiplies a Gram matrix `[packed]` by values, float64 `[features, n]`. Traceable, with 64 bits.

    Returns:
        float64 `[features, n]`, in units of 2^-GRAM_BITS.
    """
    num_features, start, product = len(values), 0, jnp.zeros(values.shape)
    for rows in row_blocks(num_features):
        product += _multiply_block(gram, start, rows, values)
        start += (rows.stop - rows.start) * (num_features - rows.start)
    return product


def _multiply_block(gram: ExactSum, start: int, rows: slice, values: jax.Array) -> jax.Array:
    """Multiplies a block of rows, stored from `start` on, and its mirror image by values `[features, n]`."""
    num_features, height = len(values), rows.stop - rows.start
    width, at_once = num_features - rows.start, min(height, ROWS)

    def step(turn: jax.Array, product: jax.Array) -> jax.Array:
        # The last rows overlap those before, which are not added again.
        row = jnp.minimum(turn * at_once, height - at_once)
        place, size = start + row * width, at_once * width
        part = jax.tree.map(lambda stored: jax.lax.dynamic_slice(stored, (place,), (size,)), gram)
        matrix = stored_elements(part).reshape(at_once, width)
        matrix = jnp.where((row + jnp.arange(at_once) >= turn * at_once)[:, None], matrix, 0.0)
        # Products of the same shape for all blocks, since other devices tune each shape by timing.
        matrix, row = jnp.pad(matrix, ((0, 0), (rows.start, 0))), rows.start + row
        mirrored = matrix.T @ jax.lax.dynamic_slice_in_dim(values, row, at_once)
        product += jnp.where(jnp.arange(num_features)[:, None] < rows.stop, 0, mirrored)
        added = jax.lax.dynamic_slice_in_dim(product, row, at_once) + matrix @ values
        return jax.lax.dynamic_update_slice_in_dim(product, added, row, 0)

    return jax.lax.fori_loop(0, -(-height // at_once), step, jnp.zeros(values.shape))
