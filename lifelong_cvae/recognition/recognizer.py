"""Recognition: log p(c|x) = log p(x|c) + log p(c) + constant.

In place of log p(x|c) stands a bound on it (`elbo`), what a regression on features says (`closed_form`), or a
product of both (`combined`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lifelong_cvae import sharding
from lifelong_cvae.config import RECOGNIZERS, REJECT_RATE, RecognitionConfig
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import concat_unpadded, flatten_images, padded_batches, to_float
from lifelong_cvae.model import cvae, rejection
from lifelong_cvae.model.networks import Networks
from lifelong_cvae.recognition import ridge_classifier, shortlist
from lifelong_cvae.ridge import temperature_scaling
from lifelong_cvae.stacked import StackedCategories, category_groups, stack_categories
from lifelong_cvae.state import LifelongState

MIN_BATCH = 8


def evidence(
    state: LifelongState | Recognizer,
    images: Any,
    *,
    scores: Any = None,
    rng: jax.Array | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """The bound on log p(x|c) that `state.config.recognition` names, for every category.

    Also works inside a `jit` of the caller. Matrix products run in full float32 on every device.

    Args:
        state: what has been learned, or a `recognizer` of it, which has the categories side by side already;
            one of two stages says -inf of all but the likeliest of each image.
        images: uint8 or float in [0, 1], `[n, h, w, c]`, or `[n, h, w]` for one channel.
        scores: what `closed_form.scores` gives for them, where it is there already: the candidates of a
            recognizer of two stages are chosen by it.
        rng: source of the samples, for the bounds that draw some.
        mesh: devices that share the images and the categories (see `parallel`).

    Returns:
        float32 `[n, categories]` in nats per image, categories in the order of `state.names`.

    Raises:
        InputError: nothing has been learned yet, bad images, or no `rng` where one is needed.
    """
    recognizer = state if isinstance(state, Recognizer) else Recognizer(state, "elbo")
    rows = flatten_images(images, recognizer.state.image_shape)
    settings = recognizer.state.config.recognition
    if settings.bound != "mean" and rng is None:
        raise InputError(f"the bound {settings.bound!r} draws samples: an rng is expected")
    if recognizer.candidates is None:
        return _all_evidence(recognizer, rows, rng=rng, mesh=mesh)
    if isinstance(rows, jax.core.Tracer):
        raise InputError("a recognizer of two stages sorts on the host: a call outside of jit is expected")
    if scores is None:
        by_sums = recognizer.classifier is not None
        scores = (
            ridge_classifier.scores(recognizer.classifier, images)
            if by_sums
            else shortlist.prototype_scores(recognizer.prototypes, rows)
        )
    return shortlist.pair_evidence(
        recognizer.state, recognizer.stacks, rows, shortlist.top_categories(scores, recognizer.candidates), rng=rng
    )


def _all_evidence(recognizer: Recognizer, rows: Any, *, rng: jax.Array | None, mesh: Mesh | None) -> jax.Array:
    """Bounds of rows for every category."""
    state, columns = recognizer.state, []
    bounds = partial(_batch_evidence, networks=state.networks, settings=state.config.recognition, mesh=mesh)
    mixed, shards = sharding.device_put(state.params["mixed"], mesh), sharding.axis_size(mesh, sharding.CATEGORY_AXIS)
    stacks = recognizer.stacks if mesh is None else None
    for index, names in enumerate(category_groups(state)):
        stack = stacks[index] if stacks else stack_categories(state, names, shards=shards).on_mesh(mesh)
        parts = []
        for start, block in padded_batches(rows, MIN_BATCH, state.config.recognition.eval_batch_size):
            block_rng = None if rng is None else jax.random.fold_in(rng, start)
            parts.append(bounds(mixed, stack, *sharding.device_put((block, block_rng), mesh)))
        columns.append(concat_unpadded(parts, len(rows), len(names)))
    if len(columns) == 1:
        return columns[0]
    traced = isinstance(columns[0], jax.core.Tracer)
    return jnp.concatenate(columns, axis=1) if traced else jax.device_put(np.concatenate(columns, axis=1))


@partial(jax.jit, static_argnames=("networks", "settings", "mesh"))
def _batch_evidence(
    mixed: Any,
    stack: StackedCategories,
    rows: jax.Array,
    rng: jax.Array | None,
    *,
    networks: Networks,
    settings: RecognitionConfig,
    mesh: Mesh | None,
) -> jax.Array:
    """Bounds of a block of rows: `[rows, capacity]`. The samples' noise is common to all categories."""
    with jax.default_matmul_precision("float32"):
        x = to_float(sharding.constrain(rows, mesh, sharding.DATA_AXIS))
        activations = cvae.mixed_activations(cvae.CategoryModel(mixed, {}, networks), "encoder", x)

        def one(category: Any) -> jax.Array:
            return cvae.evidence_bound(cvae.CategoryModel(mixed, category, networks), x, activations, settings, rng=rng)

        return sharding.constrain(stack.map_categories(one, mesh=mesh).T, mesh)


def log_posteriors(log_evidence: jax.Array, log_prior: jax.Array | None = None) -> jax.Array:
    """`log p(c|x)` in nats from log p(x|c), both `[n, categories]`, and log p(c) `[categories]` (uniform)."""
    if log_prior is not None:
        log_evidence = log_evidence + log_prior[None]
    return jax.nn.log_softmax(log_evidence, axis=-1)


class Recognizer(NamedTuple):
    """What answers which category an image is of; `recognizer` makes it.

    Attributes:
        state: what has been learned.
        kind: one of `config.RECOGNIZERS`.
        elbo_weight: of the evidence, 1 / temperature.
        score_weight: of the scores of the regression.
        classifier: the solved regression; None for `elbo`, but where that chooses candidates.
        stacks: the categories side by side, as `stacking.groups` has them; None where they are many, and are
            put so at each call, or where the evidence counts for nothing.
        candidates: of how many categories of each image the evidence is computed; None: of all.
        prototypes: choose them, where there is no regression.
    """

    state: LifelongState
    kind: str
    elbo_weight: float = 1.0
    score_weight: float = 0.0
    classifier: ridge_classifier.RidgeClassifier | None = None
    stacks: tuple[StackedCategories, ...] | None = None
    candidates: int | None = None
    prototypes: shortlist.Prototypes | None = None


def make_recognizer(state: LifelongState, kind: str | None = None, *, candidates: int | None = None) -> Recognizer:
    """A recognizer of a state, made ready once for many calls of `recognize`.

    Args:
        state: what has been learned.
        kind: `elbo`, or `closed_form` or `combined`, which solve a regression (seconds);
            default what `state.config.recognition` names.
        candidates: in two stages: of so many categories of each image the evidence is computed, the others
            have the probability 0. They are those that the regression finds likeliest or, where the state
            keeps no sums, whose prototypes are nearest. None, or as many as there are: all categories.

    Raises:
        InputError: another kind, nothing has been learned yet, the state keeps no sums, no candidate, or
            candidates for a recognizer that weighs no evidence.
    """
    kind = state.config.recognition.recognizer if kind is None else kind
    if kind not in RECOGNIZERS:
        raise InputError(f"recognizer {kind!r}: one of {', '.join(RECOGNIZERS)} is expected")
    if candidates is not None and candidates < 1:
        raise InputError(f"candidates={candidates}: at least 1 is expected")
    if candidates is not None and kind == "closed_form":
        raise InputError("candidates for the recognizer closed_form, which weighs no evidence: none is expected")
    if candidates is not None and candidates >= len(state.names):
        candidates = None
    recognizer = Recognizer(state, kind, candidates=candidates)
    if kind != "elbo":
        tables = [state.params["categories"][name]["ridge"]["calibration"] for name in state.names]
        classifier = ridge_classifier.solve(state)
        elbo_weight, score_weight = temperature_scaling.expert_weights(tables, kind)
        recognizer = recognizer._replace(elbo_weight=elbo_weight, score_weight=score_weight, classifier=classifier)
    elif candidates is not None and state.config.closed_form.random_features:
        recognizer = recognizer._replace(classifier=ridge_classifier.solve(state))
    groups = category_groups(state)
    if recognizer.elbo_weight and (candidates is not None or len(groups) == 1):
        recognizer = recognizer._replace(stacks=tuple(stack_categories(state, names) for names in groups))
    if candidates is not None and recognizer.classifier is None:
        recognizer = recognizer._replace(prototypes=shortlist.make_prototypes(state, recognizer.stacks))
    return recognizer


def log_likelihoods(
    recognizer: Recognizer,
    images: Any,
    *,
    log_evidence: Any = None,
    scores: Any = None,
    rng: jax.Array | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Log p(x|c) up to a constant of the image, as a recognizer says it.

    Args:
        recognizer: the recognizer.
        images: as for `evidence`.
        log_evidence: what `evidence` gives for them, where it is there already.
        scores: what `closed_form.scores` gives for them, where it is there already.
        rng: source of the samples, for the bounds that draw some.
        mesh: as for `evidence`.

    Returns:
        `[n, categories]`.
    """
    if not recognizer.score_weight:
        return evidence(recognizer, images, rng=rng, mesh=mesh) if log_evidence is None else log_evidence
    scores = ridge_classifier.scores(recognizer.classifier, images) if scores is None else scores
    if recognizer.elbo_weight and log_evidence is None:
        log_evidence = evidence(recognizer, images, scores=scores, rng=rng, mesh=mesh)
    likelihoods = recognizer.score_weight * scores
    return likelihoods + recognizer.elbo_weight * log_evidence if recognizer.elbo_weight else likelihoods


def unknown(state: LifelongState, log_evidence: Any, names: np.ndarray, *, part: float = REJECT_RATE) -> np.ndarray:
    """Which images are of no known category, as far as the evidence tells (see `rejection`).

    Args:
        state: what has been learned; a category of growth `vectors` owns no thresholds and rejects nothing.
        log_evidence: what `evidence` says of the images, `[n, categories]`.
        names: what `recognize` takes them for, `[n]`.
        part: of the images of known categories that may be called unknown; 0: none is.

    Returns:
        bool `[n]`.

    Raises:
        InputError: a part that is not one.
    """
    if not 0 <= part < 1:
        raise InputError(f"part {part} of images to reject: at least 0 and below 1 is expected")
    tables = [state.model(name).part("thresholds", rejection.uncalibrated_thresholds()) for name in state.names]
    columns = {name: column for column, name in enumerate(state.names)}
    answers = np.asarray([columns[name] for name in names], int)
    return rejection.is_unknown(np.asarray(tables), np.asarray(log_evidence), answers, part)


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
        state: what has been learned, or a `recognizer` of it.
        images: as for `evidence`.
        rng: source of the samples, for the bounds that draw some.
        category_priors: p(c) of every category, any positive scale; uniform unless given.
        mesh: as for `evidence`.

    Returns:
        Names `[n]` (numpy, text) and p(c|x) `[n, categories]` in the order of `state.names`.

    Raises:
        InputError: as for `evidence`, or priors that are not one positive number per category.
    """
    recognizer = state if isinstance(state, Recognizer) else make_recognizer(state)
    names, log_prior = recognizer.state.names, None
    if category_priors is not None:
        if set(category_priors) != set(names) or not all(p > 0 for p in category_priors.values()):
            raise InputError(f"category priors: a positive number for each of {', '.join(names)} is expected")
        log_prior = jnp.log(jnp.asarray([category_priors[name] for name in names]))
    likelihoods = log_likelihoods(recognizer, images, rng=rng, mesh=mesh)
    probabilities = np.exp(np.asarray(log_posteriors(likelihoods, log_prior)))
    return np.asarray(names)[probabilities.argmax(axis=1)], probabilities
