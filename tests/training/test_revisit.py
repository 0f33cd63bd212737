"""Revisited categories: a known category learns from new images and replays its earlier ones."""

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.state import category_rng
from tests.conftest import assert_trees_equal


def mean_evidence(state, name, images):
    return float(lifelong.evidence(state, images)[:, state.names.index(name)].mean())


@pytest.mark.slow
def test_learn_with_own_replay_keeps_earlier_images_of_revisited_category(learner, digits, mnist5k, rng):
    """The category 1 is revisited with sevens. Without replay of its ones it would become a category of sevens."""
    test_images = {name: mnist5k.read("test", name) for name in "17"}
    before = {name: mean_evidence(learner, "1", images) for name, images in test_images.items()}
    after = {}
    for weight in (1.0, 0.0):
        config = learner.config.with_settings({"playback_weight": weight})
        state, _ = lifelong.learn(learner.replace(config=config), {"1": digits["7"]}, rng=rng)
        assert int(state.params["categories"]["1"]["images"]) == 800
        after[weight] = {name: mean_evidence(state, "1", images) for name, images in test_images.items()}
    assert after[1.0]["7"] > before["7"] + 20, "sevens are learned"
    loss_with_replay, loss_without = (before["1"] - after[weight]["1"] for weight in (1.0, 0.0))
    assert loss_with_replay < 0.5 * loss_without


def test_learn_from_few_new_images_changes_revisited_category_little(three_digits, digits, mnist5k, rng):
    state, _ = lifelong.learn(three_digits, {"1": digits["7"][:5]}, rng=rng)
    before, after = (lifelong.recognize(s, mnist5k.read("test", "1"))[0] for s in (three_digits, state))
    assert (after == "1").mean() > (before == "1").mean() - 0.1
    thresholds = [s.params["categories"]["1"]["thresholds"] for s in (three_digits, state)]
    assert (thresholds[1] <= thresholds[0]).all()


def test_learn_trains_revisited_category_with_fresh_randomness(three_digits, digits, rng):
    state, report = lifelong.learn(three_digits, {"1": digits["1"]}, rng=rng)
    assert state.names == three_digits.names
    assert state.visits == (1, 2, 1)
    kernels = [s.params["categories"]["1"]["encoder"]["params"]["posterior"]["kernel"] for s in (state, three_digits)]
    assert not np.array_equal(*kernels)
    assert_trees_equal(state.params["categories"]["2"], three_digits.params["categories"]["2"])
    assert report.names == ("1",)
    # Each visit has its own batches.
    keys = [category_rng(rng, "1", visit) for visit in (0, 1)]
    assert not np.array_equal(*(jax.random.key_data(key) for key in keys))
