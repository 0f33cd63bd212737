"""Precision, recall, density and coverage of imagined images.

The manifold of a set is the union of balls around its members. The ball of a member reaches to its k-th nearest
neighbor in the set, or to its farthest neighbor if the set is smaller. Sources: Kynkäänniemi et al. 2019 (arXiv
1904.06991) for improved precision and recall, Naeem et al. 2020 (arXiv 2002.09797) for density and coverage, each with
its authors' k.
"""

import numpy as np

from lifelong_cvae.errors import InputError, use_package

PRECISION_NEIGHBORS = 3
COVERAGE_NEIGHBORS = 5
BLOCK = 1000
ROUNDING = 1e-12


def prdc(imagined: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Computes how much of each set of features lies in the manifold of the other.

    Args:
        imagined: features, `[n, features]`.
        real: features, `[m, features]`.

    Returns:
        `precision`: fraction of imagined images in at least one ball of a real image.
        `recall`: fraction of real images in at least one ball of an imagined image.
        `density`: mean number of real balls around an imagined image, divided by k. It is 1 if both distributions are
            the same, and may exceed 1.
        `coverage`: fraction of real balls with at least one imagined image.

    Raises:
        InputError: a set has fewer than two members, so that a member has no neighbor.
    """
    use_package("sklearn")
    from sklearn.metrics.pairwise import euclidean_distances

    for name, features in (("imagined", imagined), ("real", real)):
        if len(features) < 2:
            raise InputError(f"{name} images: expected at least two, got {len(features)}")
    imagined, real = (np.asarray(features, np.float64) for features in (imagined, real))
    # A member on the edge of a ball counts as inside, so squared radii get room for rounding.
    slack = ROUNDING * max(np.square(imagined).sum(axis=1).max(), np.square(real).sum(axis=1).max())
    imagined_radii, real_radii = _squared_radii(imagined, slack), _squared_radii(real, slack)
    imagined_inside, balls_around = np.zeros(len(imagined), bool), np.zeros(len(imagined))
    real_inside, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for start in range(0, len(imagined), BLOCK):
        block = slice(start, start + BLOCK)
        distances = euclidean_distances(imagined[block], real, squared=True)
        imagined_inside[block] = (distances <= real_radii[PRECISION_NEIGHBORS]).any(axis=1)
        in_ball = distances <= real_radii[COVERAGE_NEIGHBORS]
        balls_around[block] = in_ball.sum(axis=1)
        covered |= in_ball.any(axis=0)
        real_inside |= (distances <= imagined_radii[PRECISION_NEIGHBORS][block, None]).any(axis=0)
    return {
        "precision": float(imagined_inside.mean()),
        "recall": float(real_inside.mean()),
        "density": float(balls_around.mean() / min(COVERAGE_NEIGHBORS, len(real) - 1)),
        "coverage": float(covered.mean()),
    }


def _squared_radii(features: np.ndarray, slack: float) -> dict[int, np.ndarray]:
    """Returns, for each k, the squared distance of every member to its k-th nearest other member, `[n]`."""
    from sklearn.neighbors import NearestNeighbors

    neighbors = min(COVERAGE_NEIGHBORS, len(features) - 1)
    search = NearestNeighbors(n_neighbors=neighbors, algorithm="brute")
    distances = search.fit(features).kneighbors()[0]  # without a query, a point is not its own neighbor
    return {
        k: np.square(distances[:, min(k, neighbors) - 1]) + slack for k in (PRECISION_NEIGHBORS, COVERAGE_NEIGHBORS)
    }
