"""Recognition by Bayes' rule: log p(c|x) = log p(x|c) + log p(c) + constant.

log p(x|c) is replaced by a bound on it (`elbo`), by the scores of a ridge regression (`closed_form`), or by the product
of both experts (`combined`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lifelong_cvae.config import DETERMINISTIC_BOUNDS, RECOGNIZERS
from lifelong_cvae.errors import InputError
from lifelong_cvae.model.types import own_types
from lifelong_cvae.recognition import bounds, ridge_classifier, shortlist
from lifelong_cvae.ridge import temperature_scaling
from lifelong_cvae.stacked import StackedCategories, category_groups, group_capacity, stack_categories
from lifelong_cvae.state import LifelongState


class Recognizer(NamedTuple):
    """A state prepared for recognition, from `make_recognizer`.

    Attributes:
        state: state of the learner.
        kind: one of `config.RECOGNIZERS`.
        elbo_weight: weight of the evidence, 1 / temperature.
        score_weight: weight of the regression scores, 1 / temperature.
        classifier: the solved regression. None for `elbo`, unless it selects the shortlist.
        stacks: the stacked categories, one stack per group of `stacked.category_groups`. None if there are several
            groups, which are then stacked in every call, and for `closed_form`.
        candidates: length of the shortlist. None evaluates the evidence of all categories.
    """

    state: LifelongState
    kind: str
    elbo_weight: float = 1.0
    score_weight: float = 0.0
    classifier: ridge_classifier.RidgeClassifier | None = None
    stacks: tuple[StackedCategories, ...] | None = None
    candidates: int | None = None


class Recognition(NamedTuple):
    """Recognition of n images, and what it is based on.

    Attributes:
        names: most probable category of each image, `[n]`.
        probabilities: p(c|x), `[n, categories]` in the order of `state.names`.
        log_evidence: `evidence` in nats per image, `[n, categories]`.
        scores: regression scores, `[n, categories]`. None without a regression.
    """

    names: np.ndarray
    probabilities: np.ndarray
    log_evidence: np.ndarray
    scores: jax.Array | None


@own_types()
def evidence(
    state: LifelongState | Recognizer,
    images: Any,
    *,
    scores: Any = None,
    rng: jax.Array | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Computes the bound on log p(x|c) that `state.config.recognition` selects, for every category.

    Also works inside a `jit` of the caller. Matrix products run in full float32 on every device.

    Args:
        state: state of the learner, or a recognizer of it, which has the categories stacked already. With a
            shortlist, categories outside it are -inf.
        images: uint8 or float in [0, 1], `[n, h, w, c]`, or `[n, h, w]` for one channel; vectors `[n, d]`.
        scores: `ridge_classifier.scores` of the images, if already computed. The shortlist is selected by them.
        rng: key of the samples, for bounds that are sampled.
        mesh: devices that share the images and the categories (`sharding.make_mesh`).

    Returns:
        float32 `[n, categories]` in nats per image, categories in the order of `state.names`.

    Raises:
        InputError: there is no category, bad images, no `rng` although the bound is sampled, or a shortlist inside
            `jit`.
    """
    recognizer = state if isinstance(state, Recognizer) else Recognizer(state, "elbo")
    rows = recognizer.state.rows(images)
    settings = recognizer.state.config.recognition
    if settings.bound not in DETERMINISTIC_BOUNDS and rng is None:
        raise InputError(f"rng: expected a key for the bound {settings.bound!r}, which is sampled, got None")
    if recognizer.candidates is None:
        return bounds.all_evidence(recognizer.state, recognizer.stacks, rows, rng=rng, mesh=mesh)
    if isinstance(rows, jax.core.Tracer):
        raise InputError("recognizer with a shortlist: expected a call outside jit, got traced images")
    if scores is None:
        scores = ridge_classifier.scores(recognizer.classifier, images)
    candidates = shortlist.top_categories(scores, recognizer.candidates)
    return shortlist.pair_evidence(recognizer.state, recognizer.stacks, rows, candidates, rng=rng)


@own_types()
def log_posteriors(log_evidence: jax.Array, log_prior: jax.Array | None = None) -> jax.Array:
    """Computes log p(c|x) from log p(x|c) `[n, categories]` and log p(c) `[categories]`, default uniform."""
    if log_prior is not None:
        log_evidence = log_evidence + log_prior[None]
    return jax.nn.log_softmax(log_evidence, axis=-1)


@own_types()
def make_recognizer(
    state: LifelongState,
    kind: str | None = None,
    *,
    candidates: int | None = None,
    classifier: ridge_classifier.RidgeClassifier | None = None,
) -> Recognizer:
    """Prepares a state for many calls of `recognize`.

    Args:
        state: state of the learner.
        kind: `elbo`, or `closed_form` or `combined`, which solve a regression (seconds); default
            `state.config.recognition.recognizer`.
        candidates: length of the shortlist. Evidence is computed only for that many categories per image; the others
            get probability 0. The regression selects the shortlist. None, or at least the number of categories,
            evaluates all categories.
        classifier: the solved regression of the state, if it is at hand (`Report.classifier`).

    Raises:
        InputError: the kind is unknown, there is no category, the state has no sums, `candidates` is below 1, or
            `candidates` is given for a recognizer that computes no evidence.
    """
    kind = state.config.recognition.recognizer if kind is None else kind
    if kind not in RECOGNIZERS:
        raise InputError(f"recognizer: expected one of {', '.join(RECOGNIZERS)}, got {kind!r}")
    if candidates is not None and candidates < 1:
        raise InputError(f"candidates: expected at least 1, got {candidates}")
    if candidates is not None and kind == "closed_form":
        raise InputError(
            f"candidates: expected None for recognizer closed_form, which computes no evidence, got {candidates}"
        )
    if candidates is not None and candidates >= len(state.names):
        candidates = None
    recognizer = Recognizer(state, kind, candidates=candidates)
    if kind != "elbo" or candidates is not None:
        recognizer = recognizer._replace(classifier=classifier or ridge_classifier.solve(state))
    if kind != "elbo":
        grids = [state.params["categories"][name]["ridge"]["calibration"] for name in state.names]
        elbo_weight, score_weight = 0.0, 1 / temperature_scaling.CLOSED_FORM_TEMPERATURE
        if kind == "combined":
            elbo_weight, score_weight = temperature_scaling.expert_weights(grids)
        recognizer = recognizer._replace(elbo_weight=elbo_weight, score_weight=score_weight)
    groups = category_groups(state)
    if kind != "closed_form" and (candidates is not None or len(groups) == 1):
        capacity = group_capacity(state)
        stacks = tuple(stack_categories(state, names, capacity=capacity) for names in groups)
        recognizer = recognizer._replace(stacks=stacks)
    return recognizer


@own_types()
def log_likelihoods(
    recognizer: Recognizer,
    images: Any,
    *,
    log_evidence: Any = None,
    scores: Any = None,
    rng: jax.Array | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Computes a recognizer's log p(x|c), up to a constant of the image, `[n, categories]`.

    Args:
        recognizer: from `make_recognizer`.
        images: as in `evidence`.
        log_evidence: `evidence` of the images, if already computed.
        scores: `ridge_classifier.scores` of the images, if already computed.
        rng: key of the samples, for bounds that are sampled.
        mesh: as in `evidence`.
    """
    if not recognizer.score_weight:
        return evidence(recognizer, images, rng=rng, mesh=mesh) if log_evidence is None else log_evidence
    scores = ridge_classifier.scores(recognizer.classifier, images) if scores is None else scores
    if recognizer.elbo_weight and log_evidence is None:
        log_evidence = evidence(recognizer, images, scores=scores, rng=rng, mesh=mesh)
    # On the host, where no number of categories is compiled.
    likelihoods = recognizer.score_weight * np.asarray(scores)
    if recognizer.elbo_weight:
        likelihoods += recognizer.elbo_weight * np.asarray(log_evidence)
    return jax.device_put(likelihoods)


@own_types()
def recognize(
    state: LifelongState | Recognizer,
    images: Any,
    *,
    rng: jax.Array | None = None,
    category_priors: Mapping[str, float] | None = None,
    mesh: Mesh | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Names the category of each image.

    Args:
        state: state of the learner, or a recognizer of it.
        images: as in `evidence`.
        rng: key of the samples, for bounds that are sampled.
        category_priors: p(c) of every category, up to a positive factor; default uniform.
        mesh: as in `evidence`.

    Returns:
        Names `[n]` (numpy, text) and p(c|x) `[n, categories]` in the order of `state.names`.

    Raises:
        InputError: as in `evidence`, or the priors are not one positive number per category.
    """
    recognizer = state if isinstance(state, Recognizer) else make_recognizer(state)
    names, log_prior = recognizer.state.names, None
    if category_priors is not None:
        if set(category_priors) != set(names) or not all(p > 0 for p in category_priors.values()):
            raise InputError(
                f"category priors: expected a positive number for each of {', '.join(names)}, "
                f"got {dict(category_priors)}"
            )
        log_prior = jnp.log(jnp.asarray([category_priors[name] for name in names]))
    likelihoods = log_likelihoods(recognizer, images, rng=rng, mesh=mesh)
    return decide(recognizer.state, likelihoods, log_prior)


@own_types()
def recognize_with_evidence(
    recognizer: Recognizer, images: Any, *, log_evidence: Any = None, rng: jax.Array | None = None
) -> Recognition:
    """Names the category of each image as `recognize` does, and returns evidence and scores too.

    Args:
        recognizer: from `make_recognizer`.
        images: as in `evidence`.
        log_evidence: `evidence` of the images, if already computed.
        rng: key of the samples, for bounds that are sampled.
    """
    scores = None if recognizer.classifier is None else ridge_classifier.scores(recognizer.classifier, images)
    if log_evidence is None:
        log_evidence = evidence(recognizer, images, scores=scores, rng=rng)
    likelihoods = log_likelihoods(recognizer, images, log_evidence=log_evidence, scores=scores)
    names, probabilities = decide(recognizer.state, likelihoods)
    return Recognition(names, probabilities, np.asarray(log_evidence), scores)


def decide(state: LifelongState, likelihoods: Any, log_prior: jax.Array | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns names `[n]` and p(c|x) `[n, categories]` from `log_likelihoods`.

    The prior log p(c) `[categories]` is uniform by default. Neither rounding nor ties depend on the order of learning:
    categories are compared in the order of their names.
    """
    names = np.asarray(state.names)
    order = np.argsort(names)
    ordered_prior = None if log_prior is None else log_prior[order]
    ordered = np.exp(np.asarray(log_posteriors(np.asarray(likelihoods)[:, order], ordered_prior)))
    probabilities = np.empty_like(ordered)
    probabilities[:, order] = ordered
    return names[order][ordered.argmax(axis=1)], probabilities
