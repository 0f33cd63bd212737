"""The loss: what real images teach, and what remembered pairs (z*, x*) teach beside them.

Every term is a mean over a batch, in nats per image (`generate`: squared error per image):

    real        -ELBO_c(x)                                   a real image of the task
    playback    -ELBO_c(x*)                                  a remembered image
    generate    ||decode(z*) - x*||^2                        draw again what was drawn
    recognize   KL(q_teacher(z|x*,c) || q(z|x*,c))           see in it what was seen
    circulate   -log q(z*|decode(z*), c)                     the latent must come back after a turn

Categories outside the task are frozen, so what the last four teach is the mixed part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lifelong_cvae import sharding
from lifelong_cvae.images import to_float
from lifelong_cvae.model import cvae, mixture_prior
from lifelong_cvae.model.networks import Networks
from lifelong_cvae.stacked import StackedCategories
from lifelong_cvae.training.replay import ReplayMemory

TASK = "task"

Terms = dict[str, jax.Array]


class TaskData(NamedTuple):
    """What a task is learned from; all of it traced, so that unequal tasks compile nothing anew."""

    images: jax.Array  # [categories, rows, pixels], uint8 or float32, padded rows
    counts: jax.Array  # [categories], rows that are images
    rngs: jax.Array  # [categories]
    total_steps: jax.Array  # scalar, length of the schedule
    shared: Any = None  # [categories, rows, ...], mixed neurons of every image, where these do not learn


class ReplayData(NamedTuple):
    """What is played back during a task; neither differentiated nor donated."""

    stack: StackedCategories  # the earlier categories that are remembered
    memory: ReplayMemory
    rng: jax.Array
    earlier: jax.Array  # scalar, number of all earlier categories


class StepNoise(NamedTuple):
    """What is random in a step. Drawn for a whole chunk at once: for so few numbers calls cost most."""

    index: jax.Array  # [categories, batch], rows of the images
    noise: jax.Array  # [categories, batch, latent], standard normal


class ReplayNoise(NamedTuple):
    """What is random in a step's playback."""

    groups: jax.Array  # [groups], of the memory
    noise: jax.Array  # [groups, images, latent], standard normal


def sample_step_noise(data: TaskData, step: jax.Array, *, batch_size: int, latent_size: int) -> StepNoise:
    """What is random in a step on real images."""

    def one(count: jax.Array, rng: jax.Array) -> StepNoise:
        index_rng, noise_rng = jax.random.split(jax.random.fold_in(rng, step))
        index = jax.random.randint(index_rng, (batch_size,), 0, count)
        return StepNoise(index, jax.random.normal(noise_rng, (batch_size, latent_size)))

    return jax.vmap(one)(data.counts, data.rngs)


def sample_replay_noise(past: ReplayData, step: jax.Array, *, groups: int) -> ReplayNoise:
    """What is random in a step's playback of so many groups."""
    group_rng, noise_rng = jax.random.split(jax.random.fold_in(past.rng, step))
    available, images, latent_size = past.memory.z.shape
    chosen = jax.random.choice(group_rng, available, (groups,), replace=False)
    keys = jax.random.split(noise_rng, groups)
    return ReplayNoise(chosen, jax.vmap(lambda key: jax.random.normal(key, (images, latent_size)))(keys))


def real_terms(model: cvae.CategoryModel, x: jax.Array, noise: jax.Array, shared: Any = None) -> Terms:
    """Loss of one category on real images `[batch, pixels]`; `shared` as for `cvae.encode`."""
    posterior = cvae.encode(model, x, shared)
    return {"real": -jnp.mean(cvae.elbo_at(model, x, posterior, posterior.reparameterize(noise)))}


def replay_terms(model: cvae.CategoryModel, memory: ReplayMemory, noise: jax.Array, names: tuple[str, ...]) -> Terms:
    """The terms called `names` of one category, on one group of remembered pairs."""
    terms: Terms = {}
    if "playback" in names or "recognize" in names:
        posterior = cvae.encode(model, memory.x)
    if "generate" in names or "circulate" in names:
        drawn = cvae.decode_mean(model, memory.z)
    if "playback" in names:
        terms["playback"] = -jnp.mean(cvae.elbo_at(model, memory.x, posterior, posterior.reparameterize(noise)))
    if "generate" in names:
        terms["generate"] = jnp.mean(jnp.sum(jnp.square(drawn - memory.x), axis=-1))
    if "recognize" in names:
        terms["recognize"] = jnp.mean(mixture_prior.kl_between(*memory.teacher, *posterior))
    if "circulate" in names:
        terms["circulate"] = -jnp.mean(cvae.encode(model, drawn).log_prob(memory.z))
    return terms


def real_loss(
    params: dict[str, Any], data: TaskData, drawn: StepNoise, *, networks: Networks, mesh: Mesh | None = None
) -> tuple[jax.Array, Terms]:
    """Loss on real images, summed over the task's categories so that each learns as if alone.

    Args:
        params: `{"mixed": ..., "categories": {TASK: subtrees [categories, ...]}}`.
        data: the task.
        drawn: what is random in the step.
        networks: the modules.
        mesh: devices that share a batch.

    Returns:
        The sum, and the terms as means over the categories.
    """

    def one(category: Any, images: jax.Array, shared: Any, drawn: StepNoise) -> Terms:
        drawn = sharding.constrain(drawn, mesh, sharding.DATA_AXIS)
        model = cvae.CategoryModel(params["mixed"], category, networks)
        neurons = jax.tree.map(lambda leaf: leaf[drawn.index], shared)
        return real_terms(model, to_float(images[drawn.index]), drawn.noise, neurons)

    arguments = (params["categories"][TASK], data.images, data.shared, drawn)
    terms = _over_categories(one, arguments, count=data.counts.shape[0])
    return sum(jnp.sum(term) for term in terms.values()), _means(terms)


def replay_loss(
    mixed: Any,
    past: ReplayData,
    drawn: ReplayNoise,
    *,
    networks: Networks,
    weights: dict[str, float],
    mesh: Mesh | None = None,
) -> tuple[jax.Array, Terms]:
    """Loss on remembered pairs: an estimate of the sum over all earlier categories.

    Args:
        mixed: the mixed parameters.
        past: categories, memory.
        drawn: what is random in the step.
        networks: the modules.
        weights: term to weight.
        mesh: devices that share a group.

    Returns:
        The weighted sum, and the terms, unweighted, as means over the groups.
    """
    memory = jax.tree.map(lambda leaf: leaf[drawn.groups], past.memory)
    categories = jax.tree.map(lambda leaf: leaf[memory.category], past.stack.categories)

    def one(category: Any, group: ReplayMemory, noise: jax.Array) -> Terms:
        group, noise = sharding.constrain((group, noise), mesh, sharding.DATA_AXIS)
        return replay_terms(cvae.CategoryModel(mixed, category, networks), group, noise, tuple(weights))

    terms = _means(_over_categories(one, (categories, memory, drawn.noise), count=len(drawn.groups)))
    return past.earlier * sum(weight * terms[name] for name, weight in weights.items()), terms


def _means(terms: Terms) -> Terms:
    return {name: jnp.mean(term) for name, term in terms.items()}


def _over_categories(function: Callable[..., Any], arguments: tuple[Any, ...], *, count: int) -> Any:
    """`vmap` over the leading axis; but a vmap over one makes a step a third slower on a CPU (measured)."""
    if count > 1:
        return jax.vmap(function)(*arguments)
    return jax.tree.map(lambda leaf: leaf[None], function(*jax.tree.map(lambda leaf: leaf[0], arguments)))
