import jax
import jax.numpy as jnp

from lifelong_cvae.training import compilations


def test_counts_the_compilations_of_one_function_within_the_block():
    @jax.jit
    def doubled(x):
        return 2 * x

    @jax.jit
    def tripled(x):
        return 3 * x

    short, long = jnp.ones(2), jnp.ones(3)
    doubled(short)
    with compilations.count_compilations("doubled") as own, compilations.count_compilations() as every:
        doubled(short)
        doubled(long)
        doubled(long)
        tripled(short)
    doubled(jnp.ones(4))
    assert own.count == 1
    assert every.count == 2
