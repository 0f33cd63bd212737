"""The conditional VAE of one category: encoder, decoder, samples, likelihood, and the circle.

Every function takes a `CategoryModel`: the mixed part and the parameters of one category. Parameters of other
categories are not passed in, so no result can depend on them. `elbo` has the bounds on log p(x|c). Sources: Kingma and
Welling 2013 (arXiv 1312.6114), Sohn, Lee and Yan 2015 for the conditional form.
"""

import math
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from lifelong_cvae.model import low_rank_noise, mixture_prior, pixel_pyramid
from lifelong_cvae.model.networks import Networks

# Standard deviation of a pixel whose decoded mean is exactly 0 or 1.
STD_FLOOR = 0.02


class CategoryModel(flax.struct.PyTreeNode):
    """Model of one category: the mixed part and the category's own parameters.

    Attributes:
        mixed: mixed parameters, `{}` if there is no mixed part.
        category: the category's subtree: encoder, decoder, scale, prior, low_rank_noise, contrast, ...
        networks: modules (static).
    """

    mixed: Any
    category: Any
    networks: Networks = flax.struct.field(pytree_node=False)

    def part(self, key: str, default: Any) -> Any:
        """Returns a part of the category's subtree, or `default` if that part is missing or `{}`."""
        value = self.category.get(key, {})
        return default if isinstance(value, dict) and not value else value

    @property
    def prior(self) -> mixture_prior.MixturePrior:
        """Mixture prior p(z|c). One-hot categories have none of their own and use N(0, I)."""
        return self.category["prior"] or mixture_prior.standard_normal(self.networks.latent_size)

    @property
    def low_rank_noise(self) -> low_rank_noise.LowRankNoise:
        """Low-rank residual noise. `{}` if the category has none, and while its networks are trained."""
        return self.part("low_rank_noise", {})

    @property
    def contrast(self) -> jax.Array | float:
        """Factor on the logits of sampled images. 1 for one-hot categories."""
        return self.part("contrast", 1.0)

    @property
    def rms_uncertainty(self) -> jax.Array | None:
        """Root mean square of `bernoulli_std` over the category's images, `[pixels]`, or None."""
        return self.part("rms_uncertainty", None)

    @property
    def pixels(self) -> Any:
        """Parameters of the pixel models, `{}` if the category has none."""
        return self.part("pixels", {})


class Posterior(NamedTuple):
    """q(z|x,c) = N(mean, diag(exp(log_var)))."""

    mean: jax.Array  # [batch, latent]
    log_var: jax.Array  # [batch, latent]

    def sample(self, *, rng: jax.Array) -> jax.Array:
        """Samples z ~ q(z|x,c), `[batch, latent]`."""
        return self.reparameterize(jax.random.normal(rng, self.mean.shape))

    def reparameterize(self, noise: jax.Array) -> jax.Array:
        """Transforms standard normal noise `[batch, latent]` into z ~ q(z|x,c), `[batch, latent]`."""
        return self.mean + jnp.exp(0.5 * self.log_var) * noise

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Computes log q(z|x,c) in nats, `[batch]`, for z `[batch, latent]`."""
        return mixture_prior.gaussian_log_prob(z, self.mean, self.log_var)


def mixed_activations(model: CategoryModel, half: str, inputs: jax.Array) -> Any:
    """Computes the activations of the mixed part, which do not depend on the category.

    Args:
        model: mixed part; the category is not read.
        half: `encoder` or `decoder`.
        inputs: images or latents, `[batch, size]`.
    """
    return model.networks.mixed_activations(model.mixed, half, inputs)


def encode(model: CategoryModel, x: jax.Array, activations: Any = None) -> Posterior:
    """Computes q(z|x,c).

    Args:
        model: model of the category.
        x: images in [0, 1], `[batch, pixels]`.
        activations: `mixed_activations` of x. Pass them to encode the same images for several categories; default
            None computes them.
    """
    activations = mixed_activations(model, "encoder", x) if activations is None else activations
    return Posterior(*model.networks.encode(model.mixed, model.category, x, activations))


def decode(model: CategoryModel, z: jax.Array) -> jax.Array:
    """Decodes z `[batch, latent]` to logits of the pixels, `[batch, pixels]`."""
    activations = mixed_activations(model, "decoder", z)
    return model.networks.decode(model.mixed, model.category, z, activations)


def decode_mean(model: CategoryModel, z: jax.Array) -> jax.Array:
    """Computes E[x|z,c], `[batch, pixels]` in [0, 1], or a vector. Replay and the circle use this mean."""
    return model.networks.mean(decode(model, z))


def sample_image(model: CategoryModel, z: jax.Array, *, rng: jax.Array | None = None) -> jax.Array:
    """Generates images `[batch, pixels]`: the decoder's mean with the category's contrast and texture.

        y = sigmoid(contrast * logits) + scale * uncertainty / rms(uncertainty) * sum_j deviation_j f_j direction_j

    The texture is a sample of the low-rank residual noise, with f_j ~ N(0, 1). The noise is spread over the pixels as
    residuals are on average. The factor `uncertainty / rms(uncertainty)` moves it to pixels where the decoder is
    uncertain in this image; `uncertainty` is the `bernoulli_std` of the mean. There is no texture if
    `model.rms_uncertainty` is None.

    With the style `pixels`, images are samples of the category's pixel models given the decoder's mean.

    A vector is the decoder's mean with all of its noise: low-rank noise and, in every dimension, white noise.

    Args:
        model: model of the category.
        z: latents, `[batch, latent]`.
        rng: key of texture, pixels or noise; None leaves them out.
    """
    logits = decode(model, z)
    scale = jnp.exp(model.networks.log_scale(model.mixed, model.category))
    if model.networks.is_vector:
        return logits if rng is None else logits + scale[None] * _vector_noise(model, len(z), rng=rng)
    if rng is not None and model.networks.samples_pixels:
        return pixel_pyramid.sample(model.networks.pixel_pyramid, model.pixels, jax.nn.sigmoid(logits), z, rng=rng)
    image = jax.nn.sigmoid(model.contrast * logits)
    if rng is None or model.rms_uncertainty is None:
        return image
    residuals = scale[None] * low_rank_noise.sample(model.low_rank_noise, len(z), noise=True, rng=rng)
    texture = residuals * bernoulli_std(jax.nn.sigmoid(logits)) / model.rms_uncertainty[None]
    return jnp.clip(image + texture, 0, 1)


def _vector_noise(model: CategoryModel, count: int, *, rng: jax.Array) -> jax.Array:
    """Samples noise of vectors in units of the scale, `[count, d]`."""
    white_rng, low_rank_rng = jax.random.split(rng)
    noise = jax.random.normal(white_rng, (count, model.networks.pixels))
    if model.low_rank_noise:
        noise += low_rank_noise.sample(model.low_rank_noise, count, rng=low_rank_rng)
    return noise


def bernoulli_std(mean: jax.Array) -> jax.Array:
    """Computes the floored Bernoulli standard deviation, sqrt(mean (1 - mean) + 0.02^2)."""
    return jnp.sqrt(mean * (1 - mean) + STD_FLOOR**2)


def log_likelihood(model: CategoryModel, x: jax.Array, logits: jax.Array) -> jax.Array:
    """Computes log p(x|z,c) in nats per image, `[batch]`.

    `gaussian`: N(sigmoid(logits), scale), a density on pixels in [0, 1], with the category's low-rank noise if it has
    any. `bernoulli`: the pixel is the probability of a binary one, log p = x log s(l) + (1 - x) log s(-l) for logits l
    and the sigmoid s.

    Args:
        model: model of the category.
        x: images, `[batch, pixels]`.
        logits: decoder outputs, `[batch, pixels]`.
    """
    if model.networks.likelihood == "bernoulli":
        per_pixel = x * jax.nn.log_sigmoid(logits) + (1 - x) * jax.nn.log_sigmoid(-logits)
        return jnp.sum(per_pixel, axis=-1)
    residuals = residual(model, x, logits)
    log_scale = model.networks.log_scale(model.mixed, model.category)
    constant = jnp.sum(log_scale) + 0.5 * math.log(2 * math.pi) * x.shape[-1]
    log_prob = -0.5 * jnp.sum(jnp.square(residuals), axis=-1) - constant
    if model.low_rank_noise:
        log_prob = log_prob + low_rank_noise.log_likelihood_gain(model.low_rank_noise, residuals)
    return log_prob


def residual(model: CategoryModel, x: jax.Array, logits: jax.Array) -> jax.Array:
    """Computes residuals in units of the scale, (x - mean(logits)) / scale, `[batch, pixels]`."""
    log_scale = model.networks.log_scale(model.mixed, model.category)
    return (x - model.networks.mean(logits)) * jnp.exp(-log_scale)[None]


def circulate(
    model: CategoryModel, z: jax.Array, x: jax.Array, cycles: int, *, rng: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Runs turns of the circle: z_k ~ q(z|x_(k-1),c), then x_k = E[x|z_k,c]. Returns the last z and x.

    Args:
        model: model of the category.
        z: latents from which x was decoded, `[batch, latent]`. Returned if `cycles` is 0.
        x: images in [0, 1], `[batch, pixels]`.
        cycles: number of turns (static).
        rng: key of the samples.
    """

    def turn(pair: tuple[jax.Array, jax.Array], key: jax.Array):
        z = encode(model, pair[1]).sample(rng=key)
        return (z, decode_mean(model, z)), None

    return jax.lax.scan(turn, (z, x), jax.random.split(rng, cycles))[0] if cycles else (z, x)
