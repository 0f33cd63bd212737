"""The conditional VAE: encode, decode, bounds on log p(x|c), the circle.

Everything here follows one model: the mixed part and the parameters of one category. Other
categories are out of reach, so no function can depend on them. Sources: Kingma and Welling 2013
(arXiv 1312.6114) for the ELBO, Sohn, Lee and Yan 2015 for its conditional form,
Burda, Grosse and Salakhutdinov 2015 (arXiv 1509.00519) for the importance-weighted bound.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from lifelong_cvae.config import RecognitionConfig
from lifelong_cvae.model import low_rank_noise, mixture_prior
from lifelong_cvae.model.networks import Networks

# Deviation of a pixel that the decoder is sure of.
STD_FLOOR = 0.02


class CategoryModel(flax.struct.PyTreeNode):
    """All that category c reads.

    Attributes:
        mixed: the mixed parameters, `{}` where there is no mixed part.
        category: the subtree of the category: encoder, decoder, scale, prior, factors, contrast, ...
        networks: the modules (static).
    """

    mixed: Any
    category: Any
    networks: Networks = flax.struct.field(pytree_node=False)

    def part(self, part: str, otherwise: Any) -> Any:
        """A part of the category's subtree, or `otherwise` where it owns none or it was left out."""
        value = self.category.get(part, {})
        return otherwise if isinstance(value, dict) and not value else value

    @property
    def prior(self) -> mixture_prior.MixturePrior:
        """p(z|c): the category's own mixture, or N(0, I) where categories own none."""
        return self.category["prior"] or mixture_prior.standard_normal(self.networks.latent_size)

    @property
    def low_rank_noise(self) -> low_rank_noise.LowRankNoise:
        """The category's own factors; empty where it has none, and while its networks are trained."""
        return self.part("low_rank_noise", {})

    @property
    def contrast(self) -> jax.Array | float:
        """The category's own factor on the logits of what is drawn, or 1 where categories own none."""
        return self.part("contrast", 1.0)

    @property
    def rms_uncertainty(self) -> jax.Array | None:
        """Root mean square of `uncertainty` over the category's images, `[pixels]`; None: no texture."""
        return self.part("rms_uncertainty", None)


class Posterior(NamedTuple):
    """q(z|x,c) = N(mean, diag(exp(log_var)))."""

    mean: jax.Array  # [batch, latent]
    log_var: jax.Array  # [batch, latent]

    def sample(self, *, rng: jax.Array) -> jax.Array:
        """Z ~ q(z|x,c): `[batch, latent]`."""
        return self.reparameterize(jax.random.normal(rng, self.mean.shape))

    def reparameterize(self, noise: jax.Array) -> jax.Array:
        """Z that standard normal noise stands for: `[batch, latent]` both."""
        return self.mean + jnp.exp(0.5 * self.log_var) * noise

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Log q(z|x,c) in nats: `[batch]`."""
        return mixture_prior.gaussian_log_prob(z, self.mean, self.log_var)


def mixed_activations(model: CategoryModel, half: str, inputs: jax.Array) -> Any:
    """What `encoder` or `decoder` computes from its inputs `[batch, size]` whatever the category is."""
    return model.networks.mixed_activations(model.mixed, half, inputs)


def encode(model: CategoryModel, x: jax.Array, activations: Any = None) -> Posterior:
    """q(z|x,c) for images x `[batch, pixels]` in [0, 1].

    `activations` is `shared_neurons` of x: who encodes the same images for many categories computes it once.
    """
    activations = mixed_activations(model, "encoder", x) if activations is None else activations
    return Posterior(*model.networks.encode(model.mixed, model.category, x, activations))


def decode(model: CategoryModel, z: jax.Array) -> jax.Array:
    """Logits of the pixels, `[batch, pixels]`, from z `[batch, latent]`."""
    activations = mixed_activations(model, "decoder", z)
    return model.networks.decode(model.mixed, model.category, z, activations)


def decode_mean(model: CategoryModel, z: jax.Array) -> jax.Array:
    """E[x|z,c], `[batch, pixels]` in [0, 1]: what is remembered, and what goes round the circle."""
    return jax.nn.sigmoid(decode(model, z))


def sample_image(model: CategoryModel, z: jax.Array, *, rng: jax.Array | None = None) -> jax.Array:
    """What the model shows of z, `[batch, pixels]` in [0, 1]: its mean, with the category's contrast.

    With `rng` also a texture, where the category owns one: a remainder from its factors, which share it out
    over the pixels as they do on average, and the decoder as it is uncertain of this image's,

        y = sigmoid(contrast * logits) + scale * uncertainty / rms(uncertainty) * sum_j deviation_j f_j d_j
    """
    logits = decode(model, z)
    drawn = jax.nn.sigmoid(model.contrast * logits)
    if rng is None or model.rms_uncertainty is None:
        return drawn
    scale = jnp.exp(model.networks.log_scale(model.mixed, model.category))
    remainders = scale[None] * low_rank_noise.sample(model.low_rank_noise, len(z), noise=True, rng=rng)
    texture = remainders * bernoulli_std(jax.nn.sigmoid(logits)) / model.rms_uncertainty[None]
    return jnp.clip(drawn + texture, 0, 1)


def bernoulli_std(mean: jax.Array) -> jax.Array:
    """How far a pixel of this mean may be from it, floored: the deviation of one that is black or white."""
    return jnp.sqrt(mean * (1 - mean) + STD_FLOOR**2)


def log_likelihood(model: CategoryModel, x: jax.Array, logits: jax.Array) -> jax.Array:
    """Log p(x|z,c) in nats per image, `[batch]`, for x and logits `[batch, pixels]`.

    `gaussian`: N(sigmoid(logits), scale), a density on pixels in [0, 1], with the category's factors where
    it has some. `bernoulli`: the pixel is the probability of a binary one,
    log p = x log s(l) + (1 - x) log s(-l).
    """
    if model.networks.likelihood == "bernoulli":
        per_pixel = x * jax.nn.log_sigmoid(logits) + (1 - x) * jax.nn.log_sigmoid(-logits)
        return jnp.sum(per_pixel, axis=-1)
    remainders = residual(model, x, logits)
    log_scale = model.networks.log_scale(model.mixed, model.category)
    constant = jnp.sum(log_scale) + 0.5 * math.log(2 * math.pi) * x.shape[-1]
    white = -0.5 * jnp.sum(jnp.square(remainders), axis=-1) - constant
    return (
        white + low_rank_noise.log_likelihood_gain(model.low_rank_noise, remainders) if model.low_rank_noise else white
    )


def residual(model: CategoryModel, x: jax.Array, logits: jax.Array) -> jax.Array:
    """(x - sigmoid(logits)) / scale, `[batch, pixels]`: what the decoder has not drawn, in scales."""
    log_scale = model.networks.log_scale(model.mixed, model.category)
    return (x - jax.nn.sigmoid(logits)) * jnp.exp(-log_scale)[None]


def elbo_at(model: CategoryModel, x: jax.Array, posterior: Posterior, z: jax.Array) -> jax.Array:
    """Log p(x|z,c) - KL(q(z|x,c) || p(z|c)) in nats per image: `[batch]`.

    The second term is exact for a prior of one component, and not less than it for a mixture
    (`prior.kl_to_prior`). With z ~ q(z|x,c) its mean is ELBO_c(x). With z at the posterior's mean there
    is no randomness, and it is not a bound: it leaves out the loss by the spread of z, and serves to
    compare categories.
    """
    kl = mixture_prior.kl_to_prior(posterior.mean, posterior.log_var, model.prior)
    return log_likelihood(model, x, decode(model, z)) - kl


def elbo(model: CategoryModel, x: jax.Array, posterior: Posterior, *, rng: jax.Array, samples: int = 1) -> jax.Array:
    """ELBO_c(x), averaged over samples z ~ q(z|x,c), in nats per image: `[batch]`."""

    def one(key: jax.Array) -> jax.Array:
        return elbo_at(model, x, posterior, posterior.sample(rng=key))

    if samples == 1:
        return one(rng)
    return jnp.mean(jax.vmap(one)(jax.random.split(rng, samples)), axis=0)


def importance_bound(
    model: CategoryModel, x: jax.Array, posterior: Posterior, *, rng: jax.Array, samples: int
) -> jax.Array:
    """Log 1/S sum_s p(x|z_s,c) p(z_s|c) / q(z_s|x,c), z_s ~ q: at least the ELBO on average, `[batch]`."""

    def log_weight(key: jax.Array) -> jax.Array:
        z = posterior.sample(rng=key)
        log_joint = log_likelihood(model, x, decode(model, z)) + mixture_prior.log_prob(model.prior, z)
        return log_joint - posterior.log_prob(z)

    log_weights = jax.vmap(log_weight)(jax.random.split(rng, samples))
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(samples)


def evidence_bound(
    model: CategoryModel, x: jax.Array, activations: Any, settings: RecognitionConfig, *, rng: jax.Array | None
) -> jax.Array:
    """What recognition takes for log p(x|c) by `settings.bound`, in nats per image: `[batch]`.

    `activations` is as for `encode`; `rng` is of the samples, for the bounds that draw some.
    """
    posterior = encode(model, x, activations)
    if settings.bound == "mean":
        return elbo_at(model, x, posterior, posterior.mean)
    sampled = elbo if settings.bound == "sampled" else importance_bound
    return sampled(model, x, posterior, rng=rng, samples=settings.samples)


def circulate(
    model: CategoryModel, z: jax.Array, x: jax.Array, cycles: int, *, rng: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Turns of the circle: z_k ~ q(z|x_(k-1), c), x_k the decoder's mean.

    Args:
        model: mixed part and category.
        z: latents that x was drawn from, `[batch, latent]`; returned where `cycles` is 0.
        x: images, `[batch, pixels]` in [0, 1].
        cycles: number of turns (static).
        rng: source of the samples.

    Returns:
        z and x after the last turn.
    """

    def turn(pair: tuple[jax.Array, jax.Array], key: jax.Array):
        z = encode(model, pair[1]).sample(rng=key)
        return (z, decode_mean(model, z)), None

    return jax.lax.scan(turn, (z, x), jax.random.split(rng, cycles))[0] if cycles else (z, x)
