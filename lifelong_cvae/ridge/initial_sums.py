"""Sums before the first images, and which images of a visit they leave out."""

from typing import Any

import jax
import numpy as np

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.images import Shape, every_nth
from lifelong_cvae.model import rejection
from lifelong_cvae.ridge import features, penalty, sums, temperature_scaling
from lifelong_cvae.ridge.sums import ExactSum

# Of so many images one is held out for calibration. Of fewer images two are, but at most one of `FEWEST`.
HELD_OUT_EVERY, FEWEST = 20, 4


def empty_common_sums(settings: ClosedFormConfig, image_shape: Shape) -> dict[str, Any]:
    """Returns the parts common to all categories before the first task."""
    common = {
        "dictionary": features.empty_dictionary(settings, image_shape),
        "ridge": jax.device_put(np.float32(penalty.FIRST_RIDGE)),
    }
    return common if settings.gram_sharing == "own" else {**common, "gram": _empty_gram(settings, image_shape)}


def empty_category_sums(settings: ClosedFormConfig, image_shape: Shape) -> dict[str, Any]:
    """Returns the subtree of a category before its first visit."""
    vector = {part: sums.zeros_vector(size + 1) for part, size in _part_sizes(settings, image_shape).items()}
    thresholds = rejection.uncalibrated_thresholds()
    subtree = {"sum": vector, "calibration": temperature_scaling.empty_grid(), "thresholds": thresholds}
    return {**subtree, "gram": _empty_gram(settings, image_shape)} if settings.gram_sharing == "own" else subtree


def _empty_gram(settings: ClosedFormConfig, image_shape: Shape) -> dict[str, ExactSum]:
    return {part: sums.zeros_gram(size) for part, size in _part_sizes(settings, image_shape).items()}


def _part_sizes(settings: ClosedFormConfig, image_shape: Shape) -> dict[str, int]:
    """Returns the number of features in sums over all images, and over held-out ones."""
    size = features.feature_sizes(settings, image_shape).features
    return {"all": size, "held_out": -(-size // penalty.SEARCH_STRIDE)}


def held_out_mask(count: int) -> np.ndarray:
    """Returns True for each held-out image of `count` images: bool `[count]`.

    Every 20th is held out; of 8 to 39 images two, of 4 to 7 one.
    """
    every = min(max(count // 2, FEWEST), HELD_OUT_EVERY)
    return every_nth(count, every)
