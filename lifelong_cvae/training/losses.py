"""Losses: the ELBO of real images, and four terms on replayed pairs (z*, x*).

Every term is a mean over a batch, in nats per image (`generate`: squared error per image):

    real        -ELBO_c(x)                                   a real image of the task
    pixels      -log p(x|z,c) by the pixel models            the same image; trains the pixel models alone
    playback    -ELBO_c(x*)                                  a replayed image
    generate    ||decode(z*) - x*||^2                        decoder distillation on replayed pairs
    recognize   KL(q_teacher(z|x*,c) || q(z|x*,c))           encoder distillation on replayed images
    circulate   -log q(z*|decode(z*), c)                     the latent is recovered after one turn of the circle

Categories outside the task are frozen, so the last four terms train the mixed part.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lifelong_cvae import sharding
from lifelong_cvae.config import LearningConfig
from lifelong_cvae.images import to_float
from lifelong_cvae.model import cpu, cvae, elbo, mixture_prior, pixel_pyramid
from lifelong_cvae.model.networks import Networks
from lifelong_cvae.stacked import StackedCategories
from lifelong_cvae.training.replay import ReplayMemory

# Key of the task's stacked subtrees in the optimized parameter dict.
TASK = "task"

Terms = dict[str, jax.Array]


class TaskData(NamedTuple):
    """Training data of a task. All fields are traced, so that tasks of unequal size share one program.

    Of a task that is too large for the device there are the images of a few steps (`first_step`).
    """

    images: jax.Array  # [categories, rows, pixels], uint8 or float32, padded rows
    counts: jax.Array  # [categories], number of images
    rngs: jax.Array  # [categories]
    total_steps: jax.Array  # [categories], length of the schedule
    mixed_activations: Any = None  # [categories, rows, ...] of every row; None if the mixed part is trained
    first_step: jax.Array | None = None  # scalar: rows are those of the steps from this one on, batch by batch


class ReplayData(NamedTuple):
    """Replayed pairs, which are not differentiated."""

    stack: StackedCategories  # categories that the pairs belong to
    memory: ReplayMemory
    rng: jax.Array
    earlier: jax.Array  # scalar, number of all earlier categories


class StepNoise(NamedTuple):
    """Random numbers of a step on real images."""

    index: jax.Array  # [categories, batch], rows of the images
    noise: jax.Array  # [categories, batch, latent], standard normal
    positions: Any = None  # [categories, batch, pixel_positions] by level, pixels; None without pixel models
    disturbance_rng: jax.Array | None = None  # [categories], key of `pixel_pyramid.log_prob`


class ReplayNoise(NamedTuple):
    """Random numbers of a step on replayed pairs."""

    groups: jax.Array  # [groups], indices into the memory
    noise: jax.Array  # [groups, images, latent], standard normal


def sample_step_noise(data: TaskData, step: jax.Array, *, networks: Networks, learning: LearningConfig) -> StepNoise:
    """Samples image indices and latent noise of one step, with keys that depend on the step alone."""

    def sample(count: jax.Array, rng: jax.Array) -> StepNoise:
        noise_rng = jax.random.split(jax.random.fold_in(rng, step))[1]
        if data.first_step is None:
            index = draw_images(count, rng, step, learning.batch_size)
        else:
            index = (step - data.first_step) * learning.batch_size + jnp.arange(learning.batch_size)
        noise = StepNoise(index, jax.random.normal(noise_rng, (learning.batch_size, networks.latent_size)))
        if networks.pixel_pyramid is None:
            return noise
        position_rng, disturbance_rng = jax.random.split(jax.random.fold_in(noise_rng, 1))
        shape = (learning.batch_size, learning.pixel_positions)
        positions = networks.pixel_pyramid.sample_positions(shape, rng=position_rng)
        return noise._replace(positions=positions, disturbance_rng=disturbance_rng)

    return jax.vmap(sample)(data.counts, data.rngs)


def draw_images(count: jax.Array, rng: jax.Array, step: jax.Array, batch_size: int) -> jax.Array:
    """Draws the images of one category and step, with replacement: indices `[batch]`."""
    return jax.random.randint(jax.random.split(jax.random.fold_in(rng, step))[0], (batch_size,), 0, count)


def sample_replay_noise(replay: ReplayData, step: jax.Array, *, groups: int) -> ReplayNoise:
    """Samples replay group indices and latent noise of one step."""
    group_rng, noise_rng = jax.random.split(jax.random.fold_in(replay.rng, step))
    available, images, latent_size = replay.memory.z.shape
    indices = jax.random.choice(group_rng, available, (groups,), replace=False)
    keys = jax.random.split(noise_rng, groups)
    return ReplayNoise(indices, jax.vmap(lambda key: jax.random.normal(key, (images, latent_size)))(keys))


def real_terms(model: cvae.CategoryModel, x: jax.Array, noise: StepNoise, activations: Any = None) -> Terms:
    """Computes the losses of one category on real images.

    Args:
        model: model of the category.
        x: images in [0, 1], `[batch, pixels]`.
        noise: random numbers of the category.
        activations: as in `cvae.encode`.
    """
    posterior = cvae.encode(model, x, activations)
    z = posterior.reparameterize(noise.noise)
    logits = cvae.decode(model, z)
    terms = {"real": -jnp.mean(elbo.elbo_of_logits(model, x, posterior, logits))}
    if noise.positions is not None:
        mean, z = jax.lax.stop_gradient((model.networks.mean(logits), z))
        pyramid, rng = model.networks.pixel_pyramid, noise.disturbance_rng
        log_prob = pixel_pyramid.log_prob(pyramid, model.pixels, x, mean, z, noise.positions, disturbance_rng=rng)
        terms["pixels"] = -jnp.mean(log_prob)
    return terms


def replay_terms(model: cvae.CategoryModel, memory: ReplayMemory, noise: jax.Array, names: tuple[str, ...]) -> Terms:
    """Computes the terms called `names` of one category on one group of replayed pairs.

    Args:
        model: model of the category.
        memory: one group: z `[images, latent]`, x `[images, pixels]`, and the teacher's posterior.
        noise: standard normal, `[images, latent]`.
        names: names of the terms.
    """
    terms: Terms = {}
    if "playback" in names or "recognize" in names:
        posterior = cvae.encode(model, memory.x)
    if "generate" in names or "circulate" in names:
        decoded = cvae.decode_mean(model, memory.z)
    if "playback" in names:
        terms["playback"] = -jnp.mean(elbo.elbo_at(model, memory.x, posterior, posterior.reparameterize(noise)))
    if "generate" in names:
        terms["generate"] = jnp.mean(jnp.sum(jnp.square(decoded - memory.x), axis=-1))
    if "recognize" in names:
        terms["recognize"] = jnp.mean(mixture_prior.kl_between(*memory.teacher, *posterior))
    if "circulate" in names:
        terms["circulate"] = -jnp.mean(cvae.encode(model, decoded).log_prob(memory.z))
    return terms


def real_loss(
    params: dict[str, Any], data: TaskData, noise: StepNoise, *, networks: Networks, mesh: Mesh | None = None
) -> tuple[jax.Array, Terms]:
    """Computes the summed loss on real images, by which each category learns as if alone, and its terms.

    Args:
        params: `{"mixed": ..., "categories": {TASK: subtrees [categories, ...]}}`.
        data: the task.
        noise: random numbers of the step.
        networks: modules.
        mesh: devices that share a batch.

    Returns:
        The loss, and each term `[categories]`.
    """

    def category_terms(category: Any, images: jax.Array, activations: Any, noise: StepNoise) -> Terms:
        noise = sharding.constrain(noise, mesh, sharding.DATA_AXIS)
        model = cvae.CategoryModel(params["mixed"], category, networks)
        activations = jax.tree.map(lambda leaf: leaf[noise.index], activations)
        return real_terms(model, to_float(images[noise.index]), noise, activations)

    arguments = (params["categories"][TASK], data.images, data.mixed_activations, noise)
    terms = cpu.vmap(category_terms, *arguments, count=data.counts.shape[0])
    return sum(jnp.sum(term) for term in terms.values()), terms


def replay_loss(
    mixed: Any,
    replay: ReplayData,
    noise: ReplayNoise,
    *,
    networks: Networks,
    weights: dict[str, float],
    mesh: Mesh | None = None,
) -> tuple[jax.Array, Terms]:
    """Computes the loss on replayed pairs, estimated for all earlier categories, and mean terms.

    Args:
        mixed: mixed parameters.
        replay: categories and memory.
        noise: random numbers of the step.
        networks: modules.
        weights: weight of each term.
        mesh: devices that share a group.
    """
    memory = jax.tree.map(lambda leaf: leaf[noise.groups], replay.memory)
    categories = jax.tree.map(lambda leaf: leaf[memory.category], replay.stack.categories)

    def group_terms(category: Any, group: ReplayMemory, noise: jax.Array) -> Terms:
        group, noise = sharding.constrain((group, noise), mesh, sharding.DATA_AXIS)
        return replay_terms(cvae.CategoryModel(mixed, category, networks), group, noise, tuple(weights))

    terms = cpu.vmap(group_terms, categories, memory, noise.noise, count=len(noise.groups))
    terms = {name: jnp.mean(term) for name, term in terms.items()}
    return replay.earlier * sum(weight * terms[name] for name, weight in weights.items()), terms
