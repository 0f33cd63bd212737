"""After a task: priors p(z|c) follow the encoder, factors what the decoder leaves, contrasts real images.

Thresholds and temperatures follow the evidence of images that no network has seen. The prior of a category at
hand is fitted to where the encoder puts its real images. That of an earlier one, whose encoder reads a mixed
part that has moved, is moved as remembered images move.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lifelong_cvae import calibration, closed_form, cvae, factors, prior, recognition, rejection, stacking
from lifelong_cvae.growth import LifelongState
from lifelong_cvae.images import to_unit
from lifelong_cvae.losses import TaskData
from lifelong_cvae.networks import Networks, Neurons
from lifelong_cvae.playback import sample_pairs
from lifelong_cvae.stacking import Stack

POINTS = 2048
# Points of all earlier categories together, by which their priors are moved.
MOVED_POINTS = 16 * POINTS
FACTOR_IMAGES = 4096
CONTRAST_RANGE = (0.25, 4.0)
CONTRAST_STEPS = 20
CALIBRATION_IMAGES = 1024


def settle(
    mixed: Any, categories: Any, data: TaskData, names: tuple[str, ...], state: LifelongState
) -> dict[str, dict[str, Any]]:
    """Fits priors, factors and contrasts of the categories that were just learned to their real images.

    Args:
        mixed: the mixed parameters.
        categories: their subtrees `[categories, ...]`.
        data: the task.
        names: of the categories.
        state: whose settings hold.

    Returns:
        Name to what is fitted, `prior`, `factors`, `contrast` and `spread`, but for what settings leave out.
    """
    if state.config.network.growth == "vectors":
        return {}
    data = data._replace(shared=None)  # with it, what is compiled would depend on whether the mixed part learns
    contrast = state.config.network.drawing != "mean"
    fitted = _settle(mixed, categories, data, networks=state.networks, contrast=contrast)
    return stacking.unstack_subtrees(fitted, names)


def fit_contrast(logits: jax.Array, x: jax.Array) -> jax.Array:
    """The factor on logits that makes drawn images as black and white as real ones, a scalar.

    A decoder's mean is an average over what it cannot tell apart, and greyer than any of it: it lacks the
    variance that the law of total variance leaves to p(x|z). The factor solves mean(y (1 - y)) =
    mean(x (1 - x)) for y = sigmoid(factor * logits); the left side falls as the factor grows.

    Args:
        logits: of the decoder, `[n, pixels]`.
        x: the images they stand for, in [0, 1], `[n, pixels]`.
    """
    greyness = jnp.mean(x * (1 - x))

    def halve(bounds: tuple[jax.Array, jax.Array], _: None):
        low, high = bounds
        middle = (low + high) / 2
        drawn = jax.nn.sigmoid(middle * logits)
        too_grey = jnp.mean(drawn * (1 - drawn)) > greyness
        return (jnp.where(too_grey, middle, low), jnp.where(too_grey, high, middle)), None

    bounds = tuple(jnp.float32(bound) for bound in CONTRAST_RANGE)
    low, high = jax.lax.scan(halve, bounds, length=CONTRAST_STEPS)[0]
    return (low + high) / 2


def move_priors(
    teacher: LifelongState, mixed: Any, stack: Stack, names: tuple[str, ...], *, rng: jax.Array
) -> dict[str, dict[str, prior.Prior]]:
    """Priors of earlier categories for a mixed part that has moved, from what the teacher remembers.

    Args:
        teacher: the state before the task.
        mixed: the mixed parameters after it.
        stack: the earlier categories.
        names: theirs.
        rng: source of the samples.

    Returns:
        Name to `{"prior": ...}`.
    """
    rngs = stacking.category_rngs(rng, names, stack.capacity)
    cycles = teacher.config.learning.cycles
    moved = _move(teacher.params["mixed"], mixed, stack, rngs, networks=teacher.networks, cycles=cycles)
    return {name: {"prior": prior} for name, prior in stacking.unstack_subtrees(moved, names).items()}


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
        state, readout = closed_form.choose_ridge(state)
    categories = dict(state.params["categories"])
    for name, values in rows.items():
        held_out = values[closed_form.held_out(state, len(values))]
        judged = held_out if len(held_out) else values
        images = judged[:CALIBRATION_IMAGES].reshape(-1, *state.image_shape)
        candidates = state if weighs else state.replace(names=(name,), visits=(0,))
        nats = np.asarray(recognition.evidence(candidates, images, rng=rng, mesh=mesh))
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


def fits_priors(state: LifelongState) -> bool:
    """Whether categories have priors of their own; otherwise these stay N(0, I)."""
    return state.config.network.growth == "neurons" and state.config.network.prior_components > 0


@partial(jax.jit, static_argnames=("networks", "contrast"))
def _settle(mixed: Any, categories: Any, data: TaskData, *, networks: Neurons, contrast: bool) -> dict[str, Any]:
    def one(arguments: tuple[Any, ...]) -> dict[str, Any]:
        category, images, count, rng = arguments
        sample_rng, fit_rng = jax.random.split(jax.random.fold_in(rng, data.total_steps))
        path = cvae.Path(mixed, category, networks)
        # As many points whatever the number of images, spread evenly over them.
        x = to_unit(images[jnp.arange(POINTS) * count // POINTS])
        z = cvae.encode(path, x).sample(rng=sample_rng)
        settled: dict[str, Any] = {}
        if networks.prior_components:
            settled["prior"] = prior.fit(z, networks.prior_components, images=count, rng=fit_rng)
        if networks.factors:
            settled["factors"] = _fit_factors(path, images, count, rng=fit_rng)
        logits = cvae.decode(path, z)
        if contrast:
            settled["contrast"] = fit_contrast(logits, x)
        if networks.texture:
            squares = jnp.square(cvae.uncertainty(jax.nn.sigmoid(logits)))
            settled["spread"] = jnp.sqrt(jnp.mean(squares, axis=0))
        return settled

    return jax.lax.map(one, (categories, data.images, data.counts, data.rngs))


def _fit_factors(path: cvae.Path, images: jax.Array, count: jax.Array, *, rng: jax.Array) -> factors.Factors:
    """Factors of what the decoder leaves of real images, at the mean of q(z|x,c)."""
    rows = min(len(images), FACTOR_IMAGES)
    index = jnp.arange(rows)
    x = to_unit(images[(index * (jnp.maximum(count, rows) / rows)).astype(jnp.int32)])
    remainders = cvae.remainder(path, x, cvae.decode(path, cvae.encode(path, x).mean))
    remainders = jnp.where((index < count)[:, None], remainders, 0.0)
    return factors.fit(remainders, jnp.minimum(count, rows), path.networks.factors, rng=rng)


@partial(jax.jit, static_argnames=("networks", "cycles"))
def _move(teacher: Any, mixed: Any, stack: Stack, rngs: jax.Array, *, networks: Networks, cycles: int) -> prior.Prior:
    # The fewer a category has, the more each stands for: what a task costs does not grow with their number.
    count = max(1, min(POINTS, MOVED_POINTS // stack.capacity))

    def one(category: Any, rng: jax.Array) -> prior.Prior:
        pair_rng, noise_rng = jax.random.split(rng)
        before, after = (cvae.Path(shared, category, networks) for shared in (teacher, mixed))
        _, x = sample_pairs(before, count, cycles, rng=pair_rng)
        # The same noise twice, so that nothing but the encoder makes a difference.
        points = [cvae.encode(path, x).sample(rng=noise_rng) for path in (before, after)]
        return prior.moved(category["prior"], *points, weight=POINTS // count)

    return stack.map(one, rngs)
