"""The prior p(z|c): a mixture of Gaussians with diagonal covariances, one per category.

A prior is a dict of `logits` [components], `means` and `log_vars` [components, latent].
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

Prior = dict[str, jax.Array]


def standard_normal(latent_size: int) -> Prior:
    """N(0, I), as a mixture of one component: what every category starts with."""
    return {
        "logits": jnp.zeros((1,)),
        "means": jnp.zeros((1, latent_size)),
        "log_vars": jnp.zeros((1, latent_size)),
    }


def gaussian_log_prob(z: jax.Array, mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """Log N(z; mean, diag(exp(log_var))) in nats, summed over the last axis; leading axes broadcast."""
    per_dimension = jnp.square(z - mean) * jnp.exp(-log_var) + log_var + math.log(2 * math.pi)
    return -0.5 * jnp.sum(per_dimension, axis=-1)


def log_prob(prior: Prior, z: jax.Array) -> jax.Array:
    """Log p(z|c) in nats, for z `[batch, latent]`: `[batch]`."""
    per_component = gaussian_log_prob(z[:, None], prior["means"][None], prior["log_vars"][None])
    return jax.nn.logsumexp(per_component + jax.nn.log_softmax(prior["logits"])[None], axis=-1)


def sample(prior: Prior, count: int, *, rng: jax.Array) -> jax.Array:
    """Z ~ p(z|c): `[count, latent]`."""
    component_rng, noise_rng = jax.random.split(rng)
    component = jax.random.categorical(component_rng, prior["logits"], shape=(count,))
    noise = jax.random.normal(noise_rng, (count, prior["means"].shape[1]))
    return prior["means"][component] + jnp.exp(0.5 * prior["log_vars"][component]) * noise


def kl_to_prior(mean: jax.Array, log_var: jax.Array, prior: Prior) -> jax.Array:
    """KL(N(mean, exp(log_var)) || p(z|c)) in nats, `[batch, latent]` to `[batch]`.

    Exact for a prior of one component (Kingma and Welling 2013, appendix B, for N(0, I));
    a mixture has no closed form.

    Raises:
        ValueError: the prior has several components.
    """
    if prior["means"].shape[0] != 1:
        raise ValueError(f"one component is expected, got {prior['means'].shape[0]}")
    log_ratio = log_var - prior["log_vars"]
    scaled_distance = jnp.square(mean - prior["means"]) * jnp.exp(-prior["log_vars"])
    return 0.5 * jnp.sum(jnp.exp(log_ratio) + scaled_distance - 1 - log_ratio, axis=-1)
