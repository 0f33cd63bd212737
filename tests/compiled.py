"""Functions of the library as one program each: called operation by operation, they compile every operation."""

import jax

from lifelong_cvae.model import cvae, elbo, mixture_prior
from lifelong_cvae.ridge import features, sums

mixed_activations = jax.jit(cvae.mixed_activations, static_argnums=1)
encode = jax.jit(cvae.encode)
decode = jax.jit(cvae.decode)
decode_mean = jax.jit(cvae.decode_mean)
sample_image = jax.jit(cvae.sample_image)
circulate = jax.jit(cvae.circulate, static_argnums=3)
log_likelihood = jax.jit(cvae.log_likelihood)
elbo_at = jax.jit(elbo.elbo_at)
sampled_elbo = jax.jit(elbo.sampled_elbo, static_argnames="samples")
importance_bound = jax.jit(elbo.importance_bound, static_argnames="samples")
sample_prior = jax.jit(mixture_prior.sample, static_argnums=1, static_argnames="temperature")
prior_log_prob = jax.jit(mixture_prior.log_prob)
kl_to_prior = jax.jit(mixture_prior.kl_to_prior)
extract_features = jax.jit(features.extract, static_argnames=("image_shape", "settings"))
gram_elements = jax.jit(sums.gram_elements, static_argnums=3)


@jax.jit
def encode_and_sample(model, x, *, rng):
    """Samples z ~ q(z|x,c), `[batch, latent]`."""
    return cvae.encode(model, x).sample(rng=rng)
