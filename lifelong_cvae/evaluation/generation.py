"""How good imagined images are: distances between sets of features, and copies that would show.

Features are the classifier's (`classifier.py`), so figures compare runs on the same data set, not publications.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.linalg

from lifelong_cvae.evaluation import prdc
from lifelong_cvae.images import check_image_shape, flatten_images

BATCH = 500


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared Fréchet distance of the Gaussians that have the means and covariances of two sets.

    `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`. Sources: Dowson and Landau 1982; Heusel et al. 2017
    (arXiv 1706.08500) for its use on features of a classifier.

    Args:
        first: features `[n, features]`.
        second: features `[m, features]`.
    """
    means = [features.mean(axis=0, dtype=np.float64) for features in (first, second)]
    covariances = [np.atleast_2d(np.cov(features.astype(np.float64), rowvar=False)) for features in (first, second)]
    # tr (C1 C2)^(1/2) by the eigenvalues of the symmetric C1^(1/2) C2 C1^(1/2), also of short rank.
    values, vectors = scipy.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    middle = scipy.linalg.eigvalsh(root @ covariances[1] @ root)
    trace = sum(np.trace(c) for c in covariances) - 2 * np.sqrt(np.maximum(middle, 0)).sum()
    return float(np.square(means[0] - means[1]).sum() + trace)


def feature_metrics(imagined: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Fréchet distance, precision, recall, density and coverage of features `[n, features]`."""
    distance = frechet_distance(imagined, real)
    return {"frechet_distance": distance, **prdc.prdc(imagined, real)}


def nearest_distances(images: Any, training: Any) -> np.ndarray:
    """Euclidean distance of each image to the nearest training image, pixels in [0, 1]: `[n]`.

    Args:
        images: uint8 or float in [0, 1], `[n, h, w, c]`.
        training: as many pixels, `[m, h, w, c]`.
    """
    shape = check_image_shape(np.shape(training)[1:])
    queries, stored = (_unit(flatten_images(values, shape)) for values in (images, training))
    squares = np.square(stored).sum(axis=1)
    nearest = [
        (squares - 2 * block @ stored.T).min(axis=1) + np.square(block).sum(axis=1)
        for block in (queries[start : start + BATCH] for start in range(0, len(queries), BATCH))
    ]
    return np.sqrt(np.maximum(np.concatenate(nearest), 0))


def nearest_neighbor_metrics(
    imagined: Mapping[str, Any],
    training: Mapping[str, Any],
    held_out: Mapping[str, Any],
    reconstructed: Mapping[str, Any],
) -> dict[str, float]:
    """Median distance to the nearest training image of the category; copies would be nearer than the rest.

    An imagined image is a decoder's mean: it lacks what is accidental in a real image, and that alone takes
    it nearer. So it is compared with held-out images, and with the model's reconstructions of them.

    Returns:
        `imagined`, `held_out`, `reconstructed` (medians over all images), `ratio` (imagined to held out)
        and `ratio_reconstructed` (imagined to reconstructed).
    """
    kinds = {"imagined": imagined, "held_out": held_out, "reconstructed": reconstructed}
    medians = {
        kind: float(np.median(np.concatenate([nearest_distances(images[n], training[n]) for n in images])))
        for kind, images in kinds.items()
    }
    return {
        **medians,
        "ratio": medians["imagined"] / medians["held_out"],
        "ratio_reconstructed": medians["imagined"] / medians["reconstructed"],
    }


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.float32(255) if rows.dtype == np.uint8 else rows
