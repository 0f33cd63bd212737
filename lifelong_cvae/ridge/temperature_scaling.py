"""Temperature scaling of a product of experts, without stored images.

    log p(c|x) = log p(x|c) / T_elbo + score_c(x) / T_score + const

The ELBO is overconfident because pixels are not independent given z; a temperature corrects this (Guo et al. 2017,
arXiv 1706.04599). Regression scores have no unit, so they need one too. After training, each category stores its
negative log-likelihood over a grid of temperature pairs, computed on held-out images among the categories known at that
time. The grids of all categories are summed, and the best pair is used. No image is stored.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from scipy import special

# Ordered from least to most confident, so that ties prefer less confidence. An infinite temperature drops the expert.
ELBO_TEMPERATURES = (np.inf, *(2.0**exponent for exponent in np.arange(10, -0.5, -0.5)))
SCORE_TEMPERATURES = (np.inf, *(2.0**exponent for exponent in np.arange(0, -6.5, -0.5)))
GRID_SHAPE = (len(ELBO_TEMPERATURES), len(SCORE_TEMPERATURES))


def empty_grid() -> jnp.ndarray:
    """Returns the grid of an uncalibrated category: zeros, which prefer no temperature."""
    return jnp.zeros(GRID_SHAPE)


def loss_grid(evidence: np.ndarray, scores: np.ndarray, category: int) -> np.ndarray:
    """Computes the mean of -log p(c|x) in nats, `[elbo_temperatures, score_temperatures]`.

    Args:
        evidence: log p(x|c) in nats of held-out images of one category, `[n, categories]`.
        scores: regression scores of the same images, `[n, categories]`.
        category: column of the true category.
    """
    evidence, scores = np.asarray(evidence, np.float64), np.asarray(scores, np.float64)
    losses = np.empty(GRID_SHAPE, np.float32)
    for i, elbo_temperature in enumerate(ELBO_TEMPERATURES):
        for j, score_temperature in enumerate(SCORE_TEMPERATURES):
            logits = evidence / elbo_temperature + scores / score_temperature
            losses[i, j] = -special.log_softmax(logits, axis=1)[:, category].mean()
    return losses


def expert_weights(grids: Sequence[np.ndarray], *, use_elbo: bool) -> tuple[float, float]:
    """Returns `(1 / T_elbo, 1 / T_score)` of the lowest summed loss; the first is 0 without the ELBO.

    Args:
        grids: one `loss_grid` per category.
        use_elbo: whether the ELBO is one of the experts.
    """
    total = np.sum([np.asarray(grid, np.float64) for grid in grids], axis=0)
    # Row 0 has no ELBO. Column 0 has no scores and is never used.
    candidates = total[1:, 1:] if use_elbo else total[:1, 1:]
    row, column = np.unravel_index(np.argmin(candidates), candidates.shape)
    elbo_temperature = ELBO_TEMPERATURES[row + 1] if use_elbo else np.inf
    return 1 / elbo_temperature, 1 / SCORE_TEMPERATURES[column + 1]
