"""The matrix products of a function, counted, and timed without anything else."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Product(NamedTuple):
    """A matrix product: shapes of its operands, and their axes that are summed over and that are common."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    dimensions: Any

    @property
    def flops(self) -> int:
        """Floating-point operations: a multiplication and an addition for each pair of values."""
        (_, summed), (_, common) = self.dimensions
        shared = math.prod(self.right[axis] for axis in (*summed, *common))
        return 2 * math.prod(self.left) * math.prod(self.right) // shared


def products(function: Callable[..., Any], *arguments: Any) -> Counter[Product]:
    """The matrix products that a function computes, and how often each; loops count every turn.

    Of branches (`lax.cond`, `lax.platform_dependent`) all are counted.
    """
    found: Counter[Product] = Counter()
    for equation, times in _equations(jax.make_jaxpr(function)(*arguments).jaxpr):
        if equation.primitive.name == "dot_general":
            left, right = (variable.aval.shape for variable in equation.invars)
            found[Product(left, right, equation.params["dimension_numbers"])] += times
    return found


def flops(counted: Counter[Product]) -> int:
    """Floating-point operations of them all."""
    return sum(times * product.flops for product, times in counted.items())


def alone(counted: Counter[Product]) -> Callable[[], Any]:
    """A function that computes just these products, of random numbers."""
    wanted = [product for product, times in counted.items() for _ in range(times)]
    keys = jax.random.split(jax.random.key(0), 2 * len(wanted)).reshape(-1, 2)
    operands = [
        (jax.random.normal(left, product.left), jax.random.normal(right, product.right))
        for product, (left, right) in zip(wanted, keys, strict=True)
    ]

    @jax.jit
    def compute(operands: Any) -> Any:
        return [jax.lax.dot_general(*pair, product.dimensions) for product, pair in zip(wanted, operands, strict=True)]

    return lambda: compute(operands)


def _equations(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """All equations of a jaxpr and of those within it, with how often each is computed."""
    for equation in jaxpr.eqns:
        yield equation, times
        turns = equation.params["length"] if equation.primitive.name == "scan" else 1
        for inner in _inner(list(equation.params.values())):
            yield from _equations(inner, times * turns)


def _inner(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _inner(part)
    elif hasattr(value, "eqns"):
        yield value
    elif hasattr(value, "jaxpr"):
        yield value.jaxpr


def peak(size: int) -> tuple[int, Callable[[], Any]]:
    """Operations of one product of two square matrices, and a function that computes it."""
    square = jax.random.normal(jax.random.key(0), (size, size))
    compute = jax.jit(jnp.matmul)
    return 2 * size**3, lambda: compute(square, square)


def copied(values: int) -> tuple[int, Callable[[], Any]]:
    """Bytes that are read and written to add 1 to so many float32, and a function that does it."""
    numbers = jnp.zeros((values,))
    compute = jax.jit(lambda numbers: numbers + 1)
    return 8 * values, lambda: compute(numbers)
