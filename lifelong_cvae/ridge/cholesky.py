"""Positive definite systems A x = v by the Cholesky factor of A, in the type of the factor. Traceable, with 64 bits."""

import jax
import jax.numpy as jnp


def factorize(matrix: jax.Array) -> jax.Array:
    """Factors a positive definite matrix in its own type; only its upper triangle is read."""
    # LAPACK reads columns first, so that transposing copies nothing.
    return jax.lax.linalg.cholesky(matrix.T, symmetrize_input=False)


def solve(factor: jax.Array, values: jax.Array) -> jax.Array:
    """Solves L L' x = v for x, float64 `[features, n]`, given the factor L and values v `[features, n]`."""
    return _solve_triangular(factor, _solve_triangular(factor, values, transpose=False), transpose=True)


def squared_norms(factor: jax.Array, values: jax.Array) -> jax.Array:
    """Computes v' A^-1 v = |L^-1 v|^2 of vectors v `[features, n]`: float64 `[n]`."""
    return jnp.square(_solve_triangular(factor, values, transpose=False)).sum(axis=0)


def _solve_triangular(factor: jax.Array, values: jax.Array, *, transpose: bool) -> jax.Array:
    solved = jax.lax.linalg.triangular_solve(
        factor, values.astype(factor.dtype), left_side=True, lower=True, transpose_a=transpose
    )
    return solved.astype(jnp.float64)
