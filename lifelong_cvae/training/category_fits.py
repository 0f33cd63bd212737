"""After a task: priors p(z|c) follow the encoder, factors what the decoder leaves, contrasts real images.

Thresholds and temperatures follow the evidence of images that no network has seen. The prior of a category at
hand is fitted to where the encoder puts its real images. That of an earlier one, whose encoder reads a mixed
part that has moved, is moved as remembered images move.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from lifelong_cvae import sampling
from lifelong_cvae.images import to_float
from lifelong_cvae.model import cvae, low_rank_noise, mixture_prior
from lifelong_cvae.model.networks import GrowingNetworks, Networks
from lifelong_cvae.stacked import StackedCategories, category_rngs, unstack_subtrees
from lifelong_cvae.state import LifelongState
from lifelong_cvae.training.losses import TaskData

PRIOR_POINTS = 2048
# Points of all earlier categories together, by which their priors are moved.
SHIFT_POINTS = 16 * PRIOR_POINTS
NOISE_IMAGES = 4096
CONTRAST_RANGE = (0.25, 4.0)
CONTRAST_STEPS = 20


def fit_category_parts(
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
    if state.config.network.conditioning == "one_hot":
        return {}
    data = data._replace(shared=None)  # with it, what is compiled would depend on whether the mixed part learns
    contrast = state.config.network.sample_style != "mean"
    fitted = _fit_parts(mixed, categories, data, networks=state.networks, contrast=contrast)
    return unstack_subtrees(fitted, names)


def fit_contrast(logits: jax.Array, x: jax.Array) -> jax.Array:
    """The factor on logits that makes drawn images as black and white as real ones, a scalar.

    A decoder's mean is an average over what it cannot tell apart, and grayer than any of it: it lacks the
    variance that the law of total variance leaves to p(x|z). The factor solves mean(y (1 - y)) =
    mean(x (1 - x)) for y = sigmoid(factor * logits); the left side falls as the factor grows.

    Args:
        logits: of the decoder, `[n, pixels]`.
        x: the images they stand for, in [0, 1], `[n, pixels]`.
    """
    grayness = jnp.mean(x * (1 - x))

    def halve(bounds: tuple[jax.Array, jax.Array], _: None):
        low, high = bounds
        middle = (low + high) / 2
        drawn = jax.nn.sigmoid(middle * logits)
        too_gray = jnp.mean(drawn * (1 - drawn)) > grayness
        return (jnp.where(too_gray, middle, low), jnp.where(too_gray, high, middle)), None

    bounds = tuple(jnp.float32(bound) for bound in CONTRAST_RANGE)
    low, high = jax.lax.scan(halve, bounds, length=CONTRAST_STEPS)[0]
    return (low + high) / 2


def shift_priors(
    teacher: LifelongState, mixed: Any, stack: StackedCategories, names: tuple[str, ...], *, rng: jax.Array
) -> dict[str, dict[str, mixture_prior.MixturePrior]]:
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
    rngs = category_rngs(rng, names, stack.capacity)
    cycles = teacher.config.learning.cycles
    moved = _shift_priors(teacher.params["mixed"], mixed, stack, rngs, networks=teacher.networks, cycles=cycles)
    return {name: {"prior": prior} for name, prior in unstack_subtrees(moved, names).items()}


def fits_priors(state: LifelongState) -> bool:
    """Whether categories have priors of their own; otherwise these stay N(0, I)."""
    return state.config.network.conditioning == "neurons" and state.config.network.prior_components > 0


@partial(jax.jit, static_argnames=("networks", "contrast"))
def _fit_parts(
    mixed: Any, categories: Any, data: TaskData, *, networks: GrowingNetworks, contrast: bool
) -> dict[str, Any]:
    def one(arguments: tuple[Any, ...]) -> dict[str, Any]:
        category, images, count, rng = arguments
        sample_rng, fit_rng = jax.random.split(jax.random.fold_in(rng, data.total_steps))
        model = cvae.CategoryModel(mixed, category, networks)
        # As many points whatever the number of images, spread evenly over them.
        x = to_float(images[jnp.arange(PRIOR_POINTS) * count // PRIOR_POINTS])
        z = cvae.encode(model, x).sample(rng=sample_rng)
        settled: dict[str, Any] = {}
        if networks.prior_components:
            settled["prior"] = mixture_prior.fit(z, networks.prior_components, images=count, rng=fit_rng)
        if networks.noise_rank:
            settled["low_rank_noise"] = _fit_low_rank_noise(model, images, count, rng=fit_rng)
        logits = cvae.decode(model, z)
        if contrast:
            settled["contrast"] = fit_contrast(logits, x)
        if networks.texture:
            squares = jnp.square(cvae.bernoulli_std(jax.nn.sigmoid(logits)))
            settled["rms_uncertainty"] = jnp.sqrt(jnp.mean(squares, axis=0))
        return settled

    return jax.lax.map(one, (categories, data.images, data.counts, data.rngs))


def _fit_low_rank_noise(
    model: cvae.CategoryModel, images: jax.Array, count: jax.Array, *, rng: jax.Array
) -> low_rank_noise.LowRankNoise:
    """Factors of what the decoder leaves of real images, at the mean of q(z|x,c)."""
    rows = min(len(images), NOISE_IMAGES)
    index = jnp.arange(rows)
    x = to_float(images[(index * (jnp.maximum(count, rows) / rows)).astype(jnp.int32)])
    remainders = cvae.residual(model, x, cvae.decode(model, cvae.encode(model, x).mean))
    remainders = jnp.where((index < count)[:, None], remainders, 0.0)
    return low_rank_noise.fit(remainders, jnp.minimum(count, rows), model.networks.noise_rank, rng=rng)


@partial(jax.jit, static_argnames=("networks", "cycles"))
def _shift_priors(
    teacher: Any, mixed: Any, stack: StackedCategories, rngs: jax.Array, *, networks: Networks, cycles: int
) -> mixture_prior.MixturePrior:
    # The fewer a category has, the more each stands for: what a task costs does not grow with their number.
    count = max(1, min(PRIOR_POINTS, SHIFT_POINTS // stack.capacity))

    def one(category: Any, rng: jax.Array) -> mixture_prior.MixturePrior:
        pair_rng, noise_rng = jax.random.split(rng)
        before, after = (cvae.CategoryModel(shared, category, networks) for shared in (teacher, mixed))
        _, x = sampling.sample_pairs(before, count, cycles, rng=pair_rng)
        # The same noise twice, so that nothing but the encoder makes a difference.
        points = [cvae.encode(model, x).sample(rng=noise_rng) for model in (before, after)]
        return mixture_prior.shift(category["prior"], *points, weight=PRIOR_POINTS // count)

    return stack.map_categories(one, rngs)
