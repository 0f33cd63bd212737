"""Temperature scaling of a product of experts, without stored images.

    log p(c|x) = log p(x|c) / T_elbo + score_c(x) / T_score + const

The ELBO is overconfident because pixels are not independent given z; a temperature corrects this (Guo et al. 2017,
arXiv 1706.04599). Regression scores have no unit, so they need one too. After training, each category stores its
negative log-likelihood over a grid of temperature pairs, computed on held-out images among the categories known at that
time. The grids of all categories are summed, and the best pair is used. No image is stored.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.images import power_of_two

# Ordered from least to most confident, so that ties prefer less confidence. An infinite temperature drops the expert.
ELBO_TEMPERATURES = (np.inf, *(2.0**exponent for exponent in np.arange(10, -0.5, -0.5)))
SCORE_TEMPERATURES = (np.inf, *(2.0**exponent for exponent in np.arange(0, -6.25, -0.25)))
# Temperature of scores alone, the same in every order of learning. Selected on validation images of MNIST,
# Fashion-MNIST and CIFAR-10, whose own best ones are 0.08, 0.11 and 0.1.
CLOSED_FORM_TEMPERATURE = 0.1
# Smallest number of images for which a program is compiled.
MIN_IMAGES = 32
GRID_SHAPE = (len(ELBO_TEMPERATURES), len(SCORE_TEMPERATURES))


def empty_grid() -> jax.Array:
    """Returns the grid of an uncalibrated category: zeros, which prefer no temperature."""
    return jax.device_put(np.zeros(GRID_SHAPE, np.float32))


def loss_grid(evidence: np.ndarray, scores: np.ndarray, category: int, *, capacity: int = 0) -> jax.Array:
    """Computes the mean of -log p(c|x) in nats, `[elbo_temperatures, score_temperatures]`.

    Args:
        evidence: log p(x|c) in nats of held-out images of one category, `[n, categories]`.
        scores: regression scores of the same images, `[n, categories]`.
        category: column of the true category.
        capacity: number of categories for which the program is compiled, if there are fewer.
    """
    images, categories = evidence.shape
    padding = ((0, max(0, capacity - categories)), (0, power_of_two(images, MIN_IMAGES) - images))
    with jax.enable_x64(True):
        evidence, scores = (np.pad(np.asarray(values.T, np.float64), padding) for values in (evidence, scores))
        return _loss_grid(evidence, scores, np.int32(category), np.int32(images), np.int32(categories))


@jax.jit
def _loss_grid(
    evidence: jax.Array, scores: jax.Array, category: jax.Array, images: jax.Array, categories: jax.Array
) -> jax.Array:
    """Computes `loss_grid` of values `[categories, images]` that are padded."""
    is_category, is_image = (jnp.arange(size) < n for size, n in zip(evidence.shape, (categories, images), strict=True))
    temperatures = np.asarray(SCORE_TEMPERATURES)[None, :, None]

    def losses(elbo_temperature: jax.Array) -> jax.Array:
        logits = (evidence / elbo_temperature)[:, None] + scores[:, None] / temperatures
        logits = jnp.where(is_category[:, None, None], logits, -jnp.inf)
        # A sum along the first axis adds one category after the other: padding adds zeros.
        log_posteriors = jax.nn.log_softmax(logits, axis=0)[category]
        return -jnp.where(is_image[None], log_posteriors, 0.0).sum(axis=1) / images

    return jax.lax.map(losses, np.asarray(ELBO_TEMPERATURES)).astype(jnp.float32)


def expert_weights(grids: Sequence[np.ndarray]) -> tuple[float, float]:
    """Returns `(1 / T_elbo, 1 / T_score)` of the lowest summed loss.

    The first is 0 if the ELBO adds nothing.

    Args:
        grids: one `loss_grid` per category. If all are empty, the scores are used alone.
    """
    # Column 0 has no scores and is never used.
    total = np.sum([np.asarray(grid, np.float64) for grid in grids], axis=0)[:, 1:]
    if not total.any():
        return 0.0, 1 / CLOSED_FORM_TEMPERATURE
    row, column = np.unravel_index(np.argmin(total), total.shape)
    return 1 / ELBO_TEMPERATURES[row], 1 / SCORE_TEMPERATURES[column + 1]
