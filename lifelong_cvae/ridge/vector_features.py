"""Features of vectors for the closed-form recognizer.

    phi = [z, max(0, R u)]        u = v / rms(v), or u = z where the user gives mean and scale

z is the standardized vector v (`model.vectors`), R a random matrix, and rms the root mean square of a vector's values.
The regression standardizes z by the joint sums, and u depends on no other vector, so scores do not depend on the
category that was learned first, but for rounding. Random features of a frozen network's output for ridge regression:
McDonnell et al. 2023 (RanPAC, arXiv 2307.02251).
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.model.vectors import Standardization, from_rows

# Below this root mean square a vector counts as zero.
SMALLEST = 1e-30


def random_matrix(seed: int, size: int, count: int) -> jax.Array:
    """Samples R, float32 `[size, count]`, so that R u has variance 1."""
    return jax.device_put(_sample(seed, size, count))


@lru_cache(maxsize=2)
def _sample(seed: int, size: int, count: int) -> np.ndarray:
    values = np.random.default_rng([seed, size, count]).standard_normal((size, count), np.float32)
    return values / np.float32(np.sqrt(size))


def extract(standardization: Standardization, matrix: jax.Array, z: jax.Array) -> jax.Array:
    """Computes features of standardized vectors z `[n, d]`, float32 `[n, features]`. Traceable."""
    v = from_rows(z, standardization)
    size = jnp.max(jnp.abs(v), axis=1, keepdims=True)
    v = v / jnp.maximum(size, SMALLEST)  # squares of tiny values would vanish
    rms = jnp.sqrt(jnp.mean(jnp.square(v), axis=1, keepdims=True))
    u = jnp.where(standardization["given"], z, v / jnp.maximum(rms, SMALLEST))
    with jax.default_matmul_precision("float32"):
        return jnp.concatenate([z, jax.nn.relu(u @ matrix)], axis=1)
