"""Calibration after a task: rejection thresholds and temperature grids, from held-out images."""

from collections.abc import Mapping
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh

from lifelong_cvae.images import split_by_category
from lifelong_cvae.model import rejection
from lifelong_cvae.recognition import bounds, ridge_sums
from lifelong_cvae.recognition.ridge_learning import LearnedRegression, take_regression
from lifelong_cvae.ridge import temperature_scaling
from lifelong_cvae.state import LifelongState

# Largest number of images of a category that are evaluated.
CALIBRATION_IMAGES = 1024


def calibrate(
    state: LifelongState,
    images: Mapping[str, np.ndarray],
    regression: LearnedRegression,
    *,
    rng: jax.Array,
    mesh: Mesh | None = None,
) -> LifelongState:
    """Fits the thresholds and temperature grids of a task's categories.

    See `rejection` and `temperature_scaling`. Both use the images that neither the networks nor the sums have seen.
    Without a regression, or with too few images to hold one out, thresholds use all images and the grid stays empty.
    The grid also stays empty if there is no other category yet.

    Args:
        state: state after training.
        images: images of the task by category, `[n, pixels]` with n >= 1.
        regression: regression after the task.
        rng: key of the samples, for bounds that are sampled.
        mesh: devices that share the work, as in `recognition.evidence`.
    """
    state = take_regression(state, regression, tuple(images))
    scores, with_scores = regression.scores, bool(regression.scores)
    samples = {name: _sample(state, rows) for name, rows in images.items()}
    evidence = _evidence(state, samples, with_others=with_scores, rng=rng, mesh=mesh)
    categories = dict(state.params["categories"])
    # Of the same shape as in the regression, since bits of small losses depend on it.
    capacity = ridge_sums.num_columns(state)
    for name, sample in samples.items():
        column = state.names.index(name) if with_scores else 0
        subtree = dict(categories[name])
        if state.networks.fits_parts:
            thresholds = rejection.fit_thresholds(evidence[name][:, column])
            # A revisited category keeps the lower threshold, so known images stay accepted.
            revisited = state.visit(name) > 1
            lowest = np.minimum(subtree["thresholds"], thresholds) if revisited else thresholds
            subtree["thresholds"] = jax.device_put(lowest)
        if name in scores:
            values = np.asarray(scores[name])[: len(sample)]
            # A category that was learned early had few alternatives, and says less about many.
            grid = np.asarray(temperature_scaling.loss_grid(evidence[name], values, column, capacity=capacity))
            fitted = {
                "calibration": (len(state.names) - 1) * grid,
                "thresholds": rejection.fit_thresholds(values[:, column] - np.asarray(regression.own_mean)),
            }
            subtree["ridge"] = {**subtree["ridge"], **jax.device_put(fitted)}
        categories[name] = subtree
    return state.replace(params={**state.params, "categories": categories})


def _sample(state: LifelongState, rows: np.ndarray) -> np.ndarray:
    """Returns the rows of a category that are evaluated: held-out ones if there are any."""
    unseen = np.flatnonzero(ridge_sums.held_out_mask(state, len(rows)))[:CALIBRATION_IMAGES]
    return rows[unseen] if len(unseen) else rows[:CALIBRATION_IMAGES]


def _evidence(
    state: LifelongState, samples: Mapping[str, np.ndarray], *, with_others: bool, rng: jax.Array, mesh: Mesh | None
) -> dict[str, np.ndarray]:
    """Returns the evidence of each category's images, for all categories or for that one alone."""
    evaluate = partial(bounds.all_evidence, stacks=None, rng=rng, mesh=mesh)
    if not with_others:
        alone = {name: state.replace(names=(name,), visits=(0,)) for name in samples}
        return {name: np.asarray(evaluate(alone[name], rows=samples[name])) for name in alone}
    # In one call, since every call stacks the categories.
    return split_by_category(samples, evaluate(state, rows=np.concatenate(list(samples.values()))))
