"""Pairs of categories that a recognizer confuses or finds alike."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.special


class Confusion(NamedTuple):
    """Images of one category that were recognized as another.

    Attributes:
        category: true category.
        taken_for: predicted category.
        images: indices into the images of the true category, in order of decreasing margin of the mistake.
        fraction: fraction of the true category's images.
    """

    category: str
    taken_for: str
    images: np.ndarray
    fraction: float


def worst_confusions(log_posteriors: Mapping[str, np.ndarray], names: Sequence[str], count: int) -> list[Confusion]:
    """Returns the confusions with the largest fractions, in decreasing order.

    Args:
        log_posteriors: true category to `[n, len(names)]`. A constant per image may be missing, so log evidence
            serves as well.
        names: category of each column.
        count: maximum number of confusions.
    """
    confusions = []
    for category, values in log_posteriors.items():
        predictions = np.asarray(values).argmax(axis=1)
        margins = np.asarray(values).max(axis=1) - np.asarray(values)[:, list(names).index(category)]
        for column in np.unique(predictions):
            if names[column] != category:
                images = np.flatnonzero(predictions == column)
                images = images[np.argsort(-margins[images], kind="stable")]
                confusions.append(Confusion(category, names[column], images, len(images) / len(predictions)))
    return sorted(confusions, key=lambda confusion: -confusion.fraction)[:count]


class Neighbor(NamedTuple):
    """The category that is most like another one.

    Attributes:
        category: true category.
        nearest: the other category with the highest mean probability.
        probability: mean probability of `nearest`.
    """

    category: str
    nearest: str
    probability: float


def nearest_categories(log_posteriors: Mapping[str, np.ndarray], names: Sequence[str]) -> list[Neighbor]:
    """Returns the nearest other category of each, none if there is only one.

    Arguments as in `worst_confusions`.
    """
    neighbors = []
    for category, values in log_posteriors.items() if len(names) > 1 else ():
        means = scipy.special.softmax(np.asarray(values, np.float64), axis=1).mean(axis=0)
        means[list(names).index(category)] = -1
        nearest = int(means.argmax())
        neighbors.append(Neighbor(category, names[nearest], float(means[nearest])))
    return neighbors
