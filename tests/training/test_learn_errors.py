"""Errors of `learn`: one line, and the state stays as it was."""

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.training import train
from lifelong_cvae.training.losses import TASK
from lifelong_cvae.training.train import train_chunk
from tests.conftest import assert_trees_equal, one_line

UINT8_OR_FLOAT = "images of category '9': expected uint8 or float in [0, 1], got "
SHAPE = "images of category '9': expected shape [n, 28, 28, 1], got "
NAME = "category name: expected a non-empty string of printable characters, got "


def test_learn_names_loss_term_that_is_not_finite(small_config, digits, rng):
    config = small_config.with_settings({"learning_rate": 1e30})
    state = lifelong.init(config, (28, 28), rng=rng)
    with pytest.raises(FloatingPointError, match=r"loss term real is not finite at step [1-9] of task 3, 4"):
        lifelong.learn(state, {"3": digits["3"], "4": digits["4"]}, rng=rng)


def with_infinity(carry):
    """Returns the carry with infinity in all parameters of the task's categories, and which leaves are finite."""
    subtree = jax.tree.map(np.array, carry.params["categories"][TASK])
    for leaf in jax.tree.leaves(subtree):
        leaf[0] = np.inf
    carry = carry._replace(params={**carry.params, "categories": {TASK: subtree}})
    return carry, np.stack([np.isfinite(leaf).all() for leaf in jax.tree.leaves(carry.params)])


def test_learn_names_parameter_that_is_not_finite(three_digits, digits, rng, monkeypatch):
    def train_chunk_with_infinity(carry, *arguments, **settings):
        carry, terms, finite = train_chunk(carry, *arguments, **settings)
        if int(carry.step) == 20:
            carry, finite = jax.device_put(with_infinity(carry))
        return carry, terms, finite

    monkeypatch.setattr(train, "train_chunk", train_chunk_with_infinity)
    before = jax.tree.map(np.array, three_digits)
    with pytest.raises(FloatingPointError, match=r"parameter categories/task/\S+ is not finite at step 20 of task 8"):
        lifelong.learn(three_digits, {"8": digits["8"]}, rng=rng)
    assert_trees_equal(jax.tree.map(np.array, three_digits), before)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({}, "images: expected at least one category, got none"),
        ({"": np.zeros((2, 28, 28), np.uint8)}, f"{NAME}''"),
        ({"a\nb": np.zeros((2, 28, 28), np.uint8)}, f"{NAME}'a\\nb'"),
        ({"a\x00": np.zeros((2, 28, 28), np.uint8)}, f"{NAME}'a\\x00'"),
        ({9: np.zeros((2, 28, 28), np.uint8)}, f"{NAME}9"),
        ({"9": np.zeros((0, 28, 28), np.uint8)}, "images of category '9': expected at least 2, got 0"),
        ({"9": np.zeros((1, 28, 28), np.uint8)}, "images of category '9': expected at least 2, got 1"),
        ({"9": np.zeros((2, 28, 28), np.complex64)}, f"{UINT8_OR_FLOAT}complex64"),
        ({"9": np.zeros((2, 28, 28), object)}, f"{UINT8_OR_FLOAT}object"),
        ({"9": np.zeros((28, 28), np.uint8)}, f"{SHAPE}(28, 28)"),
        ({"9": np.zeros((2, 28, 28, 3), np.uint8)}, f"{SHAPE}(2, 28, 28, 3)"),
        ({"9": np.zeros((2, 27, 28), np.uint8)}, f"{SHAPE}(2, 27, 28)"),
        (
            {"9": np.full((2, 28, 28), np.inf)},
            "images of category '9': expected finite values, got NaN or infinity in image 0",
        ),
        (
            {"9": np.full((2, 28, 28), np.nan)},
            "images of category '9': expected finite values, got NaN or infinity in image 0",
        ),
        ({"9": np.full((2, 28, 28), -0.1)}, f"{UINT8_OR_FLOAT}float outside [0, 1] in image 0"),
        ({"9": np.full((2, 28, 28), 2.0)}, f"{UINT8_OR_FLOAT}float outside [0, 1] in image 0"),
    ],
)
def test_learn_refuses_bad_input_and_leaves_state_unchanged(three_digits, rng, images, message):
    before = jax.tree.map(np.array, three_digits)
    with pytest.raises(lifelong.InputError) as error:
        lifelong.learn(three_digits, images, rng=rng)
    one_line(error, message)
    assert_trees_equal(jax.tree.map(np.array, three_digits), before)
