"""Recognition by the evidence of all categories."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import lifelong_cvae as lifelong
from lifelong_cvae import recognition, stacked
from lifelong_cvae.stacked import category_groups, stack_categories
from lifelong_cvae.state import add_category
from tests.compiled import elbo_at, encode, sampled_elbo
from tests.conftest import one_line


@pytest.fixture
def state(learner):
    return learner


@pytest.fixture(scope="module")
def images(mnist5k):
    return np.concatenate([mnist5k.read("test", name)[:30] for name in "012"])


def with_settings(state, **settings):
    return state.replace(config=state.config.with_settings(settings))


def test_evidence_is_the_bound_of_each_category_in_order_of_learning(state, images):
    x = images.reshape(len(images), -1) / np.float32(255)
    values = lifelong.evidence(state, images)
    assert values.shape == (90, 3)
    for column, name in enumerate(("2", "0", "1")):
        model = state.model(name)
        posterior = encode(model, x)
        expected = elbo_at(model, x, posterior, posterior.mean)
        np.testing.assert_allclose(values[:, column], expected, rtol=1e-4, atol=1e-3)


def test_evidence_does_not_depend_on_the_batch_size(state, images):
    at_once = lifelong.evidence(state, images)
    in_batches = lifelong.evidence(with_settings(state, eval_batch_size=32), images)
    np.testing.assert_allclose(in_batches, at_once, rtol=1e-5, atol=1e-3)


def test_evidence_does_not_depend_on_category_groups(state, images, monkeypatch):
    expected = lifelong.evidence(state, images)
    monkeypatch.setattr(stacked, "MIN_CAPACITY", 1)
    for size, groups in ((2, 2), (1, 3)):
        leaves = jax.tree.leaves({**state.params["categories"]["0"], "ridge": {}})
        monkeypatch.setattr(stacked, "GROUP_BYTES", size * sum(leaf.nbytes for leaf in leaves))
        assert [len(names) for names in category_groups(state)] == [size] * (3 // size) + [1] * (3 % size)
        assert len(category_groups(state)) == groups
        for evidence in (lifelong.evidence, jax.jit(lifelong.evidence)):
            np.testing.assert_allclose(evidence(state, images), expected, rtol=1e-5, atol=1e-3)


def test_evidence_works_inside_jit(state, images):
    inside = jax.jit(lifelong.evidence)(state, images)
    np.testing.assert_allclose(inside, lifelong.evidence(state, images), rtol=1e-5, atol=1e-3)


def test_evidence_is_differentiable_by_images(state, images):
    x = images[:2] / np.float32(255) * np.float32(0.8) + np.float32(0.1)

    @jax.jit
    @jax.value_and_grad
    def total(x):
        return lifelong.evidence(state, x)[:, 0].sum()

    direction = np.float32(np.random.default_rng(0).normal(size=x.shape))
    step = np.float32(1e-3) * direction
    slope = (float(total(x + step)[0]) - float(total(x - step)[0])) / 2e-3
    assert float(np.vdot(total(x)[1], direction)) == pytest.approx(slope, rel=0.02)


def test_evidence_of_earlier_categories_stays_when_others_are_added(state, images, rng):
    after = add_category(add_category(state, "new", rng=rng), "and another", rng=rng)
    assert stack_categories(after, after.names).capacity > stack_categories(state, state.names).capacity
    values = lifelong.evidence(after, images)
    assert values.shape == (90, 5)
    np.testing.assert_allclose(values[:, :3], lifelong.evidence(state, images), rtol=1e-5, atol=1e-3)


@pytest.mark.slow
def test_evidence_by_sampled_bounds_is_an_average_over_the_posterior(state, images):
    few = images[:5]
    x = few.reshape(5, -1) / np.float32(255)
    model = state.model("0")
    posterior = encode(model, x)
    expected = sampled_elbo(model, x, posterior, rng=jax.random.key(9), samples=4000)
    for bound, at_least in (("sampled", -0.02), ("importance", -0.02)):
        sampling_state = with_settings(state, bound=bound, samples=500)
        values = lifelong.evidence(sampling_state, few, rng=jax.random.key(1))[:, 1]
        assert (values - expected >= at_least * np.abs(expected)).all()
        if bound == "sampled":
            np.testing.assert_allclose(values, expected, rtol=0.02)
        repeated = lifelong.evidence(sampling_state, few, rng=jax.random.key(1))[:, 1]
        np.testing.assert_array_equal(values, repeated)


def test_evidence_by_sampled_bounds_requires_rng(state, images):
    with pytest.raises(
        lifelong.InputError, match="rng: expected a key for the bound 'importance', which is sampled, got None"
    ):
        lifelong.evidence(with_settings(state, bound="importance"), images)


def test_evidence_rejects_empty_state_and_wrong_shape(small_config, state, images, rng):
    with pytest.raises(lifelong.InputError, match="expected at least one category, got none"):
        lifelong.evidence(lifelong.init(small_config, (28, 28), rng=rng), images)
    with pytest.raises(lifelong.InputError, match=r"expected shape \[n, 28, 28, 1\], got \(90, 14, 14, 1\)"):
        lifelong.evidence(state, images[:, ::2, ::2])


def test_recognize_names_the_category_of_highest_posterior(state, images):
    names, probabilities = lifelong.recognize(state, images)
    expected = special.softmax(np.asarray(lifelong.evidence(state, images), np.float64), axis=1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    assert list(names) == [("2", "0", "1")[i] for i in expected.argmax(axis=1)]
    assert (names == np.repeat(["0", "1", "2"], 30)).mean() > 0.8


def test_recognize_applies_category_priors(state, images):
    priors = {"0": 1.0, "1": 1e30, "2": 2.0}
    names, probabilities = lifelong.recognize(state, images, category_priors=priors)
    log_joint = np.asarray(lifelong.evidence(state, images), np.float64) + np.log([2.0, 1.0, 1e30])
    np.testing.assert_allclose(probabilities, special.softmax(log_joint, axis=1), atol=1e-4)
    assert len(names) == 90
    message = r"category priors: expected a positive number for each of 2, 0, 1, got \{'0': 1.0\}"
    with pytest.raises(lifelong.InputError, match=message):
        lifelong.recognize(state, images, category_priors={"0": 1.0})


def test_recognize_accepts_no_images(state):
    names, probabilities = lifelong.recognize(state, np.zeros((0, 28, 28), np.uint8))
    assert names.shape == (0,)
    assert probabilities.shape == (0, 3)


def test_log_posteriors_are_normalized():
    values = recognition.log_posteriors(jnp.asarray([[-1000.0, -1001.0], [3.0, 3.0]]))
    np.testing.assert_allclose(special.logsumexp(values, axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(values[1], np.log(0.5), rtol=1e-6)


def test_make_recognizer_requires_sums_for_the_regression(state):
    for kind in ("closed_form", "combined"):
        with pytest.raises(lifelong.InputError) as error:
            lifelong.make_recognizer(state, kind)
        one_line(error, "random_features or second_filters", "recognizer elbo")


def test_unknown_accepts_the_old_name_of_rate(state, images, caplog):
    evidence = lifelong.evidence(state, images)
    names, _ = lifelong.recognize(state, images)
    with caplog.at_level(logging.WARNING, logger="lifelong_cvae"):
        by_old_name = lifelong.unknown(state, evidence, names, part=0.4)
    assert set(by_old_name.tolist()) == {True, False}
    np.testing.assert_array_equal(by_old_name, lifelong.unknown(state, evidence, names, rate=0.4))
