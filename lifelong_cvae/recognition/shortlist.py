"""Recognition among many categories: a cheap rule names the likeliest of each image, and these are weighed.

The rule is the regression of `closed_form`, or, where a state keeps no sums, the distance to prototypes: to
what a category draws of the likeliest components of its prior. What is weighed are pairs of an image and a
category. Sorted by category they are cut into tiles of one category each, so that its parameters are read
once for many images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.config import RecognitionConfig
from lifelong_cvae.images import padded_batches, power_of_two, to_float
from lifelong_cvae.model import cvae
from lifelong_cvae.model.networks import Networks
from lifelong_cvae.stacked import StackedCategories
from lifelong_cvae.state import LifelongState

PROTOTYPES = 4
# Smallest and largest number of images that are cut into tiles together: the more, the fuller are tiles.
BATCH_SIZES = (8, 8192)
# Images whose distances to all prototypes are there at a time.
PROTOTYPE_BATCH_SIZES = (8, 1024)
TILE = 32
# Tiles at once. A CPU computes one after another, which keeps its caches warm.
CPU_TILES, ACCELERATOR_TILES = 1, 64


class Prototypes(NamedTuple):
    """What categories draw of the means of the likeliest components of p(z|c), at most PROTOTYPES each."""

    images: jax.Array  # [prototypes, categories, pixels], in [0, 1]; the last axis but one is padded
    halves: jax.Array  # half of their squared norms, [prototypes, categories]
    count: int  # of categories


def make_prototypes(state: LifelongState, stacks: Sequence[StackedCategories]) -> Prototypes:
    """Prototypes of all categories, which lie in `stacks` in the order of `state.names`."""
    mixed, counts = state.params["mixed"], [int(stack.count) for stack in stacks]
    parts = [
        np.asarray(_decode_prototypes(mixed, stack, networks=state.networks))[:count]
        for stack, count in zip(stacks, counts, strict=True)
    ]
    images = np.concatenate(parts).transpose(1, 0, 2)
    missing = power_of_two(sum(counts), PROTOTYPE_BATCH_SIZES[0]) - sum(counts)
    images = np.pad(images, ((0, 0), (0, missing), (0, 0)))
    return Prototypes(*jax.device_put((images, 0.5 * np.square(images).sum(axis=-1))), sum(counts))


@partial(jax.jit, static_argnames="networks")
def _decode_prototypes(mixed: Any, stack: StackedCategories, *, networks: Networks) -> jax.Array:
    def one(category: Any) -> jax.Array:
        model = cvae.CategoryModel(mixed, category, networks)
        likely = jnp.argsort(-model.prior["logits"])[:PROTOTYPES]
        return cvae.decode_mean(model, model.prior["means"][likely])

    return stack.map_categories(one)


def prototype_scores(among: Prototypes, rows: Any) -> np.ndarray:
    """How near rows are to each category's nearest prototype: the larger, the nearer, `[n, categories]`."""
    parts = [np.asarray(_prototype_scores(among, block)) for _, block in padded_batches(rows, *PROTOTYPE_BATCH_SIZES)]
    return np.concatenate([*parts, np.zeros((0, among.images.shape[1]))])[: len(rows), : among.count]


@jax.jit
def _prototype_scores(among: Prototypes, rows: jax.Array) -> jax.Array:
    """x.p - |p|^2 / 2, which is -|x - p|^2 / 2 but for what an image's candidates have in common."""
    x, nearest = to_float(rows), None
    with jax.default_matmul_precision("float32"):
        for images, halves in zip(among.images, among.halves, strict=True):
            close = x @ images.T - halves[None]
            nearest = close if nearest is None else jnp.maximum(nearest, close)
    return nearest


def top_categories(scores: Any, count: int) -> np.ndarray:
    """The columns of the `count` highest scores of each image, `[n, count]`, in no order."""
    return np.argpartition(-np.asarray(scores), count - 1, axis=1)[:, :count]


def pair_evidence(
    state: LifelongState, stacks: Sequence[StackedCategories], rows: Any, chosen: np.ndarray, *, rng: jax.Array | None
) -> jax.Array:
    """The bounds of `recognition.evidence` for chosen categories, -inf for all others.

    Args:
        state: what has been learned.
        stacks: its categories in the order of `state.names`.
        rows: images `[n, pixels]`.
        chosen: columns of the categories that are asked of each image, `[n, candidates]`.
        rng: source of the samples, for the bounds that draw some; each pair has its own.

    Returns:
        float32 `[n, categories]` in nats per image.
    """
    found = np.full((len(rows), len(state.names)), -np.inf, np.float32)
    for start, block in padded_batches(rows, *BATCH_SIZES):
        asked, first = chosen[start : start + len(block)], 0
        images = np.repeat(np.arange(len(asked)), asked.shape[1])
        for stack in stacks:
            columns, last = asked.ravel(), first + int(stack.count)
            inside = (columns >= first) & (columns < last)
            where = images[inside], columns[inside] - first
            pairs_rng = None if rng is None else jax.random.fold_in(jax.random.fold_in(rng, start), first)
            most = len(block) * asked.shape[1]
            values = _stack_evidence(state, stack, block, *where, most=most, rng=pairs_rng)
            found[start + where[0], first + where[1]] = values
            first = last
    return jax.device_put(found)


def _stack_evidence(
    state: LifelongState,
    stack: StackedCategories,
    block: jax.Array,
    images: np.ndarray,
    categories: np.ndarray,
    *,
    most: int,
    rng: jax.Array | None,
) -> np.ndarray:
    """Bounds of pairs, at most `most`, of a row of the block and one of the stack: `[pairs]`."""
    order = np.argsort(categories, kind="stable")
    counts = np.bincount(categories, minlength=stack.capacity)
    tiles = -(-counts // TILE)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = np.repeat((np.cumsum(tiles) - tiles) * TILE, counts) + rank
    # As many as there can be, so that one program serves for blocks of a size; the first row fills tiles up.
    length = power_of_two(min(most, stack.capacity + most // TILE), ACCELERATOR_TILES)
    of_tile = np.zeros(length, np.int32)
    of_tile[: tiles.sum()] = np.repeat(np.arange(stack.capacity), tiles)
    lanes = np.zeros(length * TILE, np.int32)
    lanes[place] = images[order]
    values = _tile_evidence(
        state.params["mixed"],
        stack,
        block,
        of_tile,
        lanes.reshape(length, TILE),
        np.int32(tiles.sum()),
        rng,
        networks=state.networks,
        settings=state.config.recognition,
    )
    found = np.empty(len(order), np.float32)
    found[order] = np.asarray(values).ravel()[place]
    return found


@partial(jax.jit, static_argnames=("networks", "settings"))
def _tile_evidence(
    mixed: Any,
    stack: StackedCategories,
    rows: jax.Array,
    of_tile: jax.Array,
    lanes: jax.Array,
    count: jax.Array,
    rng: jax.Array | None,
    *,
    networks: Networks,
    settings: RecognitionConfig,
) -> jax.Array:
    """Bounds of the rows `lanes` `[tiles, TILE]` for each tile's category, in the first `count` tiles."""
    with jax.default_matmul_precision("float32"):
        activations = cvae.mixed_activations(cvae.CategoryModel(mixed, {}, networks), "encoder", to_float(rows))

    def one(index: jax.Array) -> jax.Array:
        chosen = lanes[index]
        category = jax.tree.map(lambda leaf: leaf[of_tile[index]], stack.categories)
        neurons = jax.tree.map(lambda leaf: leaf[chosen], activations)
        tile_rng = None if rng is None else jax.random.fold_in(rng, index)
        model = cvae.CategoryModel(mixed, category, networks)
        return cvae.evidence_bound(model, to_float(rows[chosen]), neurons, settings, rng=tile_rng)

    def loop(side_by_side: int) -> jax.Array:
        several = one if side_by_side == 1 else jax.vmap(one)

        def step(turn: jax.Array, found: jax.Array) -> jax.Array:
            first = turn * side_by_side
            indices = first if side_by_side == 1 else first + jnp.arange(side_by_side)
            values = several(indices).reshape(side_by_side, TILE)
            return jax.lax.dynamic_update_slice(found, values, (first, 0))

        turns = -(-count // side_by_side)
        return jax.lax.fori_loop(0, turns, step, jnp.zeros(lanes.shape))

    with jax.default_matmul_precision("float32"):
        return jax.lax.platform_dependent(cpu=lambda: loop(CPU_TILES), default=lambda: loop(ACCELERATOR_TILES))
