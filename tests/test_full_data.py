"""Closed-form recognizer, categories in different orders, all of MNIST: `pytest -m external`, 5 minutes."""

from pathlib import Path

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.data import open_source
from lifelong_cvae.recognition import ridge_sums
from lifelong_cvae.state import add_category

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "mnist"

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the four files of MNIST are not in {FOLDER}"),
]


@pytest.fixture(scope="module")
def mnist():
    return open_source(f"idx:{FOLDER}")


def answers_after_order(mnist, order):
    """Names `[10000]` and p(c|x) `[10000, 10]` of all test images after the digits were learned in the given order."""
    rng = jax.random.key(int(order[0]))
    state = lifelong.init(lifelong.Config(), mnist.image_shape, rng=rng)
    for name in order:
        state = add_category(state, name, rng=rng)
        state = state.replace(visits=(*state.visits[:-1], 1))
        updated = ridge_sums.update(state, {name: mnist.read("train", name).reshape(-1, 784)})
        state = ridge_sums.add_held_out(*updated)
    state = ridge_sums.select_ridge(state)
    images = np.concatenate([mnist.read("test", name) for name in "0123456789"])
    names, probabilities = lifelong.recognize(lifelong.make_recognizer(state, "closed_form"), images)
    return names, probabilities[:, np.argsort(list(order))]


@pytest.fixture(scope="module")
def answers_in_order(mnist):
    return answers_after_order(mnist, "0123456789")


@pytest.mark.parametrize("order", ["9876543210", "4567890123", "8470125963"])
def test_answers_are_bitwise_the_same_in_every_order(mnist, answers_in_order, order):
    names, probabilities = answers_after_order(mnist, order)
    np.testing.assert_array_equal(names, answers_in_order[0])
    np.testing.assert_array_equal(probabilities, answers_in_order[1])
