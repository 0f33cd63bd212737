"""Sums of the closed-form recognizer in checkpoints up to schema 5.

Their features came from filters that were learned from the first task. This version does not compute these features,
so the sums are read for their checksums only. Everything else in such a checkpoint is used.
"""

from typing import Any

import jax.numpy as jnp

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.images import Shape

ROW_BLOCKS = 8
GRID_SHAPE = (22, 14)


def templates(settings: ClosedFormConfig, image_shape: Shape) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns arrays with the shapes and types of the common part, and of a category's part."""
    height, width, channels = image_shape
    side = min(settings.filter_size, height, width)
    cells = min(settings.pool_grid, height - side + 1, width - side + 1)
    filters, size = settings.num_filters, settings.random_features + 1
    rows = -(-size // ROW_BLOCKS)
    packed = sum(min(rows, size - start) * (size - start) for start in range(0, size, rows))
    pooled = jnp.zeros((cells * cells * filters,))
    dictionary = {
        "filters": jnp.zeros((side * side * channels, filters)),
        "offset": jnp.zeros((filters,)),
        "mean": pooled,
        "deviation": pooled,
        "seed": jnp.zeros((2,), jnp.uint32),
    }
    gram = {"gram": {"fit": jnp.zeros((packed,)), "held_out": jnp.zeros((packed,))}}
    vectors = {"sum": {"fit": jnp.zeros((size,)), "held_out": jnp.zeros((size,))}}
    common = {"dictionary": dictionary, "ridge": jnp.zeros(())}
    category = {**vectors, "calibration": jnp.zeros(GRID_SHAPE)}
    if settings.gram_sharing == "own":
        return common, {**category, **gram}
    return {**common, **gram}, category


def remove(part: dict[str, Any]) -> dict[str, Any]:
    """Returns a part of a checkpoint without sums."""
    kept = {key: value for key, value in part.items() if key != "ridge"}
    if "categories" in kept:
        kept["categories"] = {key: value for key, value in kept["categories"].items() if key != "ridge"}
    return kept
