"""Precision and recall of distributions, after Sajjadi et al. 2018 (arXiv 1806.00035).

Both sets are clustered together; p and q are how the real and the imagined fall into the clusters. For each
slope, precision = sum min(slope p, q) and recall = precision / slope draw a curve; F_8 weighs recall 8 times
as much as precision, F_1/8 the other way round, and their maxima over the curve stand for the two.
"""

from __future__ import annotations

import numpy as np

from lifelong_cvae.errors import InputError, use_package

CLUSTERS = 20
ANGLES = 1001
REPEATS = 10
WEIGHT = 8.0


def precision_and_recall(imagined: np.ndarray, real: np.ndarray, *, seed: int = 0) -> dict[str, float]:
    """`precision` (F_1/8) and `recall` (F_8) of features `[n, features]` against `[m, features]`.

    Means over `REPEATS` clusterings by k-means. As many of each set are used: of the larger one a part that
    is drawn by chance, for its images may be sorted by category.

    Raises:
        InputError: a set is empty.
    """
    use_package("sklearn")
    from sklearn.cluster import MiniBatchKMeans

    count = min(len(imagined), len(real))
    if not count:
        raise InputError("no image: at least one imagined and one real image are expected")
    noise = np.random.default_rng(seed)
    parts = [features[noise.permutation(len(features))[:count]] for features in (real, imagined)]
    together = np.concatenate(parts).astype(np.float64)
    clusters = min(CLUSTERS, count)
    scores = []
    for repeat in range(REPEATS):
        means = MiniBatchKMeans(clusters, n_init=10, random_state=seed + repeat)
        labels = means.fit_predict(together)
        shares = [np.bincount(part, minlength=clusters) / count for part in (labels[:count], labels[count:])]
        scores.append(_scores(*shares))
    precision, recall = np.mean(scores, axis=0)
    return {"precision": float(precision), "recall": float(recall)}


def curve(real: np.ndarray, imagined: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall at each of `ANGLES` slopes, from the shares of each cluster `[clusters]`."""
    # Not quite 0 and a right angle, as the authors have it: their slopes are 0 and infinity.
    slopes = np.tan(np.linspace(1e-6, np.pi / 2 - 1e-6, ANGLES))[:, None]
    precision = np.minimum(slopes * real[None], imagined[None]).sum(axis=1)
    return precision, precision / slopes[:, 0]


def _scores(real: np.ndarray, imagined: np.ndarray) -> tuple[float, float]:
    precision, recall = curve(real, imagined)

    def best(weight: float) -> float:
        total = weight**2 * precision + recall
        scores = (1 + weight**2) * precision * recall / np.maximum(total, 1e-12)
        return float(scores.max())

    return best(1 / WEIGHT), best(WEIGHT)
