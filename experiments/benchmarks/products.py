"""Matrix products of a function: counted in its jaxpr, and run without anything else."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Product(NamedTuple):
    """A matrix product: shapes of the operands, and `dimension_numbers` of `lax.dot_general`."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    dimensions: Any

    @property
    def flops(self) -> int:
        """Floating-point operations: a multiplication and an addition for each pair of values."""
        (_, contracted), (_, batch) = self.dimensions
        common = math.prod(self.right[axis] for axis in (*contracted, *batch))
        return 2 * math.prod(self.left) * math.prod(self.right) // common


def matrix_products(function: Callable[..., Any], *arguments: Any) -> Counter[Product]:
    """Returns the matrix products that a function computes, and how often it computes each.

    Every turn of a `lax.scan` counts. All branches of `lax.cond` and `lax.platform_dependent` count.
    """
    counts: Counter[Product] = Counter()
    for equation, times in _equations(jax.make_jaxpr(function)(*arguments).jaxpr):
        if equation.primitive.name == "dot_general":
            left, right = (variable.aval.shape for variable in equation.invars)
            counts[Product(left, right, equation.params["dimension_numbers"])] += times
    return counts


def total_flops(counts: Counter[Product]) -> int:
    """Returns the floating-point operations of all products."""
    return sum(times * product.flops for product, times in counts.items())


def products_runner(counts: Counter[Product]) -> Callable[[], Any]:
    """Returns a function that computes these products of random numbers, and nothing else."""
    products = [product for product, times in counts.items() for _ in range(times)]
    keys = jax.random.split(jax.random.key(0), 2 * len(products)).reshape(-1, 2)
    operands = [
        (jax.random.normal(left, product.left), jax.random.normal(right, product.right))
        for product, (left, right) in zip(products, keys, strict=True)
    ]

    @jax.jit
    def compute(operands: Any) -> Any:
        return [
            jax.lax.dot_general(*pair, product.dimensions) for product, pair in zip(products, operands, strict=True)
        ]

    return lambda: compute(operands)


def square_runner(size: int) -> tuple[int, Callable[[], Any]]:
    """Returns a function that multiplies two square matrices, and its floating-point operations."""
    square = jax.random.normal(jax.random.key(0), (size, size))
    compute = jax.jit(jnp.matmul)
    return 2 * size**3, lambda: compute(square, square)


def copy_runner(values: int) -> tuple[int, Callable[[], Any]]:
    """Returns a function that adds 1 to `values` float32 numbers, and the bytes that it reads and writes."""
    numbers = jnp.zeros((values,))
    compute = jax.jit(lambda numbers: numbers + 1)
    return 8 * values, lambda: compute(numbers)


def _equations(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """Yields all equations of a jaxpr and of nested jaxprs, and how often each is computed."""
    for equation in jaxpr.eqns:
        yield equation, times
        turns = equation.params["length"] if equation.primitive.name == "scan" else 1
        for nested in _nested_jaxprs(list(equation.params.values())):
            yield from _equations(nested, times * turns)


def _nested_jaxprs(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _nested_jaxprs(part)
    elif hasattr(value, "eqns"):
        yield value
    elif hasattr(value, "jaxpr"):
        yield value.jaxpr
