import jax
import jax.numpy as jnp

from experiments.benchmarks import products, roofline
from experiments.benchmarks.config import BenchmarkConfig


def test_products_within_loops_and_maps_are_counted_with_every_turn():
    x, weights = jnp.ones((8, 3)), jnp.ones((3, 5))

    @jax.jit
    def function(x, weights):
        first = x @ weights
        return first, jax.lax.scan(lambda carry, _: (carry @ weights @ weights.T, None), x, length=7)

    counted = products.products(function, x, weights)
    assert products.flops(counted) == 2 * 8 * 3 * 5 * (1 + 2 * 7)
    mapped = products.products(jax.vmap(lambda row, x: x @ row), jnp.ones((4, 3)), jnp.ones((4, 8, 3)))
    assert products.flops(mapped) == 2 * 4 * 8 * 3
    outputs = products.alone(counted)()
    assert sorted(output.shape for output in outputs) == sorted([(8, 5)] * 8 + [(8, 3)] * 7)


def test_operations_of_a_training_step_of_the_default_network_are_those_counted_by_hand():
    config = BenchmarkConfig(0, roofline.Config(), lambda: None, {}).config
    found = roofline._training(config, False, rng=jax.random.key(0)).counted
    images, pixels, mixed, own, rank, latent = 128, 784, 400, 80, 48, 8
    forward = {
        "first": pixels * own,
        "second": (mixed + own) * own,
        "posterior": (mixed + own) * 2 * latent,
        "decoder": latent * own + (mixed + own) * own + (mixed + own) * rank + rank * pixels,
    }
    # Forwards, to the weights, and to the inputs, which the first layer does not need, and those that read
    # the encoder's mixed neurons only of the category's own.
    category = 3 * sum(forward.values()) - forward["first"] - mixed * (own + 2 * latent)
    # Through the mixed decoder neurons gradients go to z, not to weights; the encoder's are there already.
    frozen = 2 * (latent * mixed + mixed * mixed)
    networks = 2 * images * (category + frozen)
    # Besides: distances to the prior's components, forwards and backwards.
    assert networks <= products.flops(found) < 1.02 * networks
