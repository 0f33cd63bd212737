"""Fits after training: mixture prior, residual noise and output contrast of each category.

The parts of the task's categories are fitted to their real images. If the mixed part has moved under replay, the
priors of earlier categories are shifted as replayed images move in latent space.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from lifelong_cvae.images import power_of_two, to_float
from lifelong_cvae.model import cpu, cvae, low_rank_noise, mixture_prior
from lifelong_cvae.model.networks import GrowingNetworks, Networks
from lifelong_cvae.sampling import sample_pairs
from lifelong_cvae.stacked import (
    MIN_CAPACITY,
    NOT_USED_IN_TRAINING,
    StackedCategories,
    category_rngs,
    stack_categories,
    stack_subtrees,
    unstack_subtrees,
)
from lifelong_cvae.state import LifelongState
from lifelong_cvae.training.losses import TaskData
from lifelong_cvae.training.teacher import Teacher
from lifelong_cvae.training.train import check_finite

# Latent points to which a category's prior is fitted.
PRIOR_POINTS = 2048
# Latent points of all earlier categories together by which their priors are shifted.
SHIFT_POINTS = 16 * PRIOR_POINTS
# Largest number of images to which low-rank noise is fitted.
NOISE_IMAGES = 4096
# Images to which parts are fitted have at most so many values, unless there are fewer than `FEWEST_FITTED`: decoded
# images of 128 x 128 pixels in color would take gigabytes.
FITTED_VALUES, FEWEST_FITTED = 2**26, 512
# Strength of the trained scale of vectors, in vectors.
SCALE_STRENGTH = 20
CONTRAST_RANGE = (0.25, 4.0)
CONTRAST_STEPS = 20


def fit_category_parts(state: LifelongState, data: TaskData, teacher: Teacher) -> LifelongState:
    """Fits prior, noise, contrast and uncertainty of the task's categories; shifts replayed priors.

    One-hot categories have no such parts.

    Args:
        state: state after training.
        data: the task.
        teacher: the model before the task.

    Raises:
        FloatingPointError: a fitted value is not finite.
    """
    networks = state.networks
    if not networks.fits_parts:
        return state
    trained = stack_subtrees(state, teacher.task, leave_out=NOT_USED_IN_TRAINING)
    # The program must not depend on whether the mixed part is trained.
    data = data._replace(mixed_activations=None)
    with_contrast = state.config.network.sample_style != "mean" and not networks.is_vector
    stacked = fit_parts(state.params["mixed"], trained, data, networks=networks, with_contrast=with_contrast)
    fitted = unstack_subtrees(stacked, teacher.task)
    if teacher.names and networks.prior_components:
        fitted |= shift_priors(teacher, state.params["mixed"])
    check_finite(fitted, "after the last step", teacher.task)
    categories = {name: {**subtree, **fitted.get(name, {})} for name, subtree in state.params["categories"].items()}
    return state.replace(params={**state.params, "categories": categories})


def fit_contrast(logits: jax.Array, x: jax.Array) -> jax.Array:
    """Finds the factor on the logits that makes decoded images as black and white as real ones.

    The decoder's mean is grayer than real images: it lacks the variance that the law of total variance assigns to
    p(x|z). The factor solves mean(y (1 - y)) = mean(x (1 - x)) for y = sigmoid(factor * logits) by bisection; the left
    side falls as the factor grows.

    Args:
        logits: decoder outputs, `[n, pixels]`.
        x: images that they reconstruct, in [0, 1], `[n, pixels]`.
    """
    grayness = jnp.mean(x * (1 - x))

    def halve(bounds: tuple[jax.Array, jax.Array], _: None):
        low, high = bounds
        middle = (low + high) / 2
        mean = jax.nn.sigmoid(middle * logits)
        too_gray = jnp.mean(mean * (1 - mean)) > grayness
        return (jnp.where(too_gray, middle, low), jnp.where(too_gray, high, middle)), None

    bounds = tuple(jnp.float32(bound) for bound in CONTRAST_RANGE)
    low, high = jax.lax.scan(halve, bounds, length=CONTRAST_STEPS)[0]
    return (low + high) / 2


def shift_priors(teacher: Teacher, mixed: Any) -> dict[str, dict[str, mixture_prior.MixturePrior]]:
    """Shifts the priors of replayed categories to a mixed part that has moved.

    Args:
        teacher: the model before the task.
        mixed: mixed parameters after it.
    """
    stack = stack_categories(
        teacher.state, teacher.names, leave_out=NOT_USED_IN_TRAINING, capacity=teacher.state.capacity
    )
    rngs = category_rngs(teacher.rng, teacher.names, stack.capacity)
    cycles = teacher.state.config.learning.cycles
    networks = teacher.state.networks
    # Fewer points per category if there are many, each with more weight: the cost of a task stays constant.
    count = max(1, min(PRIOR_POINTS, SHIFT_POINTS // power_of_two(len(teacher.names), MIN_CAPACITY)))
    before = teacher.state.params["mixed"]
    shifted = _shift_priors(before, mixed, stack, rngs, networks=networks, cycles=cycles, count=count)
    return {name: {"prior": prior} for name, prior in unstack_subtrees(shifted, teacher.names).items()}


@partial(jax.jit, static_argnames=("networks", "with_contrast"))
def fit_parts(
    mixed: Any, categories: Any, data: TaskData, *, networks: GrowingNetworks, with_contrast: bool
) -> dict[str, Any]:
    """Fits the parts of stacked subtrees `[categories, ...]`."""

    def fit(arguments: tuple[Any, ...]) -> dict[str, Any]:
        category, images, count, rng, total_steps = arguments
        sample_rng, fit_rng = jax.random.split(jax.random.fold_in(rng, total_steps))
        model = cvae.CategoryModel(mixed, category, networks)
        # A fixed number of points, spread evenly over the images.
        points = _fitted_images(PRIOR_POINTS, networks.pixels)
        x = to_float(images[jnp.arange(points) * count // points])
        z = cvae.encode(model, x).sample(rng=sample_rng)
        parts: dict[str, Any] = {}
        if networks.prior_components:
            parts["prior"] = mixture_prior.fit(z, networks.prior_components, images=count, rng=fit_rng)
        if networks.noise_rank:
            parts |= _fit_noise(model, images, count, rng=fit_rng)
        logits = cvae.decode(model, z)
        if with_contrast:
            parts["contrast"] = fit_contrast(logits, x)
        if networks.texture:
            squares = jnp.square(cvae.bernoulli_std(jax.nn.sigmoid(logits)))
            parts["rms_uncertainty"] = jnp.sqrt(jnp.mean(squares, axis=0))
        return parts

    arguments = (categories, data.images, data.counts, data.rngs, data.total_steps)
    return cpu.map_fits(fit, arguments, count=len(data.counts))


def _fitted_images(most: int, pixels: int) -> int:
    """Returns the number of images that parts are fitted to, at most `most`."""
    return min(most, max(FITTED_VALUES // pixels, FEWEST_FITTED))


def _fit_noise(model: cvae.CategoryModel, images: jax.Array, count: jax.Array, *, rng: jax.Array) -> dict[str, Any]:
    """Fits low-rank noise to the residuals of real images, with z at the mean of q(z|x,c).

    A vector's own scales are fitted too: training moves them slowly, and counts low-rank noise as white. Their prior is
    the trained scale, with the strength of `SCALE_STRENGTH` vectors.
    """
    rows = min(len(images), _fitted_images(NOISE_IMAGES, images.shape[1]))
    index = jnp.arange(rows)
    x = to_float(images[(index * (jnp.maximum(count, rows) / rows)).astype(jnp.int32)])
    residuals = cvae.residual(model, x, cvae.decode(model, cvae.encode(model, x).mean))
    residuals, used = jnp.where((index < count)[:, None], residuals, 0.0), jnp.minimum(count, rows)
    fit = partial(low_rank_noise.fit, images=used, count=model.networks.noise_rank, rng=rng)
    if not (model.networks.is_vector and model.networks.noise_scale == "own"):
        return {"low_rank_noise": fit(residuals)}
    variance = (jnp.sum(jnp.square(residuals), axis=0) + SCALE_STRENGTH) / (used + SCALE_STRENGTH)
    noise, white = low_rank_noise.separate_white(fit(residuals * jax.lax.rsqrt(variance)[None]))
    log_scale = model.networks.log_scale(model.mixed, model.category) + 0.5 * jnp.log(white * variance)
    return {"low_rank_noise": noise, "scale": {"log_scale": log_scale}}


@partial(jax.jit, static_argnames=("networks", "cycles", "count"))
def _shift_priors(
    teacher: Any, mixed: Any, stack: StackedCategories, rngs: jax.Array, *, networks: Networks, cycles: int, count: int
) -> mixture_prior.MixturePrior:
    """Shifts the priors of stacked categories by `count` latent points each."""

    def shift(category: Any, rng: jax.Array) -> mixture_prior.MixturePrior:
        pair_rng, noise_rng = jax.random.split(rng)
        before, after = (cvae.CategoryModel(part, category, networks) for part in (teacher, mixed))
        _, x = sample_pairs(before, count, cycles, rng=pair_rng)
        # The same noise twice, so that only the encoders differ.
        points = [cvae.encode(model, x).sample(rng=noise_rng) for model in (before, after)]
        return mixture_prior.shift(category["prior"], *points, weight=PRIOR_POINTS // count)

    return stack.map_categories(shift, rngs)
