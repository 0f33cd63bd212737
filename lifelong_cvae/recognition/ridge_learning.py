"""Learning of the ridge regression from a task's images. Networks are neither read nor changed."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lifelong_cvae.recognition import ridge_classifier, ridge_sums
from lifelong_cvae.recognition.ridge_classifier import RidgeClassifier
from lifelong_cvae.state import LifelongState


class LearnedRegression(NamedTuple):
    """Regression after a task, and what it says about images that it has not seen.

    Attributes:
        state: state with the sums of all images of the task, and the selected penalty.
        scores: scores of held-out images `[n, categories]` by category, each by a regression without this image or
            without all held-out ones. Empty if there is no other category, or nothing is held out.
        own_mean: `RidgeClassifier.own_mean` of a regression with or without them, float32.
        classifier: the solved regression of the state. None if it was not needed for the scores.
    """

    state: LifelongState
    scores: Mapping[str, Any] = {}
    own_mean: Any = 0.0
    classifier: RidgeClassifier | None = None


def learn_regression(state: LifelongState, images: Mapping[str, np.ndarray]) -> LearnedRegression:
    """Adds the images of a task to the sums, and selects the penalty by held-out ones.

    Args:
        state: state with the task's categories.
        images: images of the task by category, `[n, pixels]` with n >= 1.
    """
    without, held_out = ridge_sums.update(state, images)
    completed = ridge_sums.add_held_out(without, held_out)
    if not held_out or len(state.names) == 1:
        return LearnedRegression(completed)
    completed = ridge_sums.select_ridge(completed)
    phi = {name: part.phi for name, part in held_out.items() if part.phi.count}
    if not phi:
        return LearnedRegression(completed)
    found = ridge_classifier.leave_one_out_scores(completed, phi, {name: len(rows) for name, rows in images.items()})
    if found is None:
        without = ridge_sums.with_ridge(without, completed.params["ridge"]["ridge"])
        return LearnedRegression(completed, *ridge_classifier.held_out_scores(without, phi))
    scores, classifier = found
    return LearnedRegression(completed, scores, classifier.own_mean, classifier)


def take_regression(state: LifelongState, learned: LearnedRegression, names: Sequence[str]) -> LifelongState:
    """Returns the state with the regression that the images of `names` were added to."""
    params = learned.state.params
    if "ridge" not in params:
        return state
    categories = dict(state.params["categories"])
    for name in names:
        categories[name] = {**categories[name], "ridge": params["categories"][name]["ridge"]}
    return state.replace(params={**state.params, "categories": categories, "ridge": params["ridge"]})
