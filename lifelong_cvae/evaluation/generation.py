"""Quality of imagined images: distances between sets of features, and distances to training images.

Features are those of the reference classifier (`reference_classifier.py`), so metrics compare runs on the same data
set, not publications.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import scipy.linalg

from lifelong_cvae.evaluation import prd, prdc
from lifelong_cvae.evaluation.reference_classifier import ReferenceClassifier
from lifelong_cvae.images import check_image_shape, flatten_images, to_float

BATCH = 500

# Category name to images `[n, h, w, c]`.
Images = Mapping[str, Any]


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Computes the squared Fréchet distance of the Gaussians with the means and covariances of two sets.

        |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))

    Sources: Dowson and Landau 1982; Heusel et al. 2017 (arXiv 1706.08500) for its use on features of a classifier.

    Args:
        first: features, `[n, features]`.
        second: features, `[m, features]`.
    """
    means = [features.mean(axis=0, dtype=np.float64) for features in (first, second)]
    covariances = [np.atleast_2d(np.cov(features.astype(np.float64), rowvar=False)) for features in (first, second)]
    # tr (C1 C2)^(1/2) from the eigenvalues of the symmetric C1^(1/2) C2 C1^(1/2); also if the rank is deficient.
    values, vectors = scipy.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    eigenvalues = scipy.linalg.eigvalsh(root @ covariances[1] @ root)
    trace = sum(np.trace(c) for c in covariances) - 2 * np.sqrt(np.maximum(eigenvalues, 0)).sum()
    return float(np.square(means[0] - means[1]).sum() + trace)


def feature_metrics(imagined: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Computes Fréchet distance, precision, recall, density and coverage.

    Args:
        imagined: features, `[n, features]`.
        real: features, `[m, features]`.
    """
    return {"frechet_distance": frechet_distance(imagined, real), **prdc.prdc(imagined, real)}


def nearest_distances(images: Any, training: Any) -> np.ndarray:
    """Computes the Euclidean distance of each image to the nearest training image, `[n]`.

    Distances are over pixels in [0, 1], or over the values of vectors.

    Args:
        images: uint8 or float in [0, 1], `[n, h, w, c]`, or vectors `[n, d]`.
        training: training images of the same shape, `[m, h, w, c]`, or vectors `[m, d]`.
    """
    queries, stored = (_flat_values(values) for values in (images, training))
    squares = np.square(stored).sum(axis=1)
    nearest = [
        (squares - 2 * block @ stored.T).min(axis=1) + np.square(block).sum(axis=1)
        for block in (queries[start : start + BATCH] for start in range(0, len(queries), BATCH))
    ]
    return np.sqrt(np.maximum(np.concatenate(nearest), 0))


def _flat_values(images: Any) -> np.ndarray:
    """Returns pixels in [0, 1], or vectors as they are, float32 `[n, values]`."""
    if np.ndim(images) == 2:
        return np.asarray(images, np.float32)
    return to_float(flatten_images(images, check_image_shape(np.shape(images)[1:])))


def nearest_neighbor_metrics(
    imagined: Mapping[str, Any],
    training: Mapping[str, Any],
    held_out: Mapping[str, Any],
    reconstructed: Mapping[str, Any],
) -> dict[str, float]:
    """Computes median distances to the nearest training image of the same category.

    Copies of training images would have small distances. An imagined image is a decoder's mean: it lacks the
    accidental details of real images, and is nearer for this reason alone. So imagined images are compared with
    held-out images, and with the model's reconstructions of held-out images.

    Args:
        imagined: imagined images by category, `[n, h, w, c]`.
        training: training images by category.
        held_out: held-out real images by category.
        reconstructed: reconstructions of `held_out` by category.

    Returns:
        `imagined`, `held_out`, `reconstructed` (medians over all images), `ratio` (imagined to held out) and
        `ratio_reconstructed` (imagined to reconstructed).
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


def similarity_metrics(images: Images, real: Images, classifier: ReferenceClassifier) -> dict[str, Any]:
    """Compares images with real ones by features and predictions of the reference classifier.

    Args:
        images: imagined images by category, or real ones for a floor, `[n, h, w, c]`.
        real: real images of the same categories, `[m, h, w, c]`.
        classifier: reference classifier.

    Returns:
        `frechet_distance`, `precision`, `recall`, `density` and `coverage` of all images together; `agreement`, the
        fraction of images that the classifier assigns to their category, as a mean over categories; and
        `per_category`, the same metrics of each category.
    """
    outputs = {name: classifier.features_and_predictions(values) for name, values in images.items()}
    features = {name: values for name, (values, _) in outputs.items()}
    agreement = {name: float((predictions == name).mean()) for name, (_, predictions) in outputs.items()}
    real_features = {name: classifier.features(values) for name, values in real.items()}
    return {
        **feature_metrics(*(np.concatenate(list(values.values())) for values in (features, real_features))),
        "agreement": float(np.mean(list(agreement.values()))),
        "per_category": {
            name: {**feature_metrics(features[name], real_features[name]), "agreement": agreement[name]}
            for name in images
        },
    }


def generation_metrics(
    images: Images, real: Images, classifier: ReferenceClassifier, *, rng: jax.Array
) -> dict[str, Any]:
    """Computes `similarity_metrics`, and `fitting_capacity` of a classifier trained with key `rng`."""
    capacity = classifier.fitting_capacity(images, real, rng=rng)
    return {**similarity_metrics(images, real, classifier), "fitting_capacity": capacity}


def per_task_metrics(
    imagined: Images, real: Images, tasks: Sequence[Sequence[str]], classifier: ReferenceClassifier, *, seed: int
) -> dict[str, float]:
    """Computes means over tasks of Fréchet distance, precision and recall of each task's images alone.

    The protocol of Multiband VAE (Deja et al. 2021, arXiv 2106.12196), with its precision and recall (`prd.py`). Its
    real images are a held-out part of the training set.
    """
    rows = []
    for names in tasks:
        first, second = (classifier.features(np.concatenate([images[n] for n in names])) for images in (imagined, real))
        scores = prd.precision_and_recall(first, second, seed=seed)
        rows.append({"frechet_distance": frechet_distance(first, second), **scores})
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
