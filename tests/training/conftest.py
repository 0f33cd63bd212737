"""States that have learned a few tasks."""

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.state import add_category

# Parts of a category's subtree that training changes.
TRAINED_PARTS = ("encoder", "decoder", "scale")


def learned_state(config, tasks, rng):
    """The state after tasks, each a mapping from category to images."""
    state = lifelong.init(config, (28, 28), rng=rng)
    for images in tasks:
        state, _ = lifelong.learn(state, images, rng=rng)
    return state


def config_in_mode(config, mode, **settings):
    return config.with_settings({"mixed_mode": mode, "base_categories": 3, **settings})


def state_with_random_values(config, names):
    """A state of `names` with random values everywhere, also where a layer starts with zeros."""
    state = lifelong.init(config, (28, 28), rng=jax.random.key(0))
    for name in names:
        state = add_category(state, name, rng=jax.random.key(0))
    leaves, structure = jax.tree.flatten(state.params)
    noise = np.random.default_rng(0)
    values = [leaf + 0.1 * noise.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    return state.replace(params=structure.unflatten(values))


@pytest.fixture(scope="session", params=["frozen", "none"])
def three_digits(request, small_config, digits, rng):
    """A state that has learned 0, 1 and 2 one after another, in mixed modes `frozen` and `none`."""
    config = small_config.with_settings({"mixed_mode": request.param, "noise_scale": "own"})
    return learned_state(config, [{name: digits[name]} for name in "012"], rng)
