"""Vectors: finite numbers of any scale, standardized before anything reads them.

A state of shape `(d,)` learns vectors instead of images, such as the embeddings of another network. Networks and
regression see z = (v - mean) / scale. Mean and scale are those of the first task, or given by the user; they never
change afterwards.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.errors import InputError
from lifelong_cvae.images import Shape, flatten_images

# Largest size of a standardized value: further ones are clipped.
LARGEST = 1e3
# A dimension whose deviation is a smaller part of its mean counts as constant: that is rounding.
CONSTANT = 1e-5

# `mean` and `scale` `[d]` float32, and `given`, whether the user gave them, bool.
Standardization = dict[str, jax.Array]


def is_vector(shape: Shape) -> bool:
    """Returns True if a state of this shape learns vectors."""
    return len(shape) == 1


def refuse_vectors(shape: Shape, what: str) -> None:
    """Raises InputError if a state of this shape learns vectors."""
    if is_vector(shape):
        raise InputError(f"{what}: expected a run on images, got one on vectors")


def given_standardization(shape: Shape, mean: Any, scale: Any) -> Standardization:
    """Returns the standardization that the user gives, or one that `fit_standardization` replaces.

    Args:
        shape: (d,).
        mean: numbers `[d]`, or one number; None together with `scale` gives none.
        scale: numbers above 0 `[d]`, or one number.

    Raises:
        InputError: one of them is missing, or they have another shape or other values.
    """
    if (mean is None) != (scale is None):
        raise InputError("mean and scale: expected both or neither, got one of them")
    given = {"mean": 0.0 if mean is None else mean, "scale": 1.0 if scale is None else scale}
    values = {}
    for name, numbers in given.items():
        numbers = np.asarray(numbers, np.float64)
        if numbers.shape not in ((), shape):
            raise InputError(f"{name}: expected one number or {shape[0]}, got shape {numbers.shape}")
        if not np.isfinite(numbers).all() or (name == "scale" and (numbers <= 0).any()):
            raise InputError(f"{name}: expected finite numbers{' above 0' * (name == 'scale')}, got others")
        values[name] = np.broadcast_to(numbers, shape).astype(np.float32)
    return jax.device_put({**values, "given": np.bool_(mean is not None)})


def fit_standardization(vectors: np.ndarray) -> Standardization:
    """Returns mean and scale of vectors `[n, d]`. Constant dimensions get the median scale of the others."""
    vectors = np.asarray(vectors, np.float64)
    mean, scale = vectors.mean(axis=0), vectors.std(axis=0)
    varies = scale > CONSTANT * np.abs(mean)
    scale[~varies] = np.median(scale[varies]) if varies.any() else max(np.abs(mean).max(), 1.0)
    return jax.device_put({"mean": np.float32(mean), "scale": np.float32(scale), "given": np.bool_(False)})


def to_rows(
    images: Any,
    shape: Shape,
    standardization: Standardization | None,
    *,
    max_value: float | None = None,
    refuse_dark: bool = False,
    what: str = "images",
) -> Any:
    """Checks images or vectors, and brings them to the rows `[n, values]` that a state computes with.

    Images are flattened (`images.flatten_images`), vectors standardized to float32.

    Args:
        images: images as in `flatten_images`, or vectors `[n, d]` of finite numbers.
        shape: shape of the state.
        standardization: that of the state; None for images.
        max_value: as in `flatten_images`.
        refuse_dark: as in `flatten_images`.
        what: name of the images in error messages.

    Raises:
        InputError: another type, rank or size, or values that are not finite or out of range.
    """
    if standardization is None:
        return flatten_images(images, shape, max_value=max_value, refuse_dark=refuse_dark, what=what)
    if isinstance(images, jax.core.Tracer):
        _check_shape(images, shape, what)
        z = (images.astype(jnp.float32) - standardization["mean"][None]) / standardization["scale"][None]
        return jnp.clip(z, -LARGEST, LARGEST)
    vectors = check_vectors(images, shape, what).astype(np.float64)
    mean, scale = (np.asarray(standardization[key], np.float64) for key in ("mean", "scale"))
    return np.clip((vectors - mean) / scale, -LARGEST, LARGEST).astype(np.float32)


def check_vectors(vectors: Any, shape: Shape, what: str = "vectors") -> np.ndarray:
    """Returns vectors `[n, d]` as an array of their own type.

    Raises:
        InputError: another shape or type, or values that are not finite.
    """
    vectors = np.asarray(vectors)
    _check_shape(vectors, shape, what)
    if vectors.dtype.kind not in "biuf" and not jnp.issubdtype(vectors.dtype, jnp.floating):
        raise InputError(f"{what}: expected numbers, got {vectors.dtype}")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise InputError(f"{what}: expected finite numbers, got NaN or infinity in vector {int(np.argmin(finite))}")
    return vectors


def _check_shape(vectors: Any, shape: Shape, what: str) -> None:
    if vectors.ndim != 2 or vectors.shape[1:] != shape:
        raise InputError(f"{what}: expected shape [n, {shape[0]}], got {vectors.shape}")


def from_rows(rows: jax.Array, standardization: Standardization | None) -> jax.Array:
    """Inverse of `to_rows` for vectors `[..., d]`; images stay as they are."""
    if standardization is None:
        return rows
    return _restore(rows, standardization)


@jax.jit
def _restore(rows: jax.Array, standardization: Standardization) -> jax.Array:
    mean, scale = (jnp.broadcast_to(standardization[key], rows.shape) for key in ("mean", "scale"))
    return rows * scale + mean


def log_volume(standardization: Standardization | None) -> Any:
    """Returns log |dz / dv| in nats, by which densities of v and of z differ; 0 for images."""
    if standardization is None:
        return 0.0
    scale = standardization["scale"]
    if isinstance(scale, jax.core.Tracer):
        return -jnp.log(scale).sum()
    return np.float32(-np.log(np.asarray(scale, np.float64)).sum())
