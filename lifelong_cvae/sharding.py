"""Meshes of devices, and moving arrays to and from them.

A mesh has two axes. Devices along `data` share the images of a batch, devices along `category` share the categories of
a stack. A state stays within its process and is equal in all processes, since they compute it from the same keys.
Arguments of a sharded computation are put on the mesh, and its result is replicated on every device, so that each
process continues as if it had computed the result alone.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lifelong_cvae.errors import InputError

DATA_AXIS, CATEGORY_AXIS = "data", "category"


def make_mesh(data: int | None = None, category: int = 1) -> Mesh:
    """Creates a mesh of all available devices, those of all processes together.

    Args:
        data: devices that share the images of a batch; default all.
        category: for each of them, devices that share the categories that are recognized or imagined.

    Raises:
        InputError: there are fewer devices, or several processes have more.
    """
    available = jax.device_count()
    data = available // category if data is None and category > 0 else data
    if category < 1 or data < 1 or data * category > available:
        raise InputError(
            f"mesh: expected positive numbers whose product is at most {available}, the number of devices, "
            f"got {data} x {category}"
        )
    if jax.process_count() > 1 and data * category < available:
        raise InputError(f"mesh: expected all {available} devices of the processes, got {data} x {category}")
    axis_types = (AxisType.Auto, AxisType.Auto)
    devices = jax.devices()[: data * category]
    return jax.make_mesh((data, category), (DATA_AXIS, CATEGORY_AXIS), axis_types=axis_types, devices=devices)


def axis_size(mesh: Mesh | None, axis: str) -> int:
    """Returns the number of devices along an axis; 1 without a mesh."""
    return 1 if mesh is None else mesh.shape[axis]


def check_batch_size(mesh: Mesh | None, batch_size: int) -> None:
    """Raises InputError unless the devices along `data` divide the batch size."""
    count = axis_size(mesh, DATA_AXIS)
    if batch_size % count:
        raise InputError(f"batch_size: expected a multiple of {count}, the number of devices, got {batch_size}")


def device_put(tree: Any, mesh: Mesh | None, *axes: str) -> Any:
    """Puts a tree of arrays on a mesh. Without a mesh the tree is returned unchanged.

    Args:
        tree: arrays, equal in all processes.
        mesh: devices.
        axes: mesh axes over which the leading dimensions are distributed; none puts a copy on every device.
    """
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec(*axes))

    def put(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.core.Tracer):
            return jax.lax.with_sharding_constraint(leaf, sharding)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return jax.tree.map(put, tree)


def to_host(tree: Any, mesh: Mesh | None) -> Any:
    """Copies a tree that is replicated on a mesh to the default device.

    Without a mesh it is returned unchanged.
    """
    return tree if mesh is None else jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf)), tree)


def constrain(tree: Any, mesh: Mesh | None, *axes: str | tuple[str, ...]) -> Any:
    """Constrains the sharding of arrays inside `jit`. Values are the same up to rounding.

    Args:
        tree: arrays.
        mesh: devices; None changes nothing.
        axes: mesh axes over which the leading dimensions are distributed; none replicates the arrays. Arrays that
            do not divide evenly are left to the compiler.
    """
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec(*axes))

    def constrain_leaf(leaf: jax.Array) -> jax.Array:
        divides = leaf.ndim >= len(axes) and all(
            size % math.prod(mesh.shape[name] for name in np.atleast_1d(axis)) == 0
            for size, axis in zip(leaf.shape, axes, strict=False)
        )
        return jax.lax.with_sharding_constraint(leaf, sharding) if divides else leaf

    return jax.tree.map(constrain_leaf, tree)
