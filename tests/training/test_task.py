"""The first task fixes the value of white; later tasks and questions follow it."""

import logging

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import InputError
from lifelong_cvae.training.task import check_task, fix_values
from tests.conftest import assert_trees_equal


@pytest.fixture(scope="module")
def fresh(small_config):
    return lifelong.init(small_config, (28, 28), rng=jax.random.key(0))


@pytest.fixture(scope="module")
def sixteen(fresh, digits):
    """Digits of 17 gray levels, and a state that has learned two of them as whole numbers."""
    levels = {name: np.rint(digits[name] / 255 * 16).astype(np.uint8) for name in "314"}
    state = fresh
    for name in "31":
        state, _ = lifelong.learn(state, {name: levels[name][:60]}, rng=jax.random.key(0))
    return levels, state


def test_learn_keeps_the_value_of_white_of_the_first_task(fresh, sixteen, tmp_path):
    levels, state = sixteen
    assert (fresh.max_value, state.max_value) == (None, 16)
    as_floats = fresh
    for name in "31":
        images = levels[name][:60] / np.float32(16)
        as_floats, _ = lifelong.learn(as_floats, {name: images}, rng=jax.random.key(0))
    assert as_floats.max_value is None
    assert_trees_equal(state.params, as_floats.params)
    lifelong.save(state, tmp_path)
    assert lifelong.load(tmp_path).max_value == 16


def test_answers_follow_the_value_of_white(sixteen):
    levels, state = sixteen
    images = levels["3"][-5:]
    floats = images / np.float32(16)
    assert_trees_equal(lifelong.evidence(state, images), lifelong.evidence(state, floats))
    assert_trees_equal(lifelong.encode(state, "1", images), lifelong.encode(state, "1", floats))
    assert lifelong.recognize(state, images.astype(float))[0].tolist() == lifelong.recognize(state, floats)[0].tolist()
    for call in (lifelong.evidence, lifelong.recognize, lambda state, images: lifelong.encode(state, "3", images)):
        with pytest.raises(InputError, match="images: expected values from 0 to 16, got whole numbers from 0 to 255"):
            call(state, np.rint(255 * floats).astype(np.uint8))


def test_learn_refuses_later_images_of_another_range(sixteen, digits, rng):
    state = sixteen[1]
    before = jax.tree.map(np.array, state.params)
    with pytest.raises(InputError, match="category '4': expected values from 0 to 16, got whole numbers from 0 to 255"):
        lifelong.learn(state, {"4": digits["4"]}, rng=rng)
    assert_trees_equal(state.params, before)


def test_learn_refuses_almost_black_images_after_bright_ones(learner, digits, rng):
    with pytest.raises(InputError, match=r"category '4': expected values from 0 to 255, got .* almost black"):
        lifelong.learn(learner, {"4": (digits["4"] > 127).astype(np.uint8)}, rng=rng)


def test_init_takes_the_value_of_white(small_config, digits):
    state = lifelong.init(small_config, (28, 28), rng=jax.random.key(0), max_value=510)
    images = digits["3"][:4]
    rows = check_task(fix_values(state, {"3": images}), {"3": images}).images["3"]
    np.testing.assert_allclose(rows, images.reshape(4, -1) / 510, rtol=1e-6)
    with pytest.raises(InputError, match="max_value: expected a number above 0, got 0"):
        lifelong.init(small_config, (28, 28), rng=jax.random.key(0), max_value=0)


def test_check_task_scales_bytes_and_floats_alike(fresh, digits):
    images = {"3": digits["3"][:4], "1": digits["1"][:4] / np.float32(255)}
    for name, rows in check_task(fresh, images).images.items():
        np.testing.assert_allclose(rows, digits[name][:4].reshape(4, -1) / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.full((5, 28, 28), 90, np.uint8), "all are the same image"),
        (np.arange(100, 105, dtype=np.uint8)[:, None, None] * np.ones((1, 28, 28), np.uint8), "one color only"),
    ],
)
def test_check_task_warns_of_images_without_content(fresh, images, words, caplog):
    with caplog.at_level(logging.WARNING, "lifelong_cvae"):
        check_task(fresh, {"x": images})
    (record,) = caplog.records
    assert words in record.getMessage()
    assert "'x'" in record.getMessage()


def test_names_in_both_unicode_forms_are_the_same(fresh, digits, rng):
    composed, decomposed = "\u00e9", "e\u0301"
    state, _ = lifelong.learn(fresh, {decomposed: digits["3"][:20]}, rng=rng)
    assert state.names == (composed,)
    state, report = lifelong.learn(state, {composed: digits["3"][20:40]}, rng=rng)
    assert (state.names, state.visits, report.names) == ((composed,), (2,), (composed,))
    images = [lifelong.imagine(state, [name], 2, rng=rng)[name] for name in (composed, decomposed)]
    assert_trees_equal(*images)
    with pytest.raises(InputError, match="expected each category once"):
        lifelong.learn(state, {composed: digits["3"][:5], decomposed: digits["3"][:5]}, rng=rng)
    state, _ = lifelong.learn(state, {"b": digits["1"][:20]}, rng=rng)
    assert lifelong.drop(state, decomposed).names == ("b",)
