"""Calibration error of a recognizer's probabilities."""

import numpy as np

BINS = 15


def expected_calibration_error(probabilities: np.ndarray, correct: np.ndarray) -> float:
    """Computes the mean over images of |accuracy - confidence| of their bin.

    Images are grouped into `BINS` bins of equal width by the probability of their predicted category. Source: Guo et
    al. 2017 (arXiv 1706.04599).

    Args:
        probabilities: p(c|x) of the predicted category, `[n]`.
        correct: whether the prediction is right, bool `[n]`.

    Returns:
        A fraction in [0, 1].
    """
    bins = np.minimum((np.asarray(probabilities) * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, np.asarray(correct, np.float64) - probabilities, minlength=BINS)
    return float(np.abs(gaps).sum() / len(bins))
