"""Rejection thresholds and temperatures of a task's categories, from held-out images."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lifelong_cvae import recognition
from lifelong_cvae.model import rejection
from lifelong_cvae.recognition import ridge_classifier
from lifelong_cvae.ridge import temperature_scaling
from lifelong_cvae.state import LifelongState

CALIBRATION_IMAGES = 1024


def calibrate(
    state: LifelongState, rows: Mapping[str, np.ndarray], *, rng: jax.Array, mesh: Mesh | None = None
) -> LifelongState:
    """The state with the ridge that its sums ask for, and a task's thresholds and tables of temperatures.

    See `rejection` and `calibration`. They are of the images that the regression holds out, and the networks
    have not seen. Without a regression, or where images are too few to hold one out, thresholds are of all
    images, and a table stays blank.

    Args:
        state: after the task's training.
        rows: category to its images `[n, pixels]`, at least one.
        rng: for the bounds that draw samples.
        mesh: as for `recognition.evidence`.
    """
    weighs = state.config.closed_form.random_features > 0 and len(state.names) > 1
    if weighs:
        state, classifier = ridge_classifier.select_ridge(state)
    categories = dict(state.params["categories"])
    for name, values in rows.items():
        held_out = values[ridge_classifier.held_out_mask(state, len(values))]
        judged = held_out if len(held_out) else values
        images = judged[:CALIBRATION_IMAGES].reshape(-1, *state.image_shape)
        candidates = state if weighs else state.replace(names=(name,), visits=(0,))
        nats = np.asarray(recognition.evidence(candidates, images, rng=rng, mesh=mesh))
        column = candidates.names.index(name)
        own = dict(categories[name])
        if state.networks.fits_parts:
            found = jnp.asarray(rejection.fit_thresholds(nats[:, column]))
            # Of a category that returns the lower ones: what was known stays known.
            returns = state.visit(name) > 1
            own["thresholds"] = jnp.minimum(own["thresholds"], found) if returns else found
        if weighs and len(held_out):
            table = temperature_scaling.loss_grid(nats, np.asarray(ridge_classifier.scores(classifier, images)), column)
            own["ridge"] = {**own["ridge"], "calibration": jnp.asarray(table)}
        categories[name] = own
    return state.replace(params={**state.params, "categories": categories})
