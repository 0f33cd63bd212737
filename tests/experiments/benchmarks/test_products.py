import jax
import jax.numpy as jnp

from experiments.benchmarks import products, roofline
from lifelong_cvae.config import Config


def test_matrix_products_counts_every_turn_of_loops_and_maps():
    x, weights = jnp.ones((8, 3)), jnp.ones((3, 5))

    @jax.jit
    def function(x, weights):
        first = x @ weights
        return first, jax.lax.scan(lambda carry, _: (carry @ weights @ weights.T, None), x, length=7)

    counts = products.matrix_products(function, x, weights)
    assert products.total_flops(counts) == 2 * 8 * 3 * 5 * (1 + 2 * 7)
    mapped = products.matrix_products(jax.vmap(lambda row, x: x @ row), jnp.ones((4, 3)), jnp.ones((4, 8, 3)))
    assert products.total_flops(mapped) == 2 * 4 * 8 * 3


def test_products_runner_computes_every_product():
    x, weights = jnp.ones((8, 3)), jnp.ones((3, 5))

    def function(x):
        return jax.lax.scan(lambda carry, _: (carry @ weights @ weights.T, None), x, length=7)

    outputs = products.products_runner(products.matrix_products(function, x))()
    assert sorted(output.shape for output in outputs) == sorted([(8, 5)] * 7 + [(8, 3)] * 7)


def test_matrix_products_of_training_equal_a_count_by_hand():
    work = roofline._training_work(Config(), False, rng=jax.random.key(0))
    images, pixels, mixed, category, rank, latent = 128, 784, 400, 80, 48, 8
    forward = {
        "first": pixels * category,
        "second": (mixed + category) * category,
        "posterior": (mixed + category) * 2 * latent,
        "decoder": latent * category + (mixed + category) * category + (mixed + category) * rank + rank * pixels,
    }
    # Forward, and gradients of weights and of inputs. Gradients of inputs are not needed for the first layer, nor
    # for the encoder's mixed activations.
    trained = 3 * sum(forward.values()) - forward["first"] - mixed * (category + 2 * latent)
    # The mixed decoder is frozen: forward, and gradients of z. The encoder's mixed activations are precomputed.
    frozen = 2 * (latent * mixed + mixed * mixed)
    networks = 2 * images * (trained + frozen)
    # The rest: distances to the components of the prior, forward and backward.
    assert networks <= products.total_flops(work.step_products) < 1.02 * networks
