"""The twin in plain Flax: the same networks, loss, optimizer, schedule and steps, as a user writes them.

One jitted train step, called from a loop in Python over batches of NumPy. It stands alone, so that a process
of its own imports JAX, Flax and Optax and nothing of ours; `twins` starts it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

BLOCK = 1000
ADAM = optax.scale_by_adam()


class MixedNeurons(nn.Module):
    """Hidden layers shared by all categories: `[batch, inputs]` to a list of `[batch, width]`."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: jax.Array) -> list[jax.Array]:
        """The neurons of each layer."""
        neurons = []
        for index, width in enumerate(self.widths):
            inputs = nn.silu(nn.Dense(width, name=f"hidden_{index}")(inputs))
            neurons.append(inputs)
        return neurons


class CategoryNeurons(nn.Module):
    """Hidden layers of one category beside the mixed ones: the last of both, side by side."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: jax.Array, mixed: list[jax.Array]) -> jax.Array:
        """`[batch, inputs]` and the mixed neurons of each layer to `[batch, width of both]`."""
        for index, (width, beside) in enumerate(zip(self.widths, mixed, strict=True)):
            own = nn.silu(nn.Dense(width, name=f"hidden_{index}")(inputs))
            inputs = jnp.concatenate([beside, own], axis=-1)
        return inputs


class Encoder(nn.Module):
    """Image and mixed neurons to mean and log variance of q(z|x,c), each `[batch, latent]`."""

    widths: tuple[int, ...]
    latent_size: int

    @nn.compact
    def __call__(self, x: jax.Array, mixed: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Mean and log variance, the latter within bounds."""
        hidden = CategoryNeurons(self.widths, name="neurons")(x, mixed)
        mean, log_var = jnp.split(nn.Dense(2 * self.latent_size, name="posterior")(hidden), 2, axis=-1)
        return mean, jnp.clip(log_var, -8, 8)


class Decoder(nn.Module):
    """Latent and mixed neurons to logits `[batch, pixels]`, through a map of low rank."""

    widths: tuple[int, ...]
    rank: int
    pixels: int

    @nn.compact
    def __call__(self, z: jax.Array, mixed: list[jax.Array]) -> jax.Array:
        """Logits of the pixels."""
        hidden = CategoryNeurons(self.widths, name="neurons")(z, mixed)
        basis = nn.Dense(self.rank, use_bias=False, name="basis")(hidden)
        return nn.Dense(self.pixels, kernel_init=nn.initializers.zeros, name="pixels")(basis)


class CVAE(nn.Module):
    """One category's network, with the mixed part in it."""

    mixed_widths: tuple[int, ...]
    category_widths: tuple[int, ...]
    rank: int
    latent_size: int
    log_scale: float
    pixels: int

    def setup(self):
        """The layers."""
        self.mixed_encoder = MixedNeurons(self.mixed_widths)
        self.mixed_decoder = MixedNeurons(self.mixed_widths[::-1])
        self.encoder = Encoder(self.category_widths, self.latent_size)
        self.decoder = Decoder(self.category_widths[::-1], self.rank, self.pixels)

    def neurons_of(self, x: jax.Array) -> list[jax.Array]:
        """The encoder's mixed neurons."""
        return self.mixed_encoder(x)

    def __call__(self, x: jax.Array, noise: jax.Array, neurons: list[jax.Array] | None = None) -> jax.Array:
        """ELBO in nats per image `[batch]`, with one sample z = mean + deviation * noise.

        `neurons` are the encoder's mixed ones, where they are known.
        """
        mean, log_var = self.encoder(x, self.mixed_encoder(x) if neurons is None else neurons)
        z = mean + jnp.exp(0.5 * log_var) * noise
        drawn = nn.sigmoid(self.decoder(z, self.mixed_decoder(z)))
        constant = self.log_scale + 0.5 * np.log(2 * np.pi)
        squares = jnp.square((x - drawn) * np.exp(-self.log_scale))
        log_likelihood = -jnp.sum(0.5 * squares + constant, axis=-1)
        kl = 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_var) - 1 - log_var, axis=-1)
        return log_likelihood - kl


def build(settings: dict[str, Any], pixels: int) -> CVAE:
    """The module."""
    widths = {name: tuple(settings[name]) for name in ("mixed_widths", "category_widths")}
    numbers = {name: settings[name] for name in ("output_rank", "latent_size", "log_scale")}
    return CVAE(**widths, **numbers, pixels=pixels)


@partial(jax.jit, static_argnames="model")
def init(model: CVAE, mean_image: jax.Array, *, rng: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fresh parameters, the mixed ones and a category's, whose decoder draws `mean_image` `[pixels]`."""
    params = model.init(rng, jnp.zeros((1, model.pixels)), jnp.zeros((1, model.latent_size)))["params"]
    params["decoder"]["pixels"]["bias"] = jax.scipy.special.logit(jnp.clip(mean_image, 0.005, 0.995))
    mixed = {name: params.pop(name) for name in ("mixed_encoder", "mixed_decoder")}
    return mixed, params


def loss(model: CVAE, params: dict[str, Any], x: jax.Array, neurons: Any, *, rng: jax.Array) -> jax.Array:
    """Minus the ELBO, mean over images `[batch, pixels]`."""
    noise = jax.random.normal(rng, (len(x), model.latent_size))
    return -jnp.mean(model.apply({"params": params}, x, noise, neurons))


@partial(jax.jit, static_argnames="model", donate_argnames=("learned", "moments"))
def train_step(
    model: CVAE, learned: Any, moments: Any, frozen: Any, x: Any, neurons: Any, rate: Any, step: Any, rng: Any
) -> tuple[Any, Any, jax.Array]:
    """One step of Adam on `learned`; the rest of the parameters is `frozen`."""
    value, gradients = jax.value_and_grad(
        lambda learned: loss(model, {**frozen, **learned}, x, neurons, rng=jax.random.fold_in(rng, step))
    )(learned)
    updates, moments = ADAM.update(gradients, moments)
    learned = jax.tree.map(lambda leaf, update: leaf - rate * update, learned, updates)
    return learned, moments, value


def train(
    model: CVAE,
    params: dict[str, Any],
    frozen: dict[str, Any],
    images: np.ndarray,
    settings: dict[str, Any],
    steps: int,
    *,
    rng: jax.Array,
    known: Sequence[np.ndarray] | None = None,
) -> Iterator[tuple[dict[str, Any], jax.Array]]:
    """Trains a category, and gives what has been learned and the loss, for every step.

    Args:
        model: the module.
        params: what learns; donated.
        frozen: the rest of the parameters.
        images: `[n, pixels]` in [0, 1].
        settings: batch_size, learning_rate.
        steps: to train.
        rng: of the noise and the order of images.
        known: the encoder's mixed neurons of all images, where they stay as they are.
    """
    moments, numbers = ADAM.init(params), np.random.default_rng(np.asarray(jax.random.key_data(rng)))
    schedule = 0.5 * settings["learning_rate"] * (1 + np.cos(np.pi * np.arange(steps) / steps))
    for step, rate in enumerate(schedule.astype(np.float32)):
        index = numbers.integers(len(images), size=settings["batch_size"])
        neurons = None if known is None else [layer[index] for layer in known]
        x = images[index]
        params, moments, value = train_step(model, params, moments, frozen, x, neurons, rate, step, rng)
        yield params, value


@partial(jax.jit, static_argnames="model")
def neurons_of(model: CVAE, mixed: Any, images: Any) -> list[jax.Array]:
    """The encoder's mixed neurons of images, once for all steps."""
    return model.apply({"params": mixed}, images, method="neurons_of")


@partial(jax.jit, static_argnames="model")
def evidence(model: CVAE, params: Any, x: Any, neurons: Any) -> jax.Array:
    """The ELBO at the posterior's mean in nats per image, `[n]`."""
    return model.apply({"params": params}, x, jnp.zeros((len(x), model.latent_size)), neurons)


def known_neurons(model: CVAE, mixed: Any, images: np.ndarray) -> list[np.ndarray]:
    """`neurons_of` in blocks of one size, so that it is compiled once."""
    padded = np.pad(images, [(0, -len(images) % BLOCK), (0, 0)])
    blocks = [neurons_of(model, mixed, x) for x in padded.reshape(-1, BLOCK, images.shape[1])]
    return [np.concatenate(layer)[: len(images)] for layer in zip(*blocks, strict=True)]


def recognized(model: CVAE, mixed: Any, categories: Sequence[Any], images: np.ndarray) -> np.ndarray:
    """The category of each image, `[n]`."""
    answers = []
    for start in range(0, len(images), BLOCK):
        x = images[start : start + BLOCK]
        neurons = neurons_of(model, mixed, x)
        columns = [evidence(model, {**mixed, **params}, x, neurons) for params in categories]
        answers.append(np.argmax(np.stack(columns), axis=0))
    return np.concatenate(answers)


def main(task: dict[str, Any]) -> dict[str, float]:
    """Learns all categories of a task that `twins` wrote, one by one, and recognizes its test images."""
    begun = time.perf_counter()
    settings, rng = task["settings"], jax.random.key(task["seed"])
    arrays = np.load(task["file"])
    images, test = (arrays[name].astype(np.float32) / 255 for name in ("train", "test"))
    model, categories, first_steps = build(settings, images.shape[1]), [], 0.0
    mixed: dict[str, Any] = {}
    for category, steps in enumerate(task["steps"]):
        start, own = time.perf_counter(), images[arrays["train_labels"] == category]
        category_rng = jax.random.fold_in(rng, category)
        fresh_mixed, params = init(model, own.mean(axis=0), rng=category_rng)
        learned = params if mixed else {**fresh_mixed, **params}
        known = known_neurons(model, mixed, own) if mixed else None
        steps_of = train(model, learned, mixed, own, settings, steps, rng=category_rng, known=known)
        trained = jax.block_until_ready(next(steps_of))
        if category < 2:
            first_steps += time.perf_counter() - start
        for step in steps_of:
            trained = step
        learned, last = trained
        if not np.isfinite(float(last)):
            raise FloatingPointError(f"the loss of category {category} is not finite")
        mixed = mixed or {name: learned[name] for name in fresh_mixed}
        categories.append({name: learned[name] for name in params})
    finished = time.perf_counter()
    answers = recognized(model, mixed, categories, test)
    return {
        "first steps": first_steps,
        "learning": finished - begun - first_steps,
        "recognizing": time.perf_counter() - finished,
        "accuracy": float((answers == arrays["test_labels"]).mean()),
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    imports = time.time() - given["started"]
    print(json.dumps({"imports": imports, **main(given)}))
