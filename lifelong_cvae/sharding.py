"""Many devices: a mesh of them, what is put onto it, and several processes that do the same.

A mesh has two axes: devices along `data` share the images of a batch or block, devices along `category` the
categories of a stack. A state stays within its process, and is the same in all of them, since they compute it
from the same keys. What goes through a mesh is put there, and its result is on every device: a process sees
it as if it had computed it by itself.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lifelong_cvae.errors import InputError

DATA_AXIS, CATEGORY_AXIS = "data", "category"

T = TypeVar("T")


def make_mesh(data: int | None = None, category: int = 1) -> Mesh:
    """A mesh of the devices that JAX finds, those of all processes together.

    Args:
        data: devices that share the images of a batch or block; default as many as there are.
        category: for each of them, devices that share the categories which are recognized or imagined.

    Raises:
        InputError: there are fewer devices, or with several processes more.
    """
    there = jax.device_count()
    data = there // category if data is None and category > 0 else data
    if category < 1 or data < 1 or data * category > there:
        raise InputError(
            f"a mesh of {data} x {category} devices: whole numbers whose product is at most {there} are "
            "expected, the number of devices here"
        )
    if jax.process_count() > 1 and data * category < there:
        raise InputError(
            f"a mesh of {data} x {category} devices: with several processes all {there} devices are expected"
        )
    axis_types = (AxisType.Auto, AxisType.Auto)
    devices = jax.devices()[: data * category]
    return jax.make_mesh((data, category), (DATA_AXIS, CATEGORY_AXIS), axis_types=axis_types, devices=devices)


def axis_size(mesh: Mesh | None, axis: str) -> int:
    """How many devices share what lies along an axis."""
    return 1 if mesh is None else mesh.shape[axis]


def check_batch_size(mesh: Mesh | None, batch_size: int) -> None:
    """Raises InputError where the devices along `data` cannot share a batch evenly."""
    count = axis_size(mesh, DATA_AXIS)
    if batch_size % count:
        raise InputError(f"batch_size={batch_size} on {count} devices: a multiple of {count} is expected")


def device_put(tree: Any, mesh: Mesh | None, *axes: str) -> Any:
    """A tree of arrays on a mesh, from where it is in every process; without a mesh as it is.

    Args:
        tree: arrays, the same in all processes.
        mesh: where to.
        axes: along which of its axes the leading dimensions are shared out; none: a copy on every device.
    """
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec(*axes))

    def one(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.core.Tracer):
            return jax.lax.with_sharding_constraint(leaf, sharding)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return jax.tree.map(one, tree)


def to_host(tree: Any, mesh: Mesh | None) -> Any:
    """A tree that is whole on every device of a mesh, back in the process; without a mesh as it is."""
    return tree if mesh is None else jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf)), tree)


def constrain(tree: Any, mesh: Mesh | None, *axes: str | tuple[str, ...]) -> Any:
    """Within a `jit`: has devices share the leading dimensions of arrays; without `axes` each has all.

    What they cannot share evenly stays as the compiler has it. Values are the same but for rounding.
    """
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec(*axes))

    def one(leaf: jax.Array) -> jax.Array:
        even = leaf.ndim >= len(axes) and all(
            size % math.prod(mesh.shape[name] for name in np.atleast_1d(axis)) == 0
            for size, axis in zip(leaf.shape, axes, strict=False)
        )
        return jax.lax.with_sharding_constraint(leaf, sharding) if even else leaf

    return jax.tree.map(one, tree)
