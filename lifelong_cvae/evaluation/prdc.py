"""Precision, recall, density and coverage: a set's manifold is the union of balls around its members.

The ball of a member reaches to its k-th nearest neighbor in its own set. Sources: Kynkäänniemi et al. 2019
(arXiv 1904.06991) for improved precision and recall, Naeem et al. 2020 (arXiv 2002.09797) for density and
coverage; each with the k of its authors, or the farthest neighbor where a set is smaller.
"""

from __future__ import annotations

import numpy as np

from lifelong_cvae.errors import InputError, use_package

PRECISION_NEIGHBORS = 3
COVERAGE_NEIGHBORS = 5
BLOCK = 1000
ROUNDING = 1e-12


def prdc(imagined: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """How two sets of features lie in each other's manifolds.

    Args:
        imagined: features `[n, features]`.
        real: features `[m, features]`.

    Returns:
        `precision`: part of the imagined that lie in a ball of a real one;
        `recall`: part of the real that lie in a ball of an imagined one;
        `density`: mean number of real balls that an imagined one lies in, over k (1 where both sets are
        alike, and not bounded by it);
        `coverage`: part of the real balls that hold an imagined one.

    Raises:
        InputError: a set of one member, which has no neighbors.
    """
    use_package("sklearn")
    from sklearn.metrics.pairwise import euclidean_distances

    for name, features in (("imagined", imagined), ("real", real)):
        if len(features) < 2:
            raise InputError(f"at least two {name} images are expected, got {len(features)}")
    imagined, real = (np.asarray(features, np.float64) for features in (imagined, real))
    # Members on the edge of a ball lie in it: squares are compared, with room for their rounding.
    slack = ROUNDING * max(np.square(imagined).sum(axis=1).max(), np.square(real).sum(axis=1).max())
    imagined_radii, real_radii = _squared_radii(imagined, slack), _squared_radii(real, slack)
    precise, held = np.zeros(len(imagined), bool), np.zeros(len(imagined))
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for start in range(0, len(imagined), BLOCK):
        part = slice(start, start + BLOCK)
        distances = euclidean_distances(imagined[part], real, squared=True)
        precise[part] = (distances <= real_radii[PRECISION_NEIGHBORS]).any(axis=1)
        inside = distances <= real_radii[COVERAGE_NEIGHBORS]
        held[part] = inside.sum(axis=1)
        covered |= inside.any(axis=0)
        recalled |= (distances <= imagined_radii[PRECISION_NEIGHBORS][part, None]).any(axis=0)
    return {
        "precision": float(precise.mean()),
        "recall": float(recalled.mean()),
        "density": float(held.mean() / min(COVERAGE_NEIGHBORS, len(real) - 1)),
        "coverage": float(covered.mean()),
    }


def _squared_radii(features: np.ndarray, slack: float) -> dict[int, np.ndarray]:
    """For each k, every member's squared distance to its k-th nearest neighbor, itself left out: `[n]`."""
    from sklearn.neighbors import NearestNeighbors

    most = min(COVERAGE_NEIGHBORS, len(features) - 1)
    finder = NearestNeighbors(n_neighbors=most, algorithm="brute")
    distances = finder.fit(features).kneighbors()[0]  # without a query, a point is not its own neighbor
    return {k: np.square(distances[:, min(k, most) - 1]) + slack for k in (PRECISION_NEIGHBORS, COVERAGE_NEIGHBORS)}
