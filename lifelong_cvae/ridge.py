"""Ridge regression from features to categories, from sums alone.

With features phi of an image and the mean over the images of category c written E_c,

    G = sum_c E_c[phi phi']        what categories share, or each one's own
    s_c = E_c[phi]                 a category's own
    weights_c = (G + ridge I)^-1 s_c

These are the sums of joint training on all images, every category weighing the same, whatever the order:
nothing is forgotten, and nothing is kept but averages. Sources: Zhuang et al. 2022 (ACIL, arXiv 2205.14922),
McDonnell et al. 2023 (RanPAC, arXiv 2307.02251). Every twentieth image of a category is held out until
`ridge` is chosen, and joins the others then; the squared error on it is a function of sums too.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from lifelong_cvae import calibration, features
from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.images import Shape, pad_rows

HELD_OUT_EVERY = 20
RIDGES = tuple(10.0 ** (exponent / 2) for exponent in range(-10, 3))
FIRST_RIDGE = RIDGES.index(0.1)
BLOCK_IMAGES = 1024

# Both with the keys `fit` and `held_out`.
Sums = dict[str, jax.Array]


class Solution(NamedTuple):
    """A solved regression; weights are float64 `[features, categories]`."""

    weights: np.ndarray
    fit: np.ndarray  # weights without what is held out, on which they can be judged
    ridge: float


def common_blank(settings: ClosedFormConfig, image_shape: Shape) -> dict[str, Any]:
    """What categories share before the first task: dictionary, and Gram matrix unless each has its own."""
    dictionary = {"dictionary": features.blank(settings, image_shape)}
    return dictionary if settings.gram == "own" else {**dictionary, "gram": _blank(settings, 2)}


def category_blank(settings: ClosedFormConfig) -> dict[str, Any]:
    """What a category owns before its first visit."""
    own = {"sum": _blank(settings, 1), "calibration": calibration.blank()}
    return {**own, "gram": _blank(settings, 2)} if settings.gram == "own" else own


def _blank(settings: ClosedFormConfig, rank: int) -> Sums:
    return {part: jnp.zeros((settings.random_features + 1,) * rank) for part in ("fit", "held_out")}


def held_out(count: int) -> np.ndarray:
    """Which of so many images are held out: bool `[count]`."""
    return np.arange(count) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def sums(
    dictionary: features.Dictionary,
    expand: jax.Array,
    rows: np.ndarray,
    *,
    image_shape: Shape,
    settings: ClosedFormConfig,
) -> tuple[Sums, Sums]:
    """E[phi phi'] and E[phi] of one category's images `[n, pixels]`, the held-out part of each apart."""
    apart = held_out(len(rows))
    grams, vectors = _blank(settings, 2), _blank(settings, 1)
    for part, chosen in (("fit", rows[~apart]), ("held_out", rows[apart])):
        for start in range(0, len(chosen), BLOCK_IMAGES):
            block = chosen[start : start + BLOCK_IMAGES]
            weights = pad_rows(np.full(len(block), 1 / len(rows), np.float32), BLOCK_IMAGES)
            grams[part], vectors[part] = _add(
                grams[part],
                vectors[part],
                dictionary,
                expand,
                jnp.asarray(pad_rows(block, BLOCK_IMAGES)),
                jnp.asarray(weights),
                image_shape=image_shape,
                settings=settings,
            )
    return grams, vectors


@partial(jax.jit, static_argnames=("image_shape", "settings"), donate_argnums=(0, 1))
def _add(
    gram: jax.Array,
    vector: jax.Array,
    dictionary: features.Dictionary,
    expand: jax.Array,
    rows: jax.Array,
    weights: jax.Array,
    *,
    image_shape: Shape,
    settings: ClosedFormConfig,
) -> tuple[jax.Array, jax.Array]:
    phi = features.features(dictionary, expand, rows, image_shape=image_shape, settings=settings)
    with jax.default_matmul_precision("float32"):
        weighted = phi * weights[:, None]
        return gram + weighted.T @ phi, vector + weighted.sum(axis=0)


def solve(gram: dict[str, np.ndarray], vectors: dict[str, np.ndarray]) -> Solution:
    """The weights, in float64 on the host.

    Args:
        gram: `fit` and `held_out` `[features, features]`, over all categories.
        vectors: the same `[features, categories]`.
    """
    gram, vectors = ({part: np.asarray(v, np.float64) for part, v in x.items()} for x in (gram, vectors))
    index, fit = _chosen(gram, vectors)
    together = [x["fit"] + x["held_out"] for x in (gram, vectors)]
    return Solution(_solution(*together, RIDGES[index]), fit, RIDGES[index])


def _chosen(gram: dict[str, np.ndarray], vectors: dict[str, np.ndarray]) -> tuple[int, np.ndarray]:
    """The ridge with the least squared error on what was held out, downhill from the first; its weights."""
    solutions: dict[int, np.ndarray] = {}

    def error(index: int) -> float:
        if not 0 <= index < len(RIDGES):
            return np.inf
        if index not in solutions:
            solutions[index] = _solution(gram["fit"], vectors["fit"], RIDGES[index])
        weights = solutions[index]
        fitted = np.einsum("dc,dc->", weights, gram["held_out"] @ weights)
        return fitted - 2 * np.einsum("dc,dc->", weights, vectors["held_out"])

    # Where nothing is held out, all errors are 0, and the first ridge stays.
    best = FIRST_RIDGE
    while (nearest := min((best, best - 1, best + 1), key=error)) != best:
        best = nearest
    return best, solutions[best]


def _solution(gram: np.ndarray, vectors: np.ndarray, ridge: float) -> np.ndarray:
    regularised = gram + ridge * np.eye(len(gram))
    factor = scipy.linalg.cho_factor(regularised, overwrite_a=True, check_finite=False)
    return scipy.linalg.cho_solve(factor, vectors, check_finite=False)
