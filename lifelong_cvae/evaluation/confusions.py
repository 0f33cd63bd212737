"""Which categories are taken for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Confusion(NamedTuple):
    """Images of one category that were taken for another."""

    category: str
    taken_for: str
    images: np.ndarray  # positions among those of the category, the surest mistake first
    fraction: float  # of the category's images


def worst_confusions(log_posteriors: Mapping[str, np.ndarray], names: Sequence[str], count: int) -> list[Confusion]:
    """The confusions that concern the largest parts of their categories, at most `count`.

    Args:
        log_posteriors: true category to `[n, len(names)]`, higher is more likely; log evidence serves.
        names: category of each column.
        count: how many.
    """
    found = []
    for category, values in log_posteriors.items():
        answers = np.asarray(values).argmax(axis=1)
        by_how_much = np.asarray(values).max(axis=1) - np.asarray(values)[:, list(names).index(category)]
        for column in np.unique(answers):
            if names[column] != category:
                images = np.flatnonzero(answers == column)
                images = images[np.argsort(-by_how_much[images], kind="stable")]
                found.append(Confusion(category, names[column], images, len(images) / len(answers)))
    return sorted(found, key=lambda confusion: -confusion.fraction)[:count]
