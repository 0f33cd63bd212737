import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import stacked
from lifelong_cvae.stacked import category_rngs, stack_categories
from lifelong_cvae.state import add_category, category_rng
from tests.conftest import assert_trees_equal


@pytest.fixture(scope="module")
def state(small_config, rng):
    state = lifelong.init(small_config, (28, 28), rng=rng)
    for name in ("b", "T-shirt/top", "a"):
        state = add_category(state, name, rng=rng)
    return state


def test_stack_categories_keeps_order_and_pads_to_power_of_two(state, rng, monkeypatch):
    monkeypatch.setattr(stacked, "MIN_CAPACITY", 4)
    names = ("a", "b")
    stack = stack_categories(state, names)
    assert (stack.capacity, int(stack.count)) == (4, 2)
    for index, name in enumerate(names):
        assert_trees_equal(
            jax.tree.map(lambda leaf, i=index: leaf[i], stack.categories), state.params["categories"][name]
        )
    for name in ("d", "e"):
        state = add_category(state, name, rng=rng)
    assert stack_categories(state, state.names).capacity == 8


def test_stack_categories_inside_jit_gives_same_stack(state):
    inside = jax.jit(lambda s: stack_categories(s, ("b", "a")))(state)
    assert_trees_equal(inside, stack_categories(state, ("b", "a")))


def test_map_categories_equals_loop_over_categories(state):
    def norm(subtree, factor):
        # Logits of unused components are too large to be squared.
        return factor * sum(jnp.square(jnp.tanh(leaf)).sum() for leaf in jax.tree.leaves(subtree))

    stack = stack_categories(state, state.names)
    factors = np.arange(1, 1 + stack.capacity, dtype=np.float32)
    subtrees = jax.device_get(state.params["categories"])
    expected = [
        factor * sum(np.square(np.tanh(leaf)).sum() for leaf in jax.tree.leaves(subtrees[name]))
        for name, factor in zip(state.names, factors[:3], strict=True)
    ]
    mapped = jax.jit(lambda stack, factors: stack.map_categories(norm, factors))(stack, factors)
    np.testing.assert_allclose(mapped[:3], expected, rtol=1e-5)
    # Accelerators run a vmap instead of the loop.
    np.testing.assert_allclose(jax.jit(jax.vmap(norm))(stack.categories, factors)[:3], expected, rtol=1e-5)


def test_category_rngs_equal_category_rng_of_each_name(rng):
    names = ("b", "a", "ü")
    keys = category_rngs(rng, names, 4)
    expected = [category_rng(rng, name, 0) for name in (*names, "b")]
    assert [jax.random.key_data(key).tolist() for key in keys] == [
        jax.random.key_data(key).tolist() for key in expected
    ]


@pytest.mark.parametrize(("capacity", "expected"), [(0, 4), (4, 4), (9, 16)])
def test_stack_categories_has_at_least_the_given_capacity(state, monkeypatch, capacity, expected):
    monkeypatch.setattr(stacked, "MIN_CAPACITY", 4)
    assert stack_categories(state, state.names, capacity=capacity).capacity == expected


def test_group_capacity_is_at_most_that_of_a_full_group(state, monkeypatch):
    planned = state.replace(capacity=10)
    assert stacked.group_capacity(planned) == 16
    subtree = {**state.params["categories"]["a"], "ridge": {}}
    monkeypatch.setattr(stacked, "GROUP_BYTES", 8 * sum(leaf.nbytes for leaf in jax.tree.leaves(subtree)))
    assert stacked.group_capacity(planned) == 8
    assert stacked.group_capacity(planned.replace(names=(), visits=())) == 0
