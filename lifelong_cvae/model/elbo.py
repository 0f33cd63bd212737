"""Bounds on log p(x|c) of one category, by which it learns and by which categories are compared.

Sources: Kingma and Welling 2013 (arXiv 1312.6114) for the ELBO, Burda, Grosse and Salakhutdinov 2015 (arXiv 1509.00519)
for the importance-weighted bound, Varin, Reid and Firth 2011 for composite likelihoods.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from lifelong_cvae.config import RecognitionConfig
from lifelong_cvae.model import cvae, mixture_prior, pixel_pyramid

# Weight of the decoder's likelihood beside that of the pixel models (selected on validation images of CIFAR-10).
DECODER_WEIGHT = 0.5


def elbo_at(model: cvae.CategoryModel, x: jax.Array, posterior: cvae.Posterior, z: jax.Array) -> jax.Array:
    """Computes log p(x|z,c) - KL(q(z|x,c) || p(z|c)) in nats per image, `[batch]`.

    The KL term is exact for a prior of one component, and an upper bound for a mixture (`mixture_prior.kl_to_prior`).
    For z ~ q(z|x,c) the mean of the result is ELBO_c(x). At the posterior's mean the result is deterministic but no
    bound, since it ignores the loss of likelihood due to the variance of z; it serves to compare categories.

    Args:
        model: model of the category.
        x: images, `[batch, pixels]`.
        posterior: q(z|x,c).
        z: latents, `[batch, latent]`.
    """
    return elbo_of_logits(model, x, posterior, cvae.decode(model, z))


def elbo_of_logits(model: cvae.CategoryModel, x: jax.Array, posterior: cvae.Posterior, logits: jax.Array) -> jax.Array:
    """Computes `elbo_at` the z that was decoded to `logits`, `[batch, pixels]`."""
    kl = mixture_prior.kl_to_prior(posterior.mean, posterior.log_var, model.prior)
    return cvae.log_likelihood(model, x, logits) - kl


def pixel_evidence(model: cvae.CategoryModel, x: jax.Array, posterior: cvae.Posterior) -> jax.Array:
    """Computes the composite log-likelihood of the bound `pixels`, `[batch]`.

    The sum of two bounds with z at the posterior's mean: `elbo_at` with a partial likelihood of the pixel models, and
    `DECODER_WEIGHT` times `elbo_at` itself. It serves to compare categories (`pixel_pyramid.image_log_prob`).
    """
    logits, pyramid = cvae.decode(model, posterior.mean), model.networks.pixel_pyramid
    mean = model.networks.mean(logits)
    log_prob = pixel_pyramid.image_log_prob(pyramid, model.pixels, x, mean, posterior.mean, partial=True)
    kl = mixture_prior.kl_to_prior(posterior.mean, posterior.log_var, model.prior)
    return log_prob - kl + DECODER_WEIGHT * elbo_of_logits(model, x, posterior, logits)


def sampled_elbo(
    model: cvae.CategoryModel, x: jax.Array, posterior: cvae.Posterior, *, rng: jax.Array, samples: int = 1
) -> jax.Array:
    """Estimates ELBO_c(x) in nats per image, `[batch]`, as a mean over samples z ~ q(z|x,c)."""

    def elbo(key: jax.Array) -> jax.Array:
        return elbo_at(model, x, posterior, posterior.sample(rng=key))

    if samples == 1:
        return elbo(rng)
    return jnp.mean(jax.vmap(elbo)(jax.random.split(rng, samples)), axis=0)


def importance_bound(
    model: cvae.CategoryModel, x: jax.Array, posterior: cvae.Posterior, *, rng: jax.Array, samples: int
) -> jax.Array:
    """Estimates the importance-weighted bound on log p(x|c) in nats per image, `[batch]`.

    log 1/S sum_s p(x|z_s,c) p(z_s|c) / q(z_s|x,c) for S samples z_s ~ q(z|x,c); on average at least the ELBO.
    """

    def log_weight(key: jax.Array) -> jax.Array:
        z = posterior.sample(rng=key)
        log_joint = cvae.log_likelihood(model, x, cvae.decode(model, z)) + mixture_prior.log_prob(model.prior, z)
        return log_joint - posterior.log_prob(z)

    log_weights = jax.vmap(log_weight)(jax.random.split(rng, samples))
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(samples)


def evidence_bound(
    model: cvae.CategoryModel, x: jax.Array, activations: Any, settings: RecognitionConfig, *, rng: jax.Array | None
) -> jax.Array:
    """Computes the approximation of log p(x|c) that recognition uses, in nats per image, `[batch]`.

    Args:
        model: model of the category.
        x: images, `[batch, pixels]`.
        activations: as in `cvae.encode`.
        settings: `bound` and the number of `samples`.
        rng: key of the samples; unused by the bound `mean`.
    """
    posterior = cvae.encode(model, x, activations)
    if settings.bound == "mean":
        return elbo_at(model, x, posterior, posterior.mean)
    if settings.bound == "pixels":
        return pixel_evidence(model, x, posterior)
    sampled_bound = sampled_elbo if settings.bound == "sampled" else importance_bound
    return sampled_bound(model, x, posterior, rng=rng, samples=settings.samples)
