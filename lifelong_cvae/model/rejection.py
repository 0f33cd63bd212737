"""Rejection: an image is unknown where nearly all images of the category it is taken for are likelier.

When a category has been learned, it takes down below which evidence log p(x|c) parts of its own images lie.
Nothing else is kept of them. Evidence is of whole images: a stranger with smooth and simple images can pass
(Nalisnick et al. 2018, arXiv 1810.09136), one with its own shapes cannot.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

# Parts of a category's images; between them thresholds are interpolated.
RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
# Log evidence in nats below which no image lies: the threshold of a category that nothing is known of.
NEVER = -1e30


def uncalibrated_thresholds() -> jnp.ndarray:
    """Thresholds that reject nothing, `[parts]`."""
    return jnp.full((len(RATES),), NEVER)


def fit_thresholds(evidence: np.ndarray) -> np.ndarray:
    """Evidence in nats below which each of `PARTS` of the images lies, float32 `[parts]`.

    Args:
        evidence: log p(x|c) of images of category c, in nats, `[n]`, at least one.
    """
    return np.quantile(np.asarray(evidence, np.float64), RATES).astype(np.float32)


def is_unknown(tables: Sequence[np.ndarray], evidence: np.ndarray, answers: np.ndarray, part: float) -> np.ndarray:
    """Which images are unknown, bool `[n]`.

    Args:
        tables: thresholds of every category.
        evidence: of the images, `[n, categories]` in nats.
        answers: which category each is taken for, `[n]`.
        part: of the images of known categories that may be rejected, below 1; 0: none is.
    """
    if not part:
        return np.zeros(len(answers), bool)
    bars = np.asarray([np.interp(np.log(part), np.log(RATES), table) for table in tables])
    return np.asarray(evidence)[np.arange(len(answers)), answers] < bars[answers]
