"""Open-set recognition: images of no known category.

An image is unknown if the evidence, or the regression score, of the category that it was assigned to is below a
quantile of that category's own images (`model.rejection`).
"""

from typing import Any

import numpy as np

from lifelong_cvae.config import REJECT_RATE
from lifelong_cvae.deprecated import renamed_arguments
from lifelong_cvae.errors import InputError
from lifelong_cvae.model import rejection
from lifelong_cvae.model.types import own_types
from lifelong_cvae.recognition.recognizer import Recognizer
from lifelong_cvae.state import LifelongState


@own_types()
@renamed_arguments(part="rate")
def unknown(
    state: LifelongState | Recognizer,
    log_evidence: Any,
    names: np.ndarray,
    *,
    scores: Any = None,
    rate: float = REJECT_RATE,
) -> np.ndarray:
    """Flags images, `[n]`, that belong to no known category (see `rejection`).

    Args:
        state: state of the learner, or a recognizer of it. One-hot categories have no thresholds of the evidence.
        log_evidence: `evidence` of the images, `[n, categories]` in nats.
        names: categories that `recognize` assigned to the images, `[n]`.
        scores: `ridge_classifier.scores` of the images. With a recognizer that has a regression, half of the rate is
            spent on images with a low score; default None flags by evidence alone.
        rate: fraction of the images of known categories that may be rejected, in [0, 1). Zero rejects nothing.

    Raises:
        InputError: the rate is outside [0, 1).
    """
    if not 0 <= rate < 1:
        raise InputError(f"rejection rate: expected at least 0 and below 1, got {rate}")
    experts = _rejection_experts(state, log_evidence, scores)
    predictions = _columns(state, names)
    flags = [rejection.is_unknown(limits, values, predictions, rate / len(experts)) for limits, values in experts]
    return np.any(flags, axis=0)


@own_types()
def familiarity(
    state: LifelongState | Recognizer, log_evidence: Any, names: np.ndarray, *, scores: Any = None
) -> np.ndarray:
    """Computes how familiar images are, `[n]`: the lower, the more probably of no known category.

    Args:
        state: as in `unknown`.
        log_evidence: as in `unknown`.
        names: as in `unknown`.
        scores: as in `unknown`. With them, the lower of two values counts (`rejection.familiarity`).
    """
    experts = _rejection_experts(state, log_evidence, scores)
    predictions = _columns(state, names)
    return np.min([rejection.familiarity(limits, values, predictions) for limits, values in experts], axis=0)


def _columns(state: LifelongState | Recognizer, names: np.ndarray) -> np.ndarray:
    known = state.state.names if isinstance(state, Recognizer) else state.names
    columns = {name: column for column, name in enumerate(known)}
    return np.asarray([columns[name] for name in names], int)


def _rejection_experts(
    state: LifelongState | Recognizer, log_evidence: Any, scores: Any
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns thresholds `[categories, rates]` and values `[n, categories]` of evidence and scores."""
    classifier = state.classifier if isinstance(state, Recognizer) else None
    state = state.state if isinstance(state, Recognizer) else state
    thresholds = [state.model(name).part("thresholds", rejection.uncalibrated_thresholds()) for name in state.names]
    experts = [(np.asarray(thresholds), np.asarray(log_evidence))]
    if scores is not None and classifier is not None:
        thresholds = [state.params["categories"][name]["ridge"]["thresholds"] for name in state.names]
        experts.append((rejection.pool(thresholds), np.asarray(scores) - np.asarray(classifier.own_mean)))
    return experts
