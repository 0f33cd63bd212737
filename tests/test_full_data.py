"""Closed-form recognizer, categories in different orders, all of MNIST: `pytest -m external`, 5 minutes."""

from pathlib import Path

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.data import open_source
from lifelong_cvae.recognition import ridge_classifier
from lifelong_cvae.state import add_category

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "mnist"

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the four files of MNIST are not in {FOLDER}"),
]


@pytest.fixture(scope="module")
def mnist():
    return open_source(f"idx:{FOLDER}")


def scores_after_order(mnist, order):
    """Scores `[10000, 10]` of all test images after the digits were learned in the given order."""
    rng = jax.random.key(0)
    state = lifelong.init(lifelong.Config(), mnist.image_shape, rng=rng)
    for name in order:
        images = mnist.read("train", name).reshape(-1, 784)
        state = ridge_classifier.update(add_category(state, name, rng=rng), {name: images}, rng=rng)
    state, _ = ridge_classifier.select_ridge(state)
    images = np.concatenate([mnist.read("test", name) for name in "0123456789"])
    return np.asarray(ridge_classifier.scores(ridge_classifier.solve(state), images))[:, np.argsort(list(order))]


@pytest.fixture(scope="module")
def scores_in_order(mnist):
    return scores_after_order(mnist, "0123456789")


def test_scores_with_same_first_category_differ_in_ties_only(mnist, scores_in_order):
    other = scores_after_order(mnist, "0938475612")
    differs = scores_in_order.argmax(axis=1) != other.argmax(axis=1)
    best = np.sort(scores_in_order[differs], axis=1)
    print(f"{differs.sum()} of {len(differs)} differ; largest difference {np.abs(scores_in_order - other).max():.1e}")
    assert (best[:, -1] - best[:, -2] < 1e-4).all()


@pytest.mark.parametrize("order", ["9876543210", "4567890123", "8470125963"])
def test_scores_with_other_first_category_give_same_answers(mnist, scores_in_order, order):
    agree = scores_in_order.argmax(axis=1) == scores_after_order(mnist, order).argmax(axis=1)
    print(f"first category {order[0]} instead of 0: {100 * agree.mean():.2f} % of the answers agree")
    assert agree.mean() >= 0.99
