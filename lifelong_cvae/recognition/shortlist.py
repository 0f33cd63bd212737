"""Recognition with a shortlist: the regression selects the likeliest categories of each image, evidence ranks them.

Evidence is evaluated for pairs of an image and a category. Sorted by category, the pairs are split into tiles of one
category each, so that the parameters of a category are read once for many images.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from lifelong_cvae.config import RecognitionConfig
from lifelong_cvae.images import padded_batches, power_of_two, to_float
from lifelong_cvae.model import cpu, cvae, elbo
from lifelong_cvae.model.networks import Networks
from lifelong_cvae.model.vectors import log_volume
from lifelong_cvae.stacked import StackedCategories
from lifelong_cvae.state import LifelongState

# Smallest and largest number of images that are split into tiles together. More images fill tiles better.
BATCH_SIZES = (8, 8192)
# Pairs per tile.
TILE = 32


def top_categories(scores: Any, count: int) -> np.ndarray:
    """Returns the columns of the `count` highest scores of each image, `[n, count]`, unordered."""
    return np.argpartition(-np.asarray(scores), count - 1, axis=1)[:, :count]


def pair_evidence(
    state: LifelongState,
    stacks: Sequence[StackedCategories],
    rows: Any,
    candidates: np.ndarray,
    *,
    rng: jax.Array | None,
) -> jax.Array:
    """Computes `recognition.evidence` for each image's candidates, `[n, categories]`; others are -inf.

    Args:
        state: state of the learner.
        stacks: its categories in the order of `state.names`.
        rows: images `[n, pixels]`, uint8 or float in [0, 1].
        candidates: columns of the categories on each image's shortlist, `[n, candidates]`.
        rng: key of the samples, for bounds that are sampled. Each pair has its own samples.
    """
    evidence, volume = np.full((len(rows), len(state.names)), -np.inf, np.float32), log_volume(state.standardization)
    for start, batch in padded_batches(rows, *BATCH_SIZES):
        columns, first = candidates[start : start + len(batch)], 0
        images = np.repeat(np.arange(len(columns)), columns.shape[1])
        max_pairs = len(batch) * columns.shape[1]
        columns = columns.ravel()
        for stack in stacks:
            last = first + int(stack.count)
            in_stack = (columns >= first) & (columns < last)
            pairs = images[in_stack], columns[in_stack] - first
            pairs_rng = None if rng is None else jax.random.fold_in(jax.random.fold_in(rng, start), first)
            values = _stack_evidence(state, stack, batch, *pairs, max_pairs=max_pairs, rng=pairs_rng)
            evidence[start + pairs[0], first + pairs[1]] = values + volume
            first = last
    return jax.device_put(evidence)


def _stack_evidence(
    state: LifelongState,
    stack: StackedCategories,
    rows: jax.Array,
    images: np.ndarray,
    categories: np.ndarray,
    *,
    max_pairs: int,
    rng: jax.Array | None,
) -> np.ndarray:
    """Computes the bounds `[pairs]` of rows `images` of `rows` for categories `categories` of the stack.

    No batch of this size has more than `max_pairs` pairs.
    """
    order = np.argsort(categories, kind="stable")
    pair_counts = np.bincount(categories, minlength=stack.capacity)
    tile_counts = -(-pair_counts // TILE)
    rank_in_category = np.arange(len(order)) - np.repeat(np.cumsum(pair_counts) - pair_counts, pair_counts)
    slots = np.repeat((np.cumsum(tile_counts) - tile_counts) * TILE, pair_counts) + rank_in_category
    # The largest number of tiles that can occur, so that one program serves all batches of a size. Row 0 is padding.
    num_tiles = power_of_two(min(max_pairs, stack.capacity + max_pairs // TILE), cpu.ACCELERATOR_TILES)
    tile_categories = np.zeros(num_tiles, np.int32)
    tile_categories[: tile_counts.sum()] = np.repeat(np.arange(stack.capacity), tile_counts)
    tile_images = np.zeros(num_tiles * TILE, np.int32)
    tile_images[slots] = images[order]
    values = _tile_evidence(
        state.params["mixed"],
        stack,
        rows,
        tile_categories,
        tile_images.reshape(num_tiles, TILE),
        np.int32(tile_counts.sum()),
        rng,
        networks=state.networks,
        settings=state.config.recognition,
    )
    evidence = np.empty(len(order), np.float32)
    evidence[order] = np.asarray(values).ravel()[slots]
    return evidence


@partial(jax.jit, static_argnames=("networks", "settings"))
def _tile_evidence(
    mixed: Any,
    stack: StackedCategories,
    rows: jax.Array,
    tile_categories: jax.Array,
    tile_images: jax.Array,
    valid: jax.Array,
    rng: jax.Array | None,
    *,
    networks: Networks,
    settings: RecognitionConfig,
) -> jax.Array:
    """Computes the bounds of the rows `tile_images` `[tiles, TILE]` for each tile's category."""

    def evaluate_tile(index: jax.Array) -> jax.Array:
        images = tile_images[index]
        category = jax.tree.map(lambda leaf: leaf[tile_categories[index]], stack.categories)
        tile_activations = jax.tree.map(lambda leaf: leaf[images], activations)
        tile_rng = None if rng is None else jax.random.fold_in(rng, index)
        model = cvae.CategoryModel(mixed, category, networks)
        return elbo.evidence_bound(model, to_float(rows[images]), tile_activations, settings, rng=tile_rng)

    with jax.default_matmul_precision("float32"):
        activations = cvae.mixed_activations(cvae.CategoryModel(mixed, {}, networks), "encoder", to_float(rows))
        return cpu.map_tiles(evaluate_tile, valid, tile_images.shape)
