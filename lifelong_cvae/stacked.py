"""Categories side by side: their subtrees as one tree with a leading axis, for one program over them all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from lifelong_cvae import sharding
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import power_of_two
from lifelong_cvae.state import LifelongState, check_known, name_hash

# One program serves so many categories; where that is a loop, padding costs nothing.
MIN_CAPACITY = 4
# What needs the categories one after another has so much of them side by side, however many there are.
GROUP_BYTES = 2**28
# Parts that networks are trained without: what factors would explain, the decoder is to learn.
NOT_USED_IN_TRAINING = ("closed_form", "factors")


class StackedCategories(flax.struct.PyTreeNode):
    """Subtrees of categories with a leading category axis, padded to a power of two.

    Attributes:
        categories: leaves `[capacity, ...]`; rows from `count` on repeat the first.
        count: number of categories, int32.
        shards: number of devices that share them, a divisor of the capacity. They are dealt out one by one,
            so that all have work: the rows of a device lie one after another, and category i is row
            i // shards of device i % shards.
    """

    categories: Any
    count: jax.Array
    shards: int = flax.struct.field(pytree_node=False, default=1)

    @property
    def capacity(self) -> int:
        """Length of the padded axis."""
        return jax.tree.leaves(self.categories)[0].shape[0]

    def put(self, mesh: Mesh | None) -> StackedCategories:
        """The stack on a mesh, a part of the categories on each device along `category`."""
        categories = sharding.device_put(self.categories, mesh, sharding.CATEGORY_AXIS)
        return self.replace(categories=categories, count=sharding.device_put(self.count, mesh))

    def map(self, function: Callable[..., Any], *stacked: jax.Array, mesh: Mesh | None = None) -> Any:
        """`function(subtree, *rows)` for every category, results along a leading axis `[capacity, ...]`.

        A `vmap` on accelerators. A CPU computes one category after another, which keeps the caches
        warm, and leaves the padding out: rows from `count` on are zero there. With a mesh each device does
        this for its part of the categories. Rows and results are in the order of the categories.
        """
        if mesh is None:
            return self._map(function, *stacked)

        @partial(
            jax.shard_map,
            mesh=mesh,
            in_specs=(PartitionSpec(sharding.CATEGORY_AXIS), PartitionSpec()),
            out_specs=PartitionSpec(sharding.CATEGORY_AXIS),
            axis_names={sharding.CATEGORY_AXIS},
            check_vma=False,
        )
        def share(arguments: tuple[Any, ...], count: jax.Array) -> Any:
            device = jax.lax.axis_index(sharding.CATEGORY_AXIS)
            categories, *rows = arguments
            own = (count - device + self.shards - 1) // self.shards
            return StackedCategories(categories, own)._map(function, *rows)

        def dealt(leaf: jax.Array) -> jax.Array:
            return leaf.reshape(-1, self.shards, *leaf.shape[1:]).swapaxes(0, 1).reshape(leaf.shape)

        def collected(leaf: jax.Array) -> jax.Array:
            return leaf.reshape(self.shards, -1, *leaf.shape[1:]).swapaxes(0, 1).reshape(leaf.shape)

        results = share((self.categories, *jax.tree.map(dealt, stacked)), self.count)
        return jax.tree.map(collected, sharding.constrain(results, mesh))

    def _map(self, function: Callable[..., Any], *stacked: jax.Array) -> Any:

        def loop(stack: StackedCategories, *stacked: jax.Array) -> Any:
            first = jax.tree.map(lambda leaf: leaf[0], (stack.categories, *stacked))
            result = jax.eval_shape(function, *first)

            def skip(*_: Any) -> Any:
                return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), result)

            def step(index: jax.Array, arguments: tuple[Any, ...]):
                return index + 1, jax.lax.cond(index < stack.count, function, skip, *arguments)

            return jax.lax.scan(step, jnp.int32(0), (stack.categories, *stacked))[1]

        def vectorised(stack: StackedCategories, *stacked: jax.Array) -> Any:
            return jax.vmap(function)(stack.categories, *stacked)

        return jax.lax.platform_dependent(self, *stacked, cpu=loop, default=vectorised)


def category_rngs(rng: jax.Array, names: Sequence[str], capacity: int) -> jax.Array:
    """`category_rng` of each name for visit 0, padded as a stack of them is: `[capacity]`."""
    hashes = [name_hash(name) for name in names]
    return _rngs(rng, np.asarray(hashes + hashes[:1] * (capacity - len(names)), np.uint32))


@jax.jit
def _rngs(rng: jax.Array, hashes: jax.Array) -> jax.Array:
    """All at once: a thousand, one after another, take a second."""
    return jax.vmap(lambda value: jax.random.fold_in(jax.random.fold_in(rng, value), 0))(hashes)


def stack_categories(
    state: LifelongState,
    names: Sequence[str],
    *,
    left_out: Collection[str] = ("closed_form",),
    shards: int = 1,
) -> StackedCategories:
    """The subtrees of `names`, along a new leading axis, in that order, padded to a power of two.

    With `shards` they are dealt out to so many devices, and padded to a multiple of them besides. On the
    host, where it is a copy, it compiles nothing; inside a `jit` of the caller it is traced.

    Raises:
        InputError: a category is unknown, or there is none.
    """
    check_known(state, names)
    if not names:
        raise InputError("no category: at least one is expected")
    capacity = power_of_two(len(names), MIN_CAPACITY)
    capacity = -(-capacity // shards) * shards
    padded = [*names, *[names[0]] * (capacity - len(names))]
    rows = [name for device in range(shards) for name in padded[device::shards]]
    return StackedCategories(stack_subtrees(state, rows, left_out=left_out), jnp.int32(len(names)), shards)


def category_groups(state: LifelongState) -> list[tuple[str, ...]]:
    """The categories in groups whose stacks fit into GROUP_BYTES each; an empty one where there are none."""
    if not state.names:
        return [()]
    own = {**state.params["categories"][state.names[0]], "closed_form": {}}
    fitting = GROUP_BYTES // max(sum(leaf.nbytes for leaf in jax.tree.leaves(own)), 1)
    size = max(MIN_CAPACITY, power_of_two(fitting + 1, 2) // 2)
    return [state.names[start : start + size] for start in range(0, len(state.names), size)]


def stack_subtrees(state: LifelongState, names: Sequence[str], *, left_out: Collection[str] = ("closed_form",)) -> Any:
    """The subtrees of `names`, at least one and known, as one tree of copies `[len(names), ...]`.

    Without the keys `left_out`: else what belongs to the closed-form recogniser.
    """
    trees = [
        {key: part for key, part in state.params["categories"][name].items() if key not in left_out} for name in names
    ]
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))
    stack_leaves = jnp.stack if traced else lambda leaves: jax.device_put(np.stack(leaves))
    return jax.tree.map(lambda *leaves: stack_leaves(leaves), *trees)


def unstack_subtrees(stacked: Any, names: Sequence[str]) -> dict[str, Any]:
    """Inverse of `stack_subtrees`: name to subtree, through the host, where it compiles nothing."""
    host = jax.device_get(stacked)
    return jax.device_put(
        {name: jax.tree.map(lambda leaf, index=index: leaf[index], host) for index, name in enumerate(names)}
    )
