"""Baseline in plain Flax with the networks, loss, optimizer, schedule and steps of ours.

The code is written as a user of Flax writes it: one jitted train step is called in a Python loop over NumPy batches.
This module imports JAX, Flax and Optax, and nothing of lifelong_cvae. `twin_process` runs it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

# Images per call of the jitted functions outside training.
BLOCK = 1000


class MixedNeurons(nn.Module):
    """Hidden layers of the mixed part: `[batch, inputs]` to a list of activations `[batch, width]`."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: jax.Array) -> list[jax.Array]:
        """Returns the activations of each layer."""
        activations = []
        for index, width in enumerate(self.widths):
            inputs = nn.silu(nn.Dense(width, name=f"hidden_{index}")(inputs))
            activations.append(inputs)
        return activations


class CategoryNeurons(nn.Module):
    """Hidden layers of one category, which also read the mixed activations of the layer below."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: jax.Array, mixed: list[jax.Array]) -> jax.Array:
        """Returns the last mixed and category activations side by side, `[batch, mixed width + width]`."""
        for index, (width, mixed_activations) in enumerate(zip(self.widths, mixed, strict=True)):
            activations = nn.silu(nn.Dense(width, name=f"hidden_{index}")(inputs))
            inputs = jnp.concatenate([mixed_activations, activations], axis=-1)
        return inputs


class Encoder(nn.Module):
    """Image and mixed activations to mean and log variance of q(z|x,c), each `[batch, latent]`."""

    widths: tuple[int, ...]
    latent_size: int

    @nn.compact
    def __call__(self, x: jax.Array, mixed: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Returns mean and log variance; the log variance is clipped to [-8, 8]."""
        hidden = CategoryNeurons(self.widths, name="neurons")(x, mixed)
        mean, log_var = jnp.split(nn.Dense(2 * self.latent_size, name="posterior")(hidden), 2, axis=-1)
        return mean, jnp.clip(log_var, -8, 8)


class Decoder(nn.Module):
    """Latent and mixed activations to logits `[batch, pixels]`, through a map of low rank."""

    widths: tuple[int, ...]
    output_rank: int
    pixels: int

    @nn.compact
    def __call__(self, z: jax.Array, mixed: list[jax.Array]) -> jax.Array:
        """Returns the logits of the pixels."""
        hidden = CategoryNeurons(self.widths, name="neurons")(z, mixed)
        basis = nn.Dense(self.output_rank, use_bias=False, name="basis")(hidden)
        return nn.Dense(self.pixels, kernel_init=nn.initializers.zeros, name="pixels")(basis)


class CVAE(nn.Module):
    """Network of one category, including the mixed part."""

    mixed_widths: tuple[int, ...]
    category_widths: tuple[int, ...]
    output_rank: int
    latent_size: int
    log_scale: float
    pixels: int

    def setup(self):
        """Creates the layers."""
        self.mixed_encoder = MixedNeurons(self.mixed_widths)
        self.mixed_decoder = MixedNeurons(self.mixed_widths[::-1])
        self.encoder = Encoder(self.category_widths, self.latent_size)
        self.decoder = Decoder(self.category_widths[::-1], self.output_rank, self.pixels)

    def encoder_activations(self, x: jax.Array) -> list[jax.Array]:
        """Returns the encoder's mixed activations."""
        return self.mixed_encoder(x)

    def __call__(self, x: jax.Array, noise: jax.Array, activations: list[jax.Array] | None = None) -> jax.Array:
        """Computes the ELBO in nats per image `[batch]`, with one sample z = mean + std * noise.

        Args:
            x: images in [0, 1], `[batch, pixels]`.
            noise: standard normal, `[batch, latent]`.
            activations: the encoder's mixed activations of x; default None computes them.
        """
        mean, log_var = self.encoder(x, self.mixed_encoder(x) if activations is None else activations)
        z = mean + jnp.exp(0.5 * log_var) * noise
        decoded = nn.sigmoid(self.decoder(z, self.mixed_decoder(z)))
        constant = self.log_scale + 0.5 * np.log(2 * np.pi)
        squares = jnp.square((x - decoded) * np.exp(-self.log_scale))
        log_likelihood = -jnp.sum(0.5 * squares + constant, axis=-1)
        kl = 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_var) - 1 - log_var, axis=-1)
        return log_likelihood - kl


@dataclass
class Learner:
    """Parameters of the mixed part and of each category."""

    model: CVAE
    settings: dict[str, Any]
    rng: jax.Array
    mixed: dict[str, Any] = field(default_factory=dict)  # empty until the first category has trained it
    categories: list[dict[str, Any]] = field(default_factory=list)


def build(task: dict[str, Any]) -> Learner:
    """Returns a learner without categories, with the `settings` of the task."""
    model = make_model(task["settings"], math.prod(task["image_shape"]))
    return Learner(model, task["settings"], jax.random.key(task["seed"]))


def train(learner: Learner, images: np.ndarray, steps: int) -> Iterator[jax.Array]:
    """Learns one more category from images uint8 `[n, pixels]`, and yields the loss of each step."""
    model, x = learner.model, images.astype(np.float32) / 255
    rng = jax.random.fold_in(learner.rng, len(learner.categories))
    initial_mixed, params = init_params(model, x.mean(axis=0), rng=rng)
    trained = params if learner.mixed else {**initial_mixed, **params}
    activations = encoder_activations(model, learner.mixed, x) if learner.mixed else None
    all_steps = train_steps(model, trained, learner.mixed, x, learner.settings, steps, rng=rng, activations=activations)
    for params_and_loss in all_steps:
        yield params_and_loss[1]
    trained, _ = params_and_loss
    learner.mixed = learner.mixed or {name: trained[name] for name in initial_mixed}
    learner.categories.append({name: trained[name] for name in params})


def predict(learner: Learner, images: np.ndarray) -> np.ndarray:
    """Returns the category of the highest ELBO for images uint8 `[n, pixels]`, `[n]`."""
    x, predictions = images.astype(np.float32) / 255, []
    for start in range(0, len(x), BLOCK):
        block = x[start : start + BLOCK]
        activations = _block_activations(learner.model, learner.mixed, block)
        columns = [
            evidence(learner.model, {**learner.mixed, **params}, block, activations) for params in learner.categories
        ]
        predictions.append(np.argmax(np.stack(columns), axis=0))
    return np.concatenate(predictions)


def make_model(settings: dict[str, Any], pixels: int) -> CVAE:
    """Returns the module."""
    widths = {name: tuple(settings[name]) for name in ("mixed_widths", "category_widths")}
    numbers = {name: settings[name] for name in ("output_rank", "latent_size", "log_scale")}
    return CVAE(**widths, **numbers, pixels=pixels)


@partial(jax.jit, static_argnames="model")
def init_params(model: CVAE, mean_image: jax.Array, *, rng: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """Initializes the parameters of the mixed part and of a category.

    Args:
        model: module.
        mean_image: initial output of the category's decoder in [0, 1], `[pixels]`.
        rng: key of the parameters.

    Returns:
        Mixed parameters and category parameters.
    """
    params = model.init(rng, jnp.zeros((1, model.pixels)), jnp.zeros((1, model.latent_size)))["params"]
    params["decoder"]["pixels"]["bias"] = jax.scipy.special.logit(jnp.clip(mean_image, 0.005, 0.995))
    mixed = {name: params.pop(name) for name in ("mixed_encoder", "mixed_decoder")}
    return mixed, params


def loss(model: CVAE, params: dict[str, Any], x: jax.Array, activations: Any, *, rng: jax.Array) -> jax.Array:
    """Computes the mean of -ELBO over images `[batch, pixels]`."""
    noise = jax.random.normal(rng, (len(x), model.latent_size))
    return -jnp.mean(model.apply({"params": params}, x, noise, activations))


@partial(jax.jit, static_argnames=("model", "adam_b2"), donate_argnames=("trained", "moments"))
def train_step(
    model: CVAE,
    trained: Any,
    moments: Any,
    frozen: Any,
    x: Any,
    activations: Any,
    rate: Any,
    step: Any,
    rng: Any,
    *,
    adam_b2: float,
) -> tuple[Any, Any, jax.Array]:
    """Runs one step of Adam on `trained`; the other parameters are `frozen`."""
    value, gradients = jax.value_and_grad(
        lambda trained: loss(model, {**frozen, **trained}, x, activations, rng=jax.random.fold_in(rng, step))
    )(trained)
    updates, moments = optax.scale_by_adam(b2=adam_b2).update(gradients, moments)
    trained = jax.tree.map(lambda leaf, update: leaf - rate * update, trained, updates)
    return trained, moments, value


def train_steps(
    model: CVAE,
    trained: dict[str, Any],
    frozen: dict[str, Any],
    images: np.ndarray,
    settings: dict[str, Any],
    steps: int,
    *,
    rng: jax.Array,
    activations: Sequence[np.ndarray] | None = None,
) -> Iterator[tuple[dict[str, Any], jax.Array]]:
    """Trains a category, and yields the trained parameters and the loss of each step.

    Args:
        model: module.
        trained: parameters to train; donated.
        frozen: the other parameters.
        images: `[n, pixels]` in [0, 1].
        settings: batch_size, learning_rate, full_rate_steps, adam_b2.
        steps: number of steps.
        rng: key of the noise and of the batches.
        activations: the encoder's mixed activations of all images, if the mixed part is frozen; None computes them in
            every step.
    """
    adam_b2, numbers = settings["adam_b2"], np.random.default_rng(np.asarray(jax.random.key_data(rng)))
    moments = optax.scale_by_adam(b2=adam_b2).init(trained)
    peak = settings["learning_rate"] * min(1.0, steps / settings["full_rate_steps"]) ** 0.5
    schedule = 0.5 * peak * (1 + np.cos(np.pi * np.arange(steps) / steps))
    for step, rate in enumerate(schedule.astype(np.float32)):
        index = numbers.integers(len(images), size=settings["batch_size"])
        batch_activations = None if activations is None else [layer[index] for layer in activations]
        x = images[index]
        arguments = (frozen, x, batch_activations, rate, step, rng)
        trained, moments, value = train_step(model, trained, moments, *arguments, adam_b2=adam_b2)
        yield trained, value


def encoder_activations(model: CVAE, mixed: Any, images: np.ndarray) -> list[np.ndarray]:
    """Computes the encoder's mixed activations of images `[n, pixels]`.

    Blocks are padded to one size, so that one program is compiled.
    """
    padded = np.pad(images, [(0, -len(images) % BLOCK), (0, 0)])
    blocks = [_block_activations(model, mixed, x) for x in padded.reshape(-1, BLOCK, images.shape[1])]
    return [np.concatenate(layer)[: len(images)] for layer in zip(*blocks, strict=True)]


@partial(jax.jit, static_argnames="model")
def _block_activations(model: CVAE, mixed: Any, images: Any) -> list[jax.Array]:
    return model.apply({"params": mixed}, images, method="encoder_activations")


@partial(jax.jit, static_argnames="model")
def evidence(model: CVAE, params: Any, x: Any, activations: Any) -> jax.Array:
    """Computes the ELBO at the posterior mean in nats per image, `[n]`."""
    return model.apply({"params": params}, x, jnp.zeros((len(x), model.latent_size)), activations)
