"""Temperatures of a product of experts, from tables that categories own; no image is kept.

    log p(c|x) = log p(x|c) / T_elbo + score_c(x) / T_score + constant

The evidence is too sure of itself, since its pixels are not independent given z (a temperature mends that,
Guo et al. 2017, arXiv 1706.04599), and scores of a regression have no unit. When a category has been learned,
its table takes the mean of -log p(c|x) over images of it that no expert has seen, among the categories known
then, for every pair of temperatures. What serves is the pair with the least sum over all tables.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from scipy import special

# From the least confident on, which wins where tables do not tell; infinite: the expert is left out.
ELBO_TEMPERATURES = (np.inf, *(2.0**exponent for exponent in np.arange(10, -0.5, -0.5)))
SCORE_TEMPERATURES = (np.inf, *(2.0**exponent for exponent in np.arange(0, -6.5, -0.5)))
GRID_SHAPE = (len(ELBO_TEMPERATURES), len(SCORE_TEMPERATURES))


def empty_grid() -> jnp.ndarray:
    """The table of a category that nothing is known of: zeros, which prefer no temperature."""
    return jnp.zeros(GRID_SHAPE)


def loss_grid(evidence: np.ndarray, scores: np.ndarray, column: int) -> np.ndarray:
    """Mean of -log p(c|x) in nats for every pair of temperatures, float32 `[elbo, score]`.

    Args:
        evidence: of images of one category, `[n, categories]` in nats.
        scores: of the same images.
        column: of their category.
    """
    losses = np.empty(GRID_SHAPE, np.float32)
    for first, elbo in enumerate(ELBO_TEMPERATURES):
        for second, score in enumerate(SCORE_TEMPERATURES):
            logits = np.asarray(evidence, np.float64) / elbo + np.asarray(scores, np.float64) / score
            losses[first, second] = -special.log_softmax(logits, axis=1)[:, column].mean()
    return losses


def expert_weights(tables: Sequence[np.ndarray], kind: str) -> tuple[float, float]:
    """1 / T_elbo and 1 / T_score for the recognizers `combined` and `closed_form`.

    Args:
        tables: of all categories.
        kind: of the recognizer; `closed_form` leaves the evidence out.
    """
    total = np.sum([np.asarray(values, np.float64) for values in tables], axis=0)
    # The first row is the closed form alone; the first column has no scores, and serves nobody.
    allowed = total[:1, 1:] if kind == "closed_form" else total[1:, 1:]
    first, second = np.unravel_index(np.argmin(allowed), allowed.shape)
    elbo = np.inf if kind == "closed_form" else ELBO_TEMPERATURES[first + 1]
    return 1 / elbo, 1 / SCORE_TEMPERATURES[second + 1]
