"""Novelty detection: the evidence as a score that separates known from unknown images.

The score of an image is max_c log p(x|c) in nats. It is high if some category explains the image. It is known to fail
if unknown images are simpler than known ones (Nalisnick et al. 2018, arXiv 1810.09136).
"""

from collections.abc import Mapping, Sequence

import numpy as np


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """Computes the area under the ROC curve: P(known image > unknown image), ties counted one half.

    Args:
        known: scores of images of known categories, `[n]`.
        unknown: scores of other images, `[m]`.
    """
    ordered = np.sort(unknown)
    lower, not_higher = (np.searchsorted(ordered, known, side) for side in ("left", "right"))
    return float((lower + not_higher).mean() / (2 * len(unknown)))


def leave_one_out_auroc(evidence: Mapping[str, np.ndarray], names: Sequence[str]) -> float | None:
    """Computes the mean AUROC with each category in turn as the unknown one, or None if there is only one.

    The column of the unknown category is left out of every score. If categories do not depend on each other, this
    equals the AUROC of a learner that never met the category.

    Args:
        evidence: true category to bounds on log p(x|c) in nats, `[n, len(names)]`.
        names: category of each column.
    """
    if len(names) < 2:
        return None
    areas = []
    for index, name in enumerate(names):
        scores = {c: np.delete(values, index, axis=1).max(axis=1) for c, values in evidence.items()}
        unknown = scores.pop(name)
        areas.append(auroc(np.concatenate(list(scores.values())), unknown))
    return float(np.mean(areas))
