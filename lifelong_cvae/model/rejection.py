"""Open-set rejection by quantiles of the evidence, and of regression scores.

After training, each category stores quantiles of log p(x|c) over its own images, held-out ones where there are any. At
test time an image is rejected as unknown if its evidence is below the quantile of the category it was assigned to.

Evidence alone is an imperfect novelty score: smooth, simple images can be more likely than the training data
(Nalisnick et al. 2018, arXiv 1810.09136). So each category also stores quantiles of its own images' regression score,
relative to the mean score of all categories' own images. As later categories change the regression, that mean follows
from the sums. Scores of all categories have the same scale, so the mean of these quantiles serves for all.
"""

from collections.abc import Sequence

import jax
import numpy as np
from scipy.special import stdtrit

# Rejection rates at which quantiles are stored; other rates are interpolated in log space.
RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)

# Below any evidence, in nats: the threshold before calibration.
NEVER = -1e30


def uncalibrated_thresholds() -> jax.Array:
    """Returns thresholds that reject nothing, `[rates]`."""
    return jax.device_put(np.full(len(RATES), NEVER, np.float32))


def fit_thresholds(evidence: np.ndarray) -> np.ndarray:
    """Computes quantiles `[rates]` of a category's evidence of its own images, `[n]` in nats.

    A rate below 1 / n lies beyond the lowest value: there the threshold is at most the lower prediction limit of a
    normal distribution, mean + t sd sqrt(1 + 1 / n) with the quantile t of Student's distribution with n - 1 degrees
    of freedom. One image says nothing about the spread, and gives thresholds that reject nothing.
    """
    values, rates = np.asarray(evidence, np.float64), np.asarray(RATES)
    count = len(values)
    if count < 2:
        return np.full(len(RATES), NEVER, np.float32)
    quantiles = np.quantile(values, rates)
    limits = values.mean() + stdtrit(count - 1, rates) * values.std(ddof=1) * np.sqrt(1 + 1 / count)
    return np.where(rates * count < 1, np.minimum(quantiles, limits), quantiles).astype(np.float32)


def pool(thresholds: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the mean of the calibrated thresholds for every category, `[categories, rates]`."""
    values = np.asarray(thresholds)
    calibrated = values[:, 0] > NEVER
    return np.broadcast_to(values[calibrated].mean(axis=0), values.shape) if calibrated.any() else values


def familiarity(thresholds: np.ndarray, values: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Compares values of images with those of known images of the predicted category, `[n]`.

    Zero is the median of known images, and -1 their quantile 0.05; +inf where a category has no thresholds.

    Args:
        thresholds: `[categories, rates]`.
        values: evidence in nats or relative scores, `[n, categories]`.
        predictions: index of the predicted category, `[n]`.
    """
    low, median = (thresholds[predictions, RATES.index(rate)] for rate in (0.05, 0.5))
    of_prediction = np.take_along_axis(np.asarray(values), predictions[:, None], axis=1)[:, 0]
    spread = np.maximum(median - low, np.finfo(np.float32).tiny)
    return np.where(median > NEVER, (of_prediction - median) / spread, np.inf)


def is_unknown(
    thresholds: Sequence[np.ndarray], evidence: np.ndarray, predictions: np.ndarray, rate: float
) -> np.ndarray:
    """Flags images, `[n]`, whose evidence is below the threshold of their predicted category.

    Args:
        thresholds: one `[rates]` array per category.
        evidence: log p(x|c) in nats, `[n, categories]`.
        predictions: index of the predicted category, `[n]`.
        rate: fraction of known images that may be rejected, in [0, 1). Zero rejects nothing.
    """
    if rate == 0:
        return np.zeros(len(predictions), bool)
    threshold = np.asarray([np.interp(np.log(rate), np.log(RATES), values) for values in thresholds])
    evidence_of_prediction = np.take_along_axis(np.asarray(evidence), predictions[:, None], axis=1)[:, 0]
    return evidence_of_prediction < threshold[predictions]
