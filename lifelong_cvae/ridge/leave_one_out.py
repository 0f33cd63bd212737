"""Scores of images by regressions that each leave one image out, computed from the regression on all images.

Let A = L L' be the penalized correlations of `regression`, z the standardized features of an image that has the weight
w among sums of weight T, s its scores, and y its targets (1 for its category, otherwise 0). Its leverage, and its
scores by the regression on all other images with the same scales and penalty, are

    h = w / T (1 + |L^-1 z|^2)
    (s - h y) / (1 - h)

Source: Allen 1974, "The relationship between variable selection and data augmentation and a method for prediction"
(Technometrics 16).
"""

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.images import pad_rows, power_of_two
from lifelong_cvae.ridge import cholesky
from lifelong_cvae.ridge.regression import Factored

# Above this leverage, as where there are fewer images than features, 1 - h has too few digits.
MAX_LEVERAGE = 0.99
# Smallest number of images for which a program is compiled.
MIN_IMAGES = 64


def leverages(factored: Factored, phi: np.ndarray, weight: float) -> np.ndarray:
    """Computes the leverages of images that the regression has learned, float32 `[n]`.

    Args:
        factored: from `regression.solve`.
        phi: features of the images, `[n, features]`.
        weight: weight of each image in the sums, 1 / images of the visit.
    """
    padded = pad_rows(phi, power_of_two(len(phi), MIN_IMAGES))
    with jax.enable_x64(True):
        return np.asarray(_leverages(factored, padded, weight))[: len(phi)]


@jax.jit
def _leverages(factored: Factored, phi: jax.Array, weight: jax.Array) -> jax.Array:
    z = (phi.astype(jnp.float64) - factored.mean[None]) / factored.scale[None]
    factor = factored.columns.reshape(len(factored.mean), -1).T
    norms = cholesky.squared_norms(factor, z.T)
    return (weight / factored.total * (1 + norms)).astype(jnp.float32)


def scores(fitted: np.ndarray, leverage: np.ndarray, column: int) -> np.ndarray:
    """Computes the scores `[n, categories]` of images by regressions without them.

    Args:
        fitted: scores by the regression on all images, `[n, categories]`.
        leverage: from `leverages`.
        column: category of the images.
    """
    targets = np.arange(fitted.shape[1]) == column
    return (fitted - leverage[:, None] * targets) / (1 - leverage[:, None])
