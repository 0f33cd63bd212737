"""The prior p(z|c) of a category: a mixture of Gaussians with diagonal covariances.

A prior is a dict of `logits` `[components]`, `means` and `log_vars` `[components, latent]`. The number of components is
the same for all categories, so that priors can be stacked; unused components have the logit `UNUSED_LOGIT`. Sources:
Dempster, Laird and Rubin 1977 for expectation maximization (EM), Tomczak and Welling 2018 (arXiv 1705.07120) for the
benefit of a prior near the aggregate posterior.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

MixturePrior = dict[str, jax.Array]

UNUSED_LOGIT = -1e30
# Minimum number of images per component, on average, so that no component memorizes a single image.
IMAGES_PER_COMPONENT = 20
VARIANCE_FLOOR = 1e-3
ITERATIONS = 60
# Strength of the conjugate prior on a component's mean and variance, in images.
MEAN_STRENGTH = 1.0
VARIANCE_STRENGTH = 5.0


def standard_normal(latent_size: int, components: int = 1) -> MixturePrior:
    """Returns N(0, I) as a mixture of equal components, the initial prior of every category."""
    return {
        "logits": jnp.zeros((components,)),
        "means": jnp.zeros((components, latent_size)),
        "log_vars": jnp.zeros((components, latent_size)),
    }


def gaussian_log_prob(z: jax.Array, mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """Computes log N(z; mean, diag(exp(log_var))) in nats over the last axis. Leading axes broadcast."""
    per_dimension = jnp.square(z - mean) * jnp.exp(-log_var) + log_var + math.log(2 * math.pi)
    return -0.5 * jnp.sum(per_dimension, axis=-1)


def log_joint(prior: MixturePrior, z: jax.Array) -> jax.Array:
    """Computes log p(k) + log p(z|k) in nats, `[batch, components]`, for z `[batch, latent]`."""
    constant = jnp.sum(prior["log_vars"], axis=-1) + prior["log_vars"].shape[-1] * math.log(2 * math.pi)
    per_component = -0.5 * (_squared_distances(prior, z, jnp.square(z)) + constant[None])
    return per_component + jax.nn.log_softmax(prior["logits"])[None]


def _squared_distances(prior: MixturePrior, first_moment: jax.Array, second_moment: jax.Array) -> jax.Array:
    """Computes E[(z - mean_k)^2 / variance_k], summed over the latent, `[batch, components]`.

    Matrix products are many times faster than the differences of all pairs. The products nearly cancel where a variance
    is small, so they are never computed less precisely than in float32. The moments E[z] and E[z^2] are
    `[batch, latent]`.
    """
    precisions = jnp.exp(-prior["log_vars"])
    weighted = prior["means"] * precisions
    squares = jnp.matmul(second_moment, precisions.T, precision="highest")
    products = jnp.matmul(first_moment, weighted.T, precision="highest")
    return squares - 2 * products + jnp.sum(prior["means"] * weighted, axis=-1)[None]


def log_prob(prior: MixturePrior, z: jax.Array) -> jax.Array:
    """Computes log p(z|c) in nats, `[batch]`, for z `[batch, latent]`."""
    return jax.nn.logsumexp(log_joint(prior, z), axis=-1)


def sample(prior: MixturePrior, count: int, *, temperature: float = 1.0, rng: jax.Array) -> jax.Array:
    """Samples z ~ p(z|c), `[count, latent]`, with deviations from its mean times `temperature`."""
    component_rng, noise_rng = jax.random.split(rng)
    component = jax.random.categorical(component_rng, prior["logits"], shape=(count,))
    noise = jax.random.normal(noise_rng, (count, prior["means"].shape[1]))
    z = prior["means"][component] + jnp.exp(0.5 * prior["log_vars"][component]) * noise
    if temperature == 1.0:
        return z
    mean = (jax.nn.softmax(prior["logits"]) @ prior["means"])[None]
    return mean + temperature * (z - mean)


def mean_and_covariance(prior: MixturePrior) -> tuple[np.ndarray, np.ndarray]:
    """Computes the mean `[latent]` and covariance `[latent, latent]` in float64 on the host."""
    logits, means, log_vars = (np.asarray(prior[key], np.float64) for key in ("logits", "means", "log_vars"))
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    mean = weights @ means
    between = (weights[:, None] * (means - mean)).T @ (means - mean)
    return mean, between + np.diag(weights @ np.exp(log_vars))


def kl_between(mean: jax.Array, log_var: jax.Array, other_mean: jax.Array, other_log_var: jax.Array):
    """Computes KL(N(mean, exp(log_var)) || N(other_mean, exp(other_log_var))) in nats.

    The sum is over the last axis. Source: Kingma and Welling 2013, appendix B, where the second Gaussian is N(0, I).
    """
    log_ratio = log_var - other_log_var
    scaled_distance = jnp.square(mean - other_mean) * jnp.exp(-other_log_var)
    return 0.5 * jnp.sum(jnp.exp(log_ratio) + scaled_distance - 1 - log_ratio, axis=-1)


def kl_to_prior(mean: jax.Array, log_var: jax.Array, prior: MixturePrior) -> jax.Array:
    """Computes the best variational upper bound of KL(N(mean, exp(log_var)) || p(z|c)), nats `[batch]`.

    KL(q || sum_k w_k p_k) <= -log sum_k w_k exp(-KL(q || p_k)): exact for one component and where components are far
    apart. An ELBO with this bound stays a lower bound. Source: Hershey and Olsen 2007 (the variational approximation,
    for one Gaussian on the left).

    Args:
        mean: mean of q, `[batch, latent]`.
        log_var: log variance of q, `[batch, latent]`.
        prior: p(z|c).
    """
    if prior["means"].shape[0] == 1:
        return kl_between(mean, log_var, prior["means"], prior["log_vars"])
    distances = _squared_distances(prior, mean, jnp.square(mean) + jnp.exp(log_var))
    entropy_term = jnp.sum(log_var + 1, axis=-1, keepdims=True)
    per_component = 0.5 * (distances + jnp.sum(prior["log_vars"], axis=-1)[None] - entropy_term)
    return -jax.nn.logsumexp(jax.nn.log_softmax(prior["logits"])[None] - per_component, axis=-1)


def fit(points: jax.Array, components: int, *, images: jax.Array | int | None = None, rng: jax.Array) -> MixturePrior:
    """Fits a mixture to samples of the aggregate posterior by EM. Works inside `jit` and `vmap`.

    Each iteration maximizes the likelihood times a weak conjugate prior, with the strength of a few images: means are
    pulled to the mean of all points, variances to the variance of all points divided among the components. Variances
    have a floor. A few images therefore give a broad density, and a component that lost its points returns to the
    center. Source of the regularization: Fraley and Raftery 2007.

    Args:
        points: samples, `[n, latent]`.
        components: length of the component axis.
        images: number of images that the points were encoded from; default n. At most one component is used per
            `IMAGES_PER_COMPONENT` images and points, and at least one.
        rng: key of the initial means, which are points far from each other.
    """
    count = points.shape[0]
    images = count if images is None else images
    images_per_point = jnp.minimum(images / count, 1.0)
    num_used = jnp.clip(jnp.minimum(images, count) // IMAGES_PER_COMPONENT, 1, components)
    logit_mask = jnp.where(jnp.arange(components) < num_used, 0.0, UNUSED_LOGIT)
    center, variance = jnp.mean(points, axis=0), jnp.var(points, axis=0)
    centered = points - center[None]
    prior_variance = variance / num_used ** (2 / points.shape[1])
    start = {
        "logits": logit_mask,
        "means": _kmeans_plus_plus(centered, components, rng=rng),
        "log_vars": jnp.broadcast_to(jnp.log(variance + VARIANCE_FLOOR)[None], (components, points.shape[1])),
    }

    def iteration(prior: MixturePrior, _: None) -> tuple[MixturePrior, None]:
        weights = images_per_point * jax.nn.softmax(log_joint(prior, centered), axis=-1)
        mass = jnp.sum(weights, axis=0)[:, None]
        total = weights.T @ centered
        means = total / (mass + MEAN_STRENGTH)
        scatter = weights.T @ jnp.square(centered) - 2 * means * total + mass * means**2
        prior_scatter = VARIANCE_STRENGTH * prior_variance[None] + MEAN_STRENGTH * means**2
        variances = (scatter + prior_scatter) / (mass + VARIANCE_STRENGTH + MEAN_STRENGTH)
        logits = jnp.log(mass[:, 0] + 1e-6) + logit_mask
        return {"logits": logits, "means": means, "log_vars": jnp.log(jnp.maximum(variances, VARIANCE_FLOOR))}, None

    fitted = jax.lax.scan(iteration, start, length=ITERATIONS)[0]
    return {**fitted, "means": fitted["means"] + center[None]}


def shift(prior: MixturePrior, before: jax.Array, after: jax.Array, *, weight: float = 1.0) -> MixturePrior:
    """Shifts a prior to points that have moved.

    Each component takes on the changes in the mean and variance of the points assigned to it. Points that have not
    moved leave the prior unchanged, even after many calls; refitting it to its own samples would make it drift.

    Args:
        prior: the prior before.
        before: points before the move, `[n, latent]`.
        after: the same points after it, in the same order, `[n, latent]`.
        weight: number of points that each row counts for.
    """
    weights = weight * jax.nn.softmax(log_joint(prior, before), axis=-1)
    mass = jnp.sum(weights, axis=0)[:, None]

    def means_and_scatters(points: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean = weights.T @ points / (mass + 1e-6)
        squares = jnp.square(points[:, None] - mean[None])
        return mean, jnp.einsum("nk,nkd->kd", weights, squares)

    (mean_before, scatter_before), (mean_after, scatter_after) = means_and_scatters(before), means_and_scatters(after)
    prior_scatter = VARIANCE_STRENGTH * jnp.exp(prior["log_vars"])
    log_vars = prior["log_vars"] + jnp.log((scatter_after + prior_scatter) / (scatter_before + prior_scatter))
    return {
        "logits": prior["logits"],
        "means": prior["means"] + mass / (mass + MEAN_STRENGTH) * (mean_after - mean_before),
        "log_vars": jnp.maximum(log_vars, math.log(VARIANCE_FLOOR)),
    }


def _kmeans_plus_plus(points: jax.Array, count: int, *, rng: jax.Array) -> jax.Array:
    """Samples points far from each other, `[count, latent]`.

    Each is sampled in proportion to its squared distance to the nearest point sampled before. Source: Arthur and
    Vassilvitskii 2007 (k-means++).
    """

    def sample_point(squared_distance: jax.Array, key: jax.Array):
        point = points[jax.random.categorical(key, jnp.log(squared_distance + 1e-12))]
        return jnp.minimum(squared_distance, jnp.sum(jnp.square(points - point[None]), axis=-1)), point

    return jax.lax.scan(sample_point, jnp.ones((points.shape[0],)), jax.random.split(rng, count))[1]


def principal_directions(prior: MixturePrior) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Computes the directions in which p(z|c) is widest, in float64 on the host.

    Returns the mean `[latent]`, standard deviations `[latent]` with the widest first, and unit directions
    `[latent, latent]`, one per row in the same order.
    """
    mean, covariance = mean_and_covariance(prior)
    variances, directions = np.linalg.eigh(covariance)
    return mean, np.sqrt(variances[::-1]), directions[:, ::-1].T
