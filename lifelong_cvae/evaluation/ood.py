"""Novelty: does the evidence tell images of unknown categories from those of known ones?

The score of an image is max_c log p(x|c) in nats: high where some category explains it. It is known to fail
where unknown images are simpler than known ones (Nalisnick et al. 2018, arXiv 1810.09136).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """Area under the ROC curve: how often a known image scores higher than an unknown one (ties: half).

    Args:
        known: scores `[n]` of images of known categories.
        unknown: scores `[m]` of others.
    """
    ordered = np.sort(unknown)
    lower, not_higher = (np.searchsorted(ordered, known, side) for side in ("left", "right"))
    return float((lower + not_higher).mean() / (2 * len(unknown)))


def leave_one_out_auroc(evidence: Mapping[str, np.ndarray], names: Sequence[str]) -> float | None:
    """Mean over categories c of the AUROC where c is unknown: its images, and its answer, are taken out.

    For a learner whose categories do not touch each other it is as if c had never come.

    Args:
        evidence: true category to log p(x|c) bounds `[n, len(names)]` in nats.
        names: category of each column.

    Returns:
        None where there is but one category.
    """
    if len(names) < 2:
        return None
    areas = []
    for index, name in enumerate(names):
        scores = {c: np.delete(values, index, axis=1).max(axis=1) for c, values in evidence.items()}
        unknown = scores.pop(name)
        areas.append(auroc(np.concatenate(list(scores.values())), unknown))
    return float(np.mean(areas))
