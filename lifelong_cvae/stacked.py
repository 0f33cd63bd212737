"""Stacked categories: subtrees along a leading axis, so that one program serves all categories."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial, reduce
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from lifelong_cvae import sharding
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import power_of_two
from lifelong_cvae.model import cpu
from lifelong_cvae.state import LifelongState, check_known, name_hash

# Smallest capacity: up to four categories share a program.
MIN_CAPACITY = 4
# Categories are stacked in groups of at most this size.
GROUP_BYTES = 2**28
# Parts of a subtree that training does not read. The decoder learns what low-rank noise would explain.
NOT_USED_IN_TRAINING = ("ridge", "low_rank_noise")


class StackedCategories(flax.struct.PyTreeNode):
    """Subtrees of categories with a leading axis that is padded to a power of two.

    Attributes:
        categories: leaves `[capacity, ...]`. Rows from `count` on repeat the first one.
        count: number of categories, int32.
        shards: number of devices that share the categories, a divisor of the capacity. Categories are dealt out in
            turn, so that all devices have work: category i is row i // shards of device i % shards, and the rows of
            a device are contiguous.
    """

    categories: Any
    count: jax.Array
    shards: int = flax.struct.field(pytree_node=False, default=1)

    @property
    def capacity(self) -> int:
        """Length of the padded axis."""
        return jax.tree.leaves(self.categories)[0].shape[0]

    def on_mesh(self, mesh: Mesh | None) -> StackedCategories:
        """Returns the stack with its categories distributed over the mesh axis `category`."""
        categories = sharding.device_put(self.categories, mesh, sharding.CATEGORY_AXIS)
        return self.replace(categories=categories, count=sharding.device_put(self.count, mesh))

    def map_categories(self, function: Callable[..., Any], *rows: jax.Array, mesh: Mesh | None = None) -> Any:
        """Computes `function(subtree, *row)` for every category, in their order. Padding is zero on a CPU.

        Args:
            function: from a subtree, and a row of each of `rows`, to a tree of arrays.
            *rows: arrays `[capacity, ...]` in the order of the categories.
            mesh: devices that share the categories; each maps over its own part.
        """
        if mesh is None:
            return cpu.map_valid(function, self.count, self.categories, *rows)

        @partial(
            jax.shard_map,
            mesh=mesh,
            in_specs=(PartitionSpec(sharding.CATEGORY_AXIS), PartitionSpec()),
            out_specs=PartitionSpec(sharding.CATEGORY_AXIS),
            axis_names={sharding.CATEGORY_AXIS},
            check_vma=False,
        )
        def map_shard(arguments: tuple[Any, ...], count: jax.Array) -> Any:
            device = jax.lax.axis_index(sharding.CATEGORY_AXIS)
            count_here = (count - device + self.shards - 1) // self.shards
            return cpu.map_valid(function, count_here, *arguments)

        def deal(leaf: jax.Array) -> jax.Array:
            return leaf.reshape(-1, self.shards, *leaf.shape[1:]).swapaxes(0, 1).reshape(leaf.shape)

        def collect(leaf: jax.Array) -> jax.Array:
            return leaf.reshape(self.shards, -1, *leaf.shape[1:]).swapaxes(0, 1).reshape(leaf.shape)

        results = map_shard((self.categories, *jax.tree.map(deal, rows)), self.count)
        return jax.tree.map(collect, sharding.constrain(results, mesh))


def category_rngs(rng: jax.Array, names: Sequence[str], capacity: int) -> jax.Array:
    """Returns `category_rng` of each name for visit 0, padded like a stack: `[capacity]`."""
    rows = [(name_hash(name), 0) for name in names]
    return fold_in_rows(rng, np.asarray(rows + rows[:1] * (capacity - len(names)), np.uint32))


@jax.jit
def fold_in_rows(rng: jax.Array, rows: jax.Array) -> jax.Array:
    """Folds the numbers of each row, uint32 `[n, k]`, into a key one after the other: `[n]`."""
    # All at once: a thousand separate calls take a second.
    return jax.vmap(lambda row: reduce(jax.random.fold_in, row, rng))(rows)


def stack_categories(
    state: LifelongState,
    names: Sequence[str],
    *,
    leave_out: Collection[str] = ("ridge",),
    shards: int = 1,
    capacity: int = 0,
) -> StackedCategories:
    """Stacks the subtrees of `names` in that order.

    On the host this is a copy that compiles nothing. Inside a `jit` of the caller it is traced.

    Args:
        state: state with the categories.
        names: categories, at least one.
        leave_out: keys of the subtrees that are left out.
        shards: number of devices that share the categories. The capacity becomes a multiple of it.
        capacity: smallest capacity.

    Raises:
        InputError: a category is unknown, or there is none.
    """
    names = check_known(state, names)
    if not names:
        raise InputError("expected at least one category, got none")
    capacity = padded_capacity(len(names), capacity)
    capacity = -(-capacity // shards) * shards
    padded = [*names, *[names[0]] * (capacity - len(names))]
    order = [name for device in range(shards) for name in padded[device::shards]]
    return StackedCategories(
        stack_subtrees(state, order, leave_out=leave_out), jax.device_put(np.int32(len(names))), shards
    )


def padded_capacity(count: int, expected: int) -> int:
    """Returns the capacity for `count` categories where `expected` ones are planned: a power of two."""
    return power_of_two(max(count, expected), MIN_CAPACITY)


def category_groups(state: LifelongState) -> list[tuple[str, ...]]:
    """Splits the categories into groups whose stacks fit into `GROUP_BYTES`, at least one group."""
    if not state.names:
        return [()]
    size = _group_size(state)
    return [state.names[start : start + size] for start in range(0, len(state.names), size)]


def group_capacity(state: LifelongState) -> int:
    """Returns the smallest capacity of a group's stack: that of the state, at most that of a full group."""
    return min(power_of_two(state.capacity, 1), _group_size(state)) if state.names else 0


def _group_size(state: LifelongState) -> int:
    subtree = {**state.params["categories"][state.names[0]], "ridge": {}}
    fitting = GROUP_BYTES // max(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(subtree)), 1)
    return max(MIN_CAPACITY, power_of_two(fitting + 1, 2) // 2)


def stack_subtrees(state: LifelongState, names: Sequence[str], *, leave_out: Collection[str] = ("ridge",)) -> Any:
    """Copies subtrees, without the keys `leave_out`, into one tree with leaves `[len(names), ...]`."""
    trees = [
        {key: part for key, part in state.params["categories"][name].items() if key not in leave_out} for name in names
    ]
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees)):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    # All leaves at once: one by one, each waits for the device.
    return jax.device_put(jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(trees)))


def unstack_subtrees(stacked: Any, names: Sequence[str]) -> dict[str, Any]:
    """Inverse of `stack_subtrees`: name to subtree. Goes through the host, where it compiles nothing."""
    host = jax.device_get(stacked)
    return jax.device_put(
        {name: jax.tree.map(lambda leaf, index=index: leaf[index], host) for index, name in enumerate(names)}
    )
