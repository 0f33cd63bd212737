"""Sums of features of vectors, over all categories of a task at once.

Features of vectors are not whole numbers: products of a batch are rounded as float32 rounds, batches are added in
float64, and the sums of a task are rounded to the fixed-point numbers of `sums`. Only the addition of tasks is exact.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.images import power_of_two
from lifelong_cvae.ridge import sums
from lifelong_cvae.ridge.sums import ExactSum


def compute_sums(
    extract: Callable[[np.ndarray], Iterable[jax.Array]],
    rows: Mapping[str, np.ndarray],
    weights: Mapping[str, int],
    *,
    num_features: int,
) -> tuple[ExactSum, dict[str, ExactSum]]:
    """Computes sums of phi phi' and of phi, those of each category divided by its weight.

    Args:
        extract: from rows `[n, d]` to their features, float32 `[batch, features]`, the last batch padded.
        rows: vectors by category.
        weights: numbers to divide by.
        num_features: number of features.

    Returns:
        The Gram matrix of all categories `[packed]`, and by category the vector `[features + 1]`, whose last value is
        its number of rows divided by the weight.
    """
    names = sorted(rows)  # the order of the mapping changes nothing
    counts = np.asarray([len(rows[name]) for name in names])
    category = np.repeat(np.arange(len(names), dtype=np.int32), counts)
    factors = np.sqrt(1 / np.asarray([weights[name] for name in names]))[category].astype(np.float32)
    shares = np.asarray([count / weights[name] for count, name in zip(counts, names, strict=True)])
    capacity, start = power_of_two(len(names), 1), 0
    with jax.enable_x64(True):
        totals = zero_totals(num_features, capacity)
        for phi in extract(np.concatenate([rows[name][:] for name in names])) if counts.any() else ():
            # Padding gets a factor of 0.
            part, padding = slice(start, start + len(phi)), (0, max(0, start + len(phi) - len(category)))
            totals = accumulate(totals, phi, np.pad(category[part], padding), np.pad(factors[part], padding))
            start += len(phi)
        gram, vectors = _round(totals, np.pad(shares, (0, capacity - len(names))))
    host = jax.device_get(vectors)
    by_name = {name: {key: values[index] for key, values in host.items()} for index, name in enumerate(names)}
    return gram, jax.device_put(by_name)


@partial(jax.jit, static_argnums=(0, 1))
def zero_totals(size: int, capacity: int) -> tuple[list[jax.Array], jax.Array]:
    """Returns zeros, float64: the stored blocks of a Gram matrix, and vectors `[capacity, size]`."""
    blocks = [jnp.zeros((part.stop - part.start, size - part.start), "float64") for part in sums.row_blocks(size)]
    return blocks, jnp.zeros((capacity, size), "float64")


@partial(jax.jit, donate_argnums=0)
def accumulate(
    totals: tuple[list[jax.Array], jax.Array], phi: jax.Array, category: jax.Array, factors: jax.Array
) -> tuple[list[jax.Array], jax.Array]:
    """Adds features `[batch, features]` to the totals.

    Args:
        totals: from `zero_totals`.
        phi: features.
        category: index of each row's category, int32 `[batch]`.
        factors: square root of each row's weight, float32 `[batch]`; 0 of padding.
    """
    blocks, vectors = totals
    weighted = phi * factors[:, None]
    products = sums.gram_products(weighted)
    added = (weighted * factors[:, None]).astype(vectors.dtype)
    blocks = [block + product.astype(block.dtype) for block, product in zip(blocks, products, strict=True)]
    return blocks, vectors.at[category].add(added)


@jax.jit
def _round(totals: tuple[list[jax.Array], jax.Array], shares: jax.Array) -> tuple[ExactSum, ExactSum]:
    """Rounds totals to fixed-point numbers. The last value of a vector is its category's share."""
    blocks, vectors = totals
    gram = jnp.concatenate([block.ravel() for block in blocks])
    vectors = jnp.concatenate([vectors, shares[:, None]], axis=1)
    return (
        sums.split(_scaled(gram, sums.GRAM_BITS), jnp.uint16),
        sums.split(_scaled(vectors, sums.VECTOR_BITS), jnp.uint32),
    )


def _scaled(values: jax.Array, bits: int) -> jax.Array:
    return jnp.round(values * 2.0**bits).astype(jnp.int64)
