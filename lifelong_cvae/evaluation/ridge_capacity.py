"""Fitting capacity by ridge regression: accuracy on real images of a regression that imagined images taught.

The regression reads the features of the closed-form recognizer (`ridge.features`), without random ones. They see fine
structure that the convolutional reference classifier does not need, and no category's images shape them.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.images import Shape, check_image_shape, every_nth, flatten_images, padded_batches
from lifelong_cvae.model.types import own_types
from lifelong_cvae.ridge import features, penalty, regression, sums

# Features of gray images, and of images in color, whose mirror images are learned too.
GRAY = ClosedFormConfig(num_filters=128, pool_grid=4, random_features=0, filter_seed=1)
COLOR = ClosedFormConfig(num_filters=256, pool_grid=2, random_features=0, filter_seed=1, fold_mirrors=True)
# Of so many images one is held out to select the penalty.
HELD_OUT_EVERY = 10


@own_types()
def ridge_capacity(images: Mapping[str, Any], real: Mapping[str, Any]) -> float:
    """Computes the accuracy on real images of a ridge regression trained on others, as a fraction.

    Every tenth image to train on selects the penalty from `penalty.RIDGES`; then all of them are used.

    Args:
        images: images by category to train on, uint8 or float in [0, 1], `[n, h, w, c]`.
        real: images by category to test on, `[m, h, w, c]`. The accuracy is over all of them together.
    """
    shape = check_image_shape(np.shape(next(iter(images.values())))[1:])
    settings = GRAY if shape[-1] == 1 else COLOR
    made = features.make_dictionary(settings, shape), features.expansion_matrix(settings, shape)
    extract = partial(_extract, *made, image_shape=shape, settings=settings)
    taught = {name: extract(values) for name, values in images.items()}
    held_out = {name: every_nth(len(phi), HELD_OUT_EVERY) for name, phi in taught.items()}
    fit = _sums({name: phi[~held_out[name]] for name, phi in taught.items()})
    kept = {name: phi[held_out[name]] for name, phi in taught.items()}
    best = penalty.FIRST_RIDGE
    if any(map(len, kept.values())):
        best = max(penalty.RIDGES, key=lambda ridge: _accuracy(regression.solve(*fit, np.float32(ridge))[0], kept))
    tested = {name: extract(values) for name, values in real.items()}
    return _accuracy(regression.solve(*_sums(taught), np.float32(best))[0], tested)


def _extract(
    dictionary: features.Dictionary, expand: jax.Array, images: Any, *, image_shape: Shape, settings: ClosedFormConfig
) -> np.ndarray:
    """Returns the features of images, int8 `[n, features]`."""
    rows = flatten_images(images, image_shape)
    options = {"image_shape": image_shape, "settings": settings}
    batches = list(map(np.asarray, features.feature_batches(dictionary, expand, rows, **options)))
    return np.concatenate(batches)[: len(rows)]


def _sums(phi: Mapping[str, np.ndarray]) -> tuple[sums.ExactSum, np.ndarray]:
    """Returns the Gram matrix of all categories, in which they weigh the same, and the sums of each."""
    total, columns = None, []
    for values in phi.values():
        batches = (batch for _, batch in padded_batches(values, *features.BATCH_SIZES))
        gram, vector = sums.compute_sums(batches, len(values), len(values), num_features=values.shape[1])
        total = gram if total is None else sums.add(total, gram)
        columns.append(sums.decode(vector))
    return total, np.stack(columns, axis=1)


def _accuracy(solution: regression.Solution, phi: Mapping[str, np.ndarray]) -> float:
    """Returns the fraction of images, with features by category in the order of the solution's columns."""
    weights, intercept = np.asarray(solution.weights), np.asarray(solution.intercept)
    right = [
        np.argmax(values.astype(np.float32) @ weights + intercept, axis=1) == column
        for column, values in enumerate(phi.values())
    ]
    return float(np.concatenate(right).mean())
