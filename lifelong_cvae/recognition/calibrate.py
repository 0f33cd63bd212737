"""Calibration after a task: ridge penalty, rejection thresholds and temperature grids, from held-out images."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from lifelong_cvae import recognition
from lifelong_cvae.model import rejection
from lifelong_cvae.recognition import ridge_classifier, ridge_sums
from lifelong_cvae.recognition.ridge_sums import HeldOut
from lifelong_cvae.ridge import temperature_scaling
from lifelong_cvae.state import LifelongState

# Largest number of images of a category that are evaluated.
CALIBRATION_IMAGES = 1024


def calibrate(
    state: LifelongState,
    images: Mapping[str, np.ndarray],
    held_out: Mapping[str, HeldOut],
    *,
    rng: jax.Array,
    mesh: Mesh | None = None,
) -> LifelongState:
    """Selects the ridge penalty and fits the thresholds and temperature grids of a task's categories.

    See `rejection` and `temperature_scaling`. Both use the images that neither the networks nor the sums have seen.
    Without a regression, or with too few images to hold one out, thresholds use all images and the grid stays empty.
    The grid also stays empty if there is no other category yet.

    Args:
        state: state after training and `ridge_sums.update`, before `ridge_sums.add_held_out`.
        images: images of the task by category, `[n, pixels]` with n >= 1.
        held_out: from `ridge_sums.update`.
        rng: key of the samples, for bounds that are sampled.
        mesh: devices that share the work, as in `recognition.evidence`.
    """
    with_scores = state.config.closed_form.has_features and len(state.names) > 1
    if with_scores:
        state = ridge_sums.select_ridge(state, held_out)
        classifier = ridge_classifier.solve(state)
    categories = dict(state.params["categories"])
    for name, rows in images.items():
        unseen = rows[ridge_sums.held_out_mask(state, len(rows))]
        sample = (unseen if len(unseen) else rows)[:CALIBRATION_IMAGES].reshape(-1, *state.image_shape)
        candidates = state if with_scores else state.replace(names=(name,), visits=(0,))
        evidence = np.asarray(recognition.evidence(candidates, sample, rng=rng, mesh=mesh))
        column = candidates.names.index(name)
        subtree = dict(categories[name])
        if state.networks.fits_parts:
            thresholds = rejection.fit_thresholds(evidence[:, column])
            # A revisited category keeps the lower threshold, so known images stay accepted.
            revisited = state.visit(name) > 1
            lowest = np.minimum(subtree["thresholds"], thresholds) if revisited else thresholds
            subtree["thresholds"] = jax.device_put(lowest)
        if with_scores and len(unseen):
            scores = np.asarray(ridge_classifier.scores_from_features(classifier, held_out[name].phi))[: len(sample)]
            # A category that was learned early had few alternatives, and says less about many.
            grid = (len(state.names) - 1) * temperature_scaling.loss_grid(evidence, scores, column)
            fitted = {
                "calibration": grid,
                "thresholds": rejection.fit_thresholds(scores[:, column] - np.asarray(classifier.own_mean)),
            }
            subtree["ridge"] = {**subtree["ridge"], **jax.device_put(fitted)}
        categories[name] = subtree
    return state.replace(params={**state.params, "categories": categories})
