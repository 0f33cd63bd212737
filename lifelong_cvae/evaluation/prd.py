"""Precision and recall of distributions (Sajjadi et al. 2018, arXiv 1806.00035).

Real and imagined images are clustered together; p and q are their shares of the clusters. The slopes s draw a curve:

    precision(s) = sum_k min(s p_k, q_k)        recall(s) = precision(s) / s

The maxima over the curve of F_1/8 and F_8 stand for precision and recall; F_8 weights recall 8 times as much as
precision, F_1/8 the reverse.
"""

import numpy as np

from lifelong_cvae.errors import InputError, use_package

CLUSTERS = 20
ANGLES = 1001
REPEATS = 10
WEIGHT = 8.0


def precision_and_recall(imagined: np.ndarray, real: np.ndarray, *, seed: int = 0) -> dict[str, float]:
    """Computes precision (F_1/8) and recall (F_8), as means over `REPEATS` clusterings by k-means.

    Equally many images of both sets are clustered. They are a random subset, because sets may be sorted by category.

    Args:
        imagined: features, `[n, features]`.
        real: features, `[m, features]`.
        seed: seed of the subset and of the clusterings.

    Raises:
        InputError: a set is empty.
    """
    use_package("sklearn")
    from sklearn.cluster import MiniBatchKMeans

    count = min(len(imagined), len(real))
    if not count:
        raise InputError(
            f"precision and recall: expected at least one imagined and one real image, "
            f"got {len(imagined)} and {len(real)}"
        )
    numbers = np.random.default_rng(seed)
    subsets = [features[numbers.permutation(len(features))[:count]] for features in (real, imagined)]
    points = np.concatenate(subsets).astype(np.float64)
    clusters = min(CLUSTERS, count)
    scores = []
    for repeat in range(REPEATS):
        k_means = MiniBatchKMeans(clusters, n_init=10, random_state=seed + repeat)
        labels = k_means.fit_predict(points)
        shares = [np.bincount(part, minlength=clusters) / count for part in (labels[:count], labels[count:])]
        scores.append(_f_scores(*shares))
    precision, recall = np.mean(scores, axis=0)
    return {"precision": float(precision), "recall": float(recall)}


def curve(real: np.ndarray, imagined: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes precision and recall `[ANGLES]` at as many slopes, in increasing order.

    Args:
        real: share of the real images in each cluster, `[clusters]`.
        imagined: share of the imagined images in each cluster, `[clusters]`.
    """
    # The authors use the angles 0 and pi / 2 themselves, whose slopes are 0 and infinity.
    slopes = np.tan(np.linspace(1e-6, np.pi / 2 - 1e-6, ANGLES))[:, None]
    precision = np.minimum(slopes * real[None], imagined[None]).sum(axis=1)
    return precision, precision / slopes[:, 0]


def _f_scores(real: np.ndarray, imagined: np.ndarray) -> tuple[float, float]:
    """Computes the maxima of F_1/8 and F_8 over the curve of two histograms `[clusters]`."""
    precision, recall = curve(real, imagined)

    def max_f_score(weight: float) -> float:
        total = weight**2 * precision + recall
        scores = (1 + weight**2) * precision * recall / np.maximum(total, 1e-12)
        return float(scores.max())

    return max_f_score(1 / WEIGHT), max_f_score(WEIGHT)
