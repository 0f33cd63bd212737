"""Recognition: log p(c|x) = log p(x|c) + log p(c) + constant, with a bound in place of log p(x|c)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae import cvae, growth
from lifelong_cvae.config import RecognitionConfig
from lifelong_cvae.errors import InputError
from lifelong_cvae.growth import LifelongState, Stack
from lifelong_cvae.images import as_rows, pad_rows, power_of_two, to_unit
from lifelong_cvae.networks import Networks

MINIMUM_BLOCK = 64


def evidence(state: LifelongState, images: Any, *, rng: jax.Array | None = None) -> jax.Array:
    """The bound on log p(x|c) that `state.config.recognition` names, for every category.

    Also works inside a `jit` of the caller. Matrix products run in full float32 on every device.

    Args:
        state: what has been learned.
        images: uint8 or float in [0, 1], `[n, h, w, c]`, or `[n, h, w]` for one channel.
        rng: source of the samples, for the bounds that draw some.

    Returns:
        float32 `[n, categories]` in nats per image, categories in the order of `state.names`.

    Raises:
        InputError: nothing has been learned yet, bad images, or no `rng` where one is needed.
    """
    settings = state.config.recognition
    if settings.bound != "mean" and rng is None:
        raise InputError(f"the bound {settings.bound!r} draws samples: an rng is expected")
    rows = as_rows(images, state.image_shape)
    stack = growth.stack(state, state.names)
    size = min(settings.block_images, power_of_two(len(rows), MINIMUM_BLOCK))
    blocks = []
    for start in range(0, len(rows), size):
        block = jnp.asarray(pad_rows(rows[start : start + size], size))
        block_rng = None if rng is None else jax.random.fold_in(rng, start)
        values = _block(
            state.params["mixed"], stack, block, block_rng, networks=state.networks, settings=settings
        )
        blocks.append(values[: len(rows) - start, : len(state.names)])
    return jnp.concatenate(blocks) if blocks else jnp.zeros((0, len(state.names)))


@partial(jax.jit, static_argnames=("networks", "settings"))
def _block(
    mixed: Any,
    stack: Stack,
    rows: jax.Array,
    rng: jax.Array | None,
    *,
    networks: Networks,
    settings: RecognitionConfig,
) -> jax.Array:
    """Bounds of a block of rows: `[rows, capacity]`. The samples' noise is common to all categories."""
    with jax.default_matmul_precision("float32"):
        x = to_unit(rows)
        shared = cvae.shared_neurons(cvae.Path(mixed, {}, networks), "encoder", x)

        def one(category: Any) -> jax.Array:
            path = cvae.Path(mixed, category, networks)
            posterior = cvae.encode(path, x, shared)
            if settings.bound == "mean":
                return cvae.elbo_at(path, x, posterior, posterior.mean)
            bound = cvae.elbo if settings.bound == "sampled" else cvae.importance_bound
            return bound(path, x, posterior, rng=rng, samples=settings.samples)

        return stack.map(one).T


def log_posteriors(log_evidence: jax.Array, log_prior: jax.Array | None = None) -> jax.Array:
    """`log p(c|x)` in nats from log p(x|c), both `[n, categories]`, and log p(c) `[categories]` (uniform)."""
    if log_prior is not None:
        log_evidence = log_evidence + log_prior[None]
    return jax.nn.log_softmax(log_evidence, axis=-1)


def recognise(
    state: LifelongState,
    images: Any,
    *,
    rng: jax.Array | None = None,
    category_priors: Mapping[str, float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Names the category of each image.

    Args:
        state: what has been learned.
        images: as for `evidence`.
        rng: source of the samples, for the bounds that draw some.
        category_priors: p(c) of every category, any positive scale; uniform unless given.

    Returns:
        Names `[n]` (numpy, text) and p(c|x) `[n, categories]` in the order of `state.names`.

    Raises:
        InputError: as for `evidence`, or priors that are not one positive number per category.
    """
    log_prior = None
    if category_priors is not None:
        if set(category_priors) != set(state.names) or not all(p > 0 for p in category_priors.values()):
            raise InputError(
                f"category priors: a positive number for each of {', '.join(state.names)} is expected"
            )
        log_prior = jnp.log(jnp.asarray([category_priors[name] for name in state.names]))
    probabilities = np.exp(np.asarray(log_posteriors(evidence(state, images, rng=rng), log_prior)))
    return np.asarray(state.names)[probabilities.argmax(axis=1)], probabilities
