"""Types that the library computes in, whatever types JAX's settings select in a process."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def own_types() -> Iterator[None]:
    """Context and decorator in which JAX has its default types: no 64 bits, standard promotion.

    States, checkpoints and results are therefore the same under `jax_enable_x64` and `jax_numpy_dtype_promotion`.
    """
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield
