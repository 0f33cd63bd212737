"""The prior p(z|c): a mixture of Gaussians with diagonal covariances, one per category.

A prior is a dict of `logits` [components], `means` and `log_vars` [components, latent]. Its number of
components is the same for all categories, so that priors can be stacked; a component that is not in
use has the logit `UNUSED`. Sources: Dempster, Laird and Rubin 1977 for expectation maximization (EM),
Tomczak and Welling 2018 (arXiv 1705.07120) for what a prior near the aggregate posterior is good for.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

MixturePrior = dict[str, jax.Array]

UNUSED_LOGIT = -1e30
# A component stands for at least so many images on average: it must not remember one of them.
IMAGES_PER_COMPONENT = 20
VARIANCE_FLOOR = 1e-3
ITERATIONS = 60
# Strength of what a component's mean and variance are drawn to, in images.
MEAN_STRENGTH = 1.0
VARIANCE_STRENGTH = 5.0


def standard_normal(latent_size: int, components: int = 1) -> MixturePrior:
    """N(0, I), as a mixture of equal components: what every category starts with."""
    return {
        "logits": jnp.zeros((components,)),
        "means": jnp.zeros((components, latent_size)),
        "log_vars": jnp.zeros((components, latent_size)),
    }


def gaussian_log_prob(z: jax.Array, mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """Log N(z; mean, diag(exp(log_var))) in nats, summed over the last axis; leading axes broadcast."""
    per_dimension = jnp.square(z - mean) * jnp.exp(-log_var) + log_var + math.log(2 * math.pi)
    return -0.5 * jnp.sum(per_dimension, axis=-1)


def log_joint(prior: MixturePrior, z: jax.Array) -> jax.Array:
    """Log p(component) + log p(z|component) in nats, for z `[batch, latent]`: `[batch, components]`."""
    constant = jnp.sum(prior["log_vars"], axis=-1) + prior["log_vars"].shape[-1] * math.log(2 * math.pi)
    per_component = -0.5 * (_squared_distances(prior, z, jnp.square(z)) + constant[None])
    return per_component + jax.nn.log_softmax(prior["logits"])[None]


def _squared_distances(prior: MixturePrior, first: jax.Array, second: jax.Array) -> jax.Array:
    """E[(z - mean_k)^2 / variance_k], summed over the latent: `[batch, components]`.

    As matrix products, which are many times faster than all differences. Since these nearly cancel where a
    variance is small, they are never less precise than float32.

    Args:
        prior: the components.
        first: E[z], `[batch, latent]`.
        second: E[z^2], `[batch, latent]`.
    """
    precisions = jnp.exp(-prior["log_vars"])
    weighted = prior["means"] * precisions
    squares = jnp.matmul(second, precisions.T, precision="highest")
    products = jnp.matmul(first, weighted.T, precision="highest")
    return squares - 2 * products + jnp.sum(prior["means"] * weighted, axis=-1)[None]


def log_prob(prior: MixturePrior, z: jax.Array) -> jax.Array:
    """Log p(z|c) in nats, for z `[batch, latent]`: `[batch]`."""
    return jax.nn.logsumexp(log_joint(prior, z), axis=-1)


def sample(prior: MixturePrior, count: int, *, rng: jax.Array) -> jax.Array:
    """Z ~ p(z|c): `[count, latent]`."""
    component_rng, noise_rng = jax.random.split(rng)
    component = jax.random.categorical(component_rng, prior["logits"], shape=(count,))
    noise = jax.random.normal(noise_rng, (count, prior["means"].shape[1]))
    return prior["means"][component] + jnp.exp(0.5 * prior["log_vars"][component]) * noise


def mean_and_covariance(prior: MixturePrior) -> tuple[np.ndarray, np.ndarray]:
    """Mean `[latent]` and covariance `[latent, latent]` of a mixture, in float64 on the host."""
    logits, means, log_vars = (np.asarray(prior[key], np.float64) for key in ("logits", "means", "log_vars"))
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    mean = weights @ means
    between = (weights[:, None] * (means - mean)).T @ (means - mean)
    return mean, between + np.diag(weights @ np.exp(log_vars))


def kl_between(mean: jax.Array, log_var: jax.Array, other_mean: jax.Array, other_log_var: jax.Array):
    """KL(N(mean, exp(log_var)) || N(other_mean, exp(other_log_var))) in nats, summed over the last axis.

    Source: Kingma and Welling 2013, appendix B, for N(0, I) in the second place.
    """
    log_ratio = log_var - other_log_var
    scaled_distance = jnp.square(mean - other_mean) * jnp.exp(-other_log_var)
    return 0.5 * jnp.sum(jnp.exp(log_ratio) + scaled_distance - 1 - log_ratio, axis=-1)


def kl_to_prior(mean: jax.Array, log_var: jax.Array, prior: MixturePrior) -> jax.Array:
    """The least upper bound of KL(N(mean, exp(log_var)) || p(z|c)) that components give, in nats.

    KL(q || sum_k w_k p_k) <= -log sum_k w_k exp(-KL(q || p_k)): exact for one component and where
    components are far apart. An ELBO with it stays a lower bound. `[batch, latent]` to `[batch]`.
    Source: Hershey and Olsen 2007 (the variational approximation, for one Gaussian on the left).
    """
    if prior["means"].shape[0] == 1:
        return kl_between(mean, log_var, prior["means"], prior["log_vars"])
    distances = _squared_distances(prior, mean, jnp.square(mean) + jnp.exp(log_var))
    own = jnp.sum(log_var + 1, axis=-1, keepdims=True)
    per_component = 0.5 * (distances + jnp.sum(prior["log_vars"], axis=-1)[None] - own)
    return -jax.nn.logsumexp(jax.nn.log_softmax(prior["logits"])[None] - per_component, axis=-1)


def fit(points: jax.Array, components: int, *, images: jax.Array | int | None = None, rng: jax.Array) -> MixturePrior:
    """Fits a mixture to samples of the aggregate posterior by EM. Works inside `jit` and `vmap`.

    Each iteration maximizes the likelihood times a weak conjugate prior: means are drawn to that of all
    points, variances to those of all points shared out among the components, with the strength of a few
    images; variances are floored. So few images give a broad density, and a component that lost its
    points returns to the middle. Source of the regularization: Fraley and Raftery 2007.

    Args:
        points: `[n, latent]`.
        components: length of the component axis.
        images: how many images the points are from; default n. At most one component per
            `IMAGES_A_COMPONENT` of them and of the points is used, at least one.
        rng: source of the first means, which are points far from each other.

    Returns:
        A prior of `components` components.
    """
    count = points.shape[0]
    images = count if images is None else images
    images_a_point = jnp.minimum(images / count, 1.0)
    used = jnp.clip(jnp.minimum(images, count) // IMAGES_PER_COMPONENT, 1, components)
    idle = jnp.where(jnp.arange(components) < used, 0.0, UNUSED_LOGIT)
    center, spread = jnp.mean(points, axis=0), jnp.var(points, axis=0)
    centerd = points - center[None]
    expected = spread / used ** (2 / points.shape[1])
    start = {
        "logits": idle,
        "means": _kmeans_plus_plus(centerd, components, rng=rng),
        "log_vars": jnp.broadcast_to(jnp.log(spread + VARIANCE_FLOOR)[None], (components, points.shape[1])),
    }

    def iteration(prior: MixturePrior, _: None) -> tuple[MixturePrior, None]:
        weights = images_a_point * jax.nn.softmax(log_joint(prior, centerd), axis=-1)
        mass = jnp.sum(weights, axis=0)[:, None]
        total = weights.T @ centerd
        means = total / (mass + MEAN_STRENGTH)
        second = weights.T @ jnp.square(centerd) - 2 * means * total + mass * means**2
        drawn_to = VARIANCE_STRENGTH * expected[None] + MEAN_STRENGTH * means**2
        variances = (second + drawn_to) / (mass + VARIANCE_STRENGTH + MEAN_STRENGTH)
        logits = jnp.log(mass[:, 0] + 1e-6) + idle
        return {
            "logits": logits,
            "means": means,
            "log_vars": jnp.log(jnp.maximum(variances, VARIANCE_FLOOR)),
        }, None

    fitted = jax.lax.scan(iteration, start, length=ITERATIONS)[0]
    return {**fitted, "means": fitted["means"] + center[None]}


def shift(prior: MixturePrior, before: jax.Array, after: jax.Array, *, weight: float = 1.0) -> MixturePrior:
    """The prior carried along with points that have moved, `[n, latent]` each, in the same order.

    `weight` is how many points each of them stands for.

    Each component takes on what has changed in the mean and variance of the points that it stands for.
    Where nothing has moved nothing changes, however often: a fit to samples of a fit would drift.
    """
    weights = weight * jax.nn.softmax(log_joint(prior, before), axis=-1)
    mass = jnp.sum(weights, axis=0)[:, None]

    def moments(points: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean = weights.T @ points / (mass + 1e-6)
        deviations = jnp.square(points[:, None] - mean[None])
        return mean, jnp.einsum("nk,nkd->kd", weights, deviations)

    (mean_before, scatter_before), (mean_after, scatter_after) = moments(before), moments(after)
    held = VARIANCE_STRENGTH * jnp.exp(prior["log_vars"])
    log_vars = prior["log_vars"] + jnp.log((scatter_after + held) / (scatter_before + held))
    return {
        "logits": prior["logits"],
        "means": prior["means"] + mass / (mass + MEAN_STRENGTH) * (mean_after - mean_before),
        "log_vars": jnp.maximum(log_vars, math.log(VARIANCE_FLOOR)),
    }


def _kmeans_plus_plus(points: jax.Array, count: int, *, rng: jax.Array) -> jax.Array:
    """Points far from each other, `[count, latent]`: each drawn by its squared distance to those before.

    Source: Arthur and Vassilvitskii 2007 (k-means++).
    """

    def draw(nearest: jax.Array, key: jax.Array):
        point = points[jax.random.categorical(key, jnp.log(nearest + 1e-12))]
        return jnp.minimum(nearest, jnp.sum(jnp.square(points - point[None]), axis=-1)), point

    return jax.lax.scan(draw, jnp.ones((points.shape[0],)), jax.random.split(rng, count))[1]
