"""Learning of the ridge regression from a task's images. Networks are neither read nor changed."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.recognition import ridge_classifier, ridge_sums
from lifelong_cvae.state import LifelongState


class LearnedRegression(NamedTuple):
    """Regression after a task, and what it says about images that it has not seen.

    Attributes:
        state: state with the sums of all images of the task, and the selected penalty.
        scores: scores of held-out images `[n, categories]` by category, of the regression without them. Empty if
            there is no other category, or nothing is held out.
        own_mean: `RidgeClassifier.own_mean` of that regression, float32.
    """

    state: LifelongState
    scores: Mapping[str, jax.Array]
    own_mean: jax.Array


def learn_regression(state: LifelongState, images: Mapping[str, np.ndarray]) -> LearnedRegression:
    """Adds the images of a task to the sums, and selects the penalty by held-out ones.

    Args:
        state: state with the task's categories.
        images: images of the task by category, `[n, pixels]` with n >= 1.
    """
    scores, own_mean = {}, jnp.float32(0)
    without, held_out = ridge_sums.update(state, images)
    completed = ridge_sums.add_held_out(without, held_out)
    if held_out and len(state.names) > 1:
        completed = ridge_sums.select_ridge(completed)
        without = ridge_sums.with_ridge(without, completed.params["ridge"]["ridge"])
        phi = {name: part.phi for name, part in held_out.items() if part.phi.count}
        if phi:
            scores, own_mean = ridge_classifier.held_out_scores(without, phi)
    return LearnedRegression(completed, scores, own_mean)


def take_regression(state: LifelongState, learned: LearnedRegression, names: Sequence[str]) -> LifelongState:
    """Returns the state with the regression that the images of `names` were added to."""
    params = learned.state.params
    if "ridge" not in params:
        return state
    categories = dict(state.params["categories"])
    for name in names:
        categories[name] = {**categories[name], "ridge": params["categories"][name]["ridge"]}
    return state.replace(params={**state.params, "categories": categories, "ridge": params["ridge"]})
