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

from lifelong_cvae import calibration, closed_form, cvae, parallel, rejection, stacking
from lifelong_cvae.config import RECOGNISERS, REJECTED_PART, RecognitionConfig
from lifelong_cvae.errors import InputError
from lifelong_cvae.growth import LifelongState
from lifelong_cvae.images import as_rows, blocks, to_unit, unpadded
from lifelong_cvae.networks import Networks
from lifelong_cvae.stacking import Stack

MINIMUM_BLOCK = 8
CALIBRATION_IMAGES = 1024


def evidence(
    state: LifelongState, images: Any, *, rng: jax.Array | None = None, mesh: Mesh | None = None
) -> jax.Array:
    """The bound on log p(x|c) that `state.config.recognition` names, for every category.

    Also works inside a `jit` of the caller. Matrix products run in full float32 on every device.

    Args:
        state: what has been learned.
        images: uint8 or float in [0, 1], `[n, h, w, c]`, or `[n, h, w]` for one channel.
        rng: source of the samples, for the bounds that draw some.
        mesh: devices that share the images and the categories (see `parallel`).

    Returns:
        float32 `[n, categories]` in nats per image, categories in the order of `state.names`.

    Raises:
        InputError: nothing has been learned yet, bad images, or no `rng` where one is needed.
    """
    settings = state.config.recognition
    if settings.bound != "mean" and rng is None:
        raise InputError(f"the bound {settings.bound!r} draws samples: an rng is expected")
    rows = as_rows(images, state.image_shape)
    bounds = partial(_block, networks=state.networks, settings=settings, mesh=mesh)
    mixed, columns = parallel.put(state.params["mixed"], mesh), []
    for names in stacking.groups(state):
        stack = stacking.stack(state, names, shards=parallel.shards(mesh, parallel.CATEGORY)).put(mesh)
        parts = []
        for start, block in blocks(rows, MINIMUM_BLOCK, settings.block_images):
            block_rng = None if rng is None else jax.random.fold_in(rng, start)
            parts.append(bounds(mixed, stack, *parallel.put((block, block_rng), mesh)))
        columns.append(unpadded(parts, len(rows), len(names)))
    if len(columns) == 1:
        return columns[0]
    traced = isinstance(columns[0], jax.core.Tracer)
    return jnp.concatenate(columns, axis=1) if traced else jax.device_put(np.concatenate(columns, axis=1))


@partial(jax.jit, static_argnames=("networks", "settings", "mesh"))
def _block(
    mixed: Any,
    stack: Stack,
    rows: jax.Array,
    rng: jax.Array | None,
    *,
    networks: Networks,
    settings: RecognitionConfig,
    mesh: Mesh | None,
) -> jax.Array:
    """Bounds of a block of rows: `[rows, capacity]`. The samples' noise is common to all categories."""
    with jax.default_matmul_precision("float32"):
        x = to_unit(parallel.share(rows, mesh, parallel.DATA))
        shared = cvae.shared_neurons(cvae.Path(mixed, {}, networks), "encoder", x)

        def one(category: Any) -> jax.Array:
            path = cvae.Path(mixed, category, networks)
            posterior = cvae.encode(path, x, shared)
            if settings.bound == "mean":
                return cvae.elbo_at(path, x, posterior, posterior.mean)
            bound = cvae.elbo if settings.bound == "sampled" else cvae.importance_bound
            return bound(path, x, posterior, rng=rng, samples=settings.samples)

        return parallel.share(stack.map(one, mesh=mesh).T, mesh)


def log_posteriors(log_evidence: jax.Array, log_prior: jax.Array | None = None) -> jax.Array:
    """`log p(c|x)` in nats from log p(x|c), both `[n, categories]`, and log p(c) `[categories]` (uniform)."""
    if log_prior is not None:
        log_evidence = log_evidence + log_prior[None]
    return jax.nn.log_softmax(log_evidence, axis=-1)


class Recogniser(NamedTuple):
    """What answers which category an image is of; `recogniser` makes it.

    Attributes:
        state: what has been learned.
        kind: one of `config.RECOGNISERS`.
        elbo_weight: of the evidence, 1 / temperature.
        score_weight: of the scores of the regression.
        readout: the solved regression; None for `elbo`.
    """

    state: LifelongState
    kind: str
    elbo_weight: float = 1.0
    score_weight: float = 0.0
    readout: closed_form.Readout | None = None


def recogniser(state: LifelongState, kind: str | None = None) -> Recogniser:
    """A recogniser of a state, made ready once for many calls of `recognise`.

    Args:
        state: what has been learned.
        kind: `elbo`, ready at once, or `closed_form` or `combined`, which solve a regression (seconds);
            default what `state.config.recognition` names.

    Raises:
        InputError: another kind, nothing has been learned yet, or the state keeps no sums.
    """
    kind = state.config.recognition.recogniser if kind is None else kind
    if kind not in RECOGNISERS:
        raise InputError(f"recogniser {kind!r}: one of {', '.join(RECOGNISERS)} is expected")
    if kind == "elbo":
        return Recogniser(state, kind)
    readout = closed_form.solve(state)
    tables = [state.params["categories"][name]["closed_form"]["calibration"] for name in state.names]
    return Recogniser(state, kind, *calibration.weights(tables, kind), readout)


def log_likelihoods(
    asked: Recogniser,
    images: Any,
    *,
    log_evidence: Any = None,
    scores: Any = None,
    rng: jax.Array | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Log p(x|c) up to a constant of the image, as a recogniser says it.

    Args:
        asked: the recogniser.
        images: as for `evidence`.
        log_evidence: what `evidence` gives for them, where it is there already.
        scores: what `closed_form.scores` gives for them, where it is there already.
        rng: source of the samples, for the bounds that draw some.
        mesh: as for `evidence`.

    Returns:
        `[n, categories]`.
    """
    if asked.elbo_weight and log_evidence is None:
        log_evidence = evidence(asked.state, images, rng=rng, mesh=mesh)
    if asked.readout is None:
        return log_evidence
    scores = closed_form.scores(asked.readout, images) if scores is None else scores
    likelihoods = asked.score_weight * scores
    return likelihoods + asked.elbo_weight * log_evidence if asked.elbo_weight else likelihoods


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
        mesh: as for `evidence`.
    """
    weighs = state.config.closed_form.random_features > 0 and len(state.names) > 1
    if weighs:
        state, readout = closed_form.choose_ridge(state)
    categories = dict(state.params["categories"])
    for name, values in rows.items():
        held_out = values[closed_form.held_out(state, len(values))]
        judged = held_out if len(held_out) else values
        images = judged[:CALIBRATION_IMAGES].reshape(-1, *state.image_shape)
        candidates = state if weighs else state.replace(names=(name,), visits=(0,))
        nats = np.asarray(evidence(candidates, images, rng=rng, mesh=mesh))
        column = candidates.names.index(name)
        own = dict(categories[name])
        if state.config.network.growth == "neurons":
            found = jnp.asarray(rejection.thresholds(nats[:, column]))
            # Of a category that returns the lower ones: what was known stays known.
            returns = state.visit(name) > 1
            own["thresholds"] = jnp.minimum(own["thresholds"], found) if returns else found
        if weighs and len(held_out):
            table = calibration.table(nats, np.asarray(closed_form.scores(readout, images)), column)
            own["closed_form"] = {**own["closed_form"], "calibration": jnp.asarray(table)}
        categories[name] = own
    return state.replace(params={**state.params, "categories": categories})


def unknown(
    state: LifelongState, log_evidence: Any, names: np.ndarray, *, part: float = REJECTED_PART
) -> np.ndarray:
    """Which images are of no known category, as far as the evidence tells (see `rejection`).

    Args:
        state: what has been learned; a category of growth `vectors` owns no thresholds and rejects nothing.
        log_evidence: what `evidence` says of the images, `[n, categories]`.
        names: what `recognise` takes them for, `[n]`.
        part: of the images of known categories that may be called unknown; 0: none is.

    Returns:
        bool `[n]`.

    Raises:
        InputError: a part that is not one.
    """
    if not 0 <= part < 1:
        raise InputError(f"part {part} of images to reject: at least 0 and below 1 is expected")
    tables = [state.path(name).own("thresholds", rejection.blank()) for name in state.names]
    columns = {name: column for column, name in enumerate(state.names)}
    answers = np.asarray([columns[name] for name in names], int)
    return rejection.rejected(np.asarray(tables), np.asarray(log_evidence), answers, part)


def recognise(
    state: LifelongState | Recogniser,
    images: Any,
    *,
    rng: jax.Array | None = None,
    category_priors: Mapping[str, float] | None = None,
    mesh: Mesh | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Names the category of each image.

    Args:
        state: what has been learned, or a `recogniser` of it.
        images: as for `evidence`.
        rng: source of the samples, for the bounds that draw some.
        category_priors: p(c) of every category, any positive scale; uniform unless given.
        mesh: as for `evidence`.

    Returns:
        Names `[n]` (numpy, text) and p(c|x) `[n, categories]` in the order of `state.names`.

    Raises:
        InputError: as for `evidence`, or priors that are not one positive number per category.
    """
    asked = state if isinstance(state, Recogniser) else recogniser(state)
    names, log_prior = asked.state.names, None
    if category_priors is not None:
        if set(category_priors) != set(names) or not all(p > 0 for p in category_priors.values()):
            raise InputError(f"category priors: a positive number for each of {', '.join(names)} is expected")
        log_prior = jnp.log(jnp.asarray([category_priors[name] for name in names]))
    likelihoods = log_likelihoods(asked, images, rng=rng, mesh=mesh)
    probabilities = np.exp(np.asarray(log_posteriors(likelihoods, log_prior)))
    return np.asarray(names)[probabilities.argmax(axis=1)], probabilities
