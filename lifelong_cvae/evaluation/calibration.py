"""Is a recognizer as sure as it is right?"""

from __future__ import annotations

import numpy as np

BINS = 15


def expected_calibration_error(probabilities: np.ndarray, right: np.ndarray) -> float:
    """Mean over images of |accuracy - confidence| of their bin, a fraction.

    Images are put into `BINS` bins of equal width by the probability of their answer. Source: Guo et al. 2017
    (arXiv 1706.04599).

    Args:
        probabilities: p(c|x) of the answers, `[n]`.
        right: which answers are right, bool `[n]`.
    """
    bins = np.minimum((np.asarray(probabilities) * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, np.asarray(right, np.float64) - probabilities, minlength=BINS)
    return float(np.abs(gaps).sum() / len(bins))
