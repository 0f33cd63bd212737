"""The optimizer's learning rate."""

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.training.losses import TASK
from lifelong_cvae.training.optimizer import make_optimizer


def test_make_optimizer_lowers_the_rate_of_short_tasks(small_config):
    learning = small_config.with_settings({"learning_rate": 0.01, "full_rate_steps": 800}).learning
    total_steps = jnp.array([50, 200, 800, 3200])
    params = {"mixed": {"w": jnp.ones(3)}, "categories": {TASK: {"encoder": jnp.ones((4, 2))}}}
    optimizer = make_optimizer(learning, params, (TASK,), total_steps, train_mixed=False)
    # Adam's first update is the sign of the gradient.
    updates, _ = jax.jit(optimizer.update)(params, optimizer.init(params), params)
    expected = -0.01 * np.array([0.25, 0.5, 1, 1])
    np.testing.assert_allclose(updates["categories"][TASK]["encoder"], np.stack([expected] * 2, axis=1), rtol=1e-5)
    np.testing.assert_array_equal(updates["mixed"]["w"], 0)
