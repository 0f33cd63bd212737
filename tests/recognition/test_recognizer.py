import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import lifelong_cvae as lifelong
from lifelong_cvae import recognition, stacked
from lifelong_cvae.model import cvae
from lifelong_cvae.stacked import category_groups, stack_categories
from lifelong_cvae.state import add_category


@pytest.fixture
def state(learner):
    return learner


@pytest.fixture(scope="module")
def images(mnist5k):
    return np.concatenate([mnist5k.read("test", name)[:30] for name in "012"])


def with_settings(state, **settings):
    return state.replace(config=state.config.with_settings(settings))


def test_evidence_is_each_categorys_own_bound_in_the_order_of_learning(state, images):
    x = jnp.asarray(images.reshape(len(images), -1), jnp.float32) / 255
    values = lifelong.evidence(state, images)
    assert values.shape == (90, 3)
    for column, name in enumerate(("2", "0", "1")):
        path = state.model(name)
        posterior = cvae.encode(path, x)
        expected = cvae.elbo_at(path, x, posterior, posterior.mean)
        np.testing.assert_allclose(values[:, column], expected, rtol=1e-4, atol=1e-3)


def test_blocks_change_nothing(state, images):
    whole = lifelong.evidence(state, images)
    parts = lifelong.evidence(with_settings(state, eval_batch_size=32), images)
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-3)


def test_evidence_is_the_same_with_few_categories_side_by_side_at_a_time(state, images, monkeypatch):
    whole = lifelong.evidence(state, images)
    monkeypatch.setattr(stacked, "MIN_CAPACITY", 1)
    for size, groups in ((2, 2), (1, 3)):
        category = jax.tree.leaves({**state.params["categories"]["0"], "closed_form": {}})
        monkeypatch.setattr(stacked, "GROUP_BYTES", size * sum(leaf.nbytes for leaf in category))
        assert [len(names) for names in category_groups(state)] == [size] * (3 // size) + [1] * (3 % size)
        assert len(category_groups(state)) == groups
        for evidence in (lifelong.evidence, jax.jit(lifelong.evidence)):
            np.testing.assert_allclose(evidence(state, images), whole, rtol=1e-5, atol=1e-3)


def test_evidence_works_inside_the_users_jit(state, images):
    inside = jax.jit(lifelong.evidence)(state, images)
    np.testing.assert_allclose(inside, lifelong.evidence(state, images), rtol=1e-5, atol=1e-3)


def test_evidence_has_a_gradient_with_respect_to_the_images(state, images):
    x = jnp.asarray(images[:2] / np.float32(255)) * 0.8 + 0.1

    def total(x):
        return lifelong.evidence(state, x)[:, 0].sum()

    direction = jax.random.normal(jax.random.key(0), x.shape)
    step = 1e-3 * direction
    slope = (total(x + step) - total(x - step)) / 2e-3
    assert float(jnp.vdot(jax.grad(total)(x), direction)) == pytest.approx(float(slope), rel=0.02)


def test_old_columns_stay_when_a_category_is_added(state, images, rng):
    after = add_category(add_category(state, "new", rng=rng), "and another", rng=rng)
    assert stack_categories(after, after.names).capacity > stack_categories(state, state.names).capacity
    values = lifelong.evidence(after, images)
    assert values.shape == (90, 5)
    np.testing.assert_allclose(values[:, :3], lifelong.evidence(state, images), rtol=1e-5, atol=1e-3)


@pytest.mark.slow
def test_sampled_bounds_are_averages_over_the_posterior(state, images):
    few = images[:5]
    x = jnp.asarray(few.reshape(5, -1), jnp.float32) / 255
    path = state.model("0")
    posterior = cvae.encode(path, x)
    elbo = cvae.elbo(path, x, posterior, rng=jax.random.key(9), samples=4000)
    for bound, at_least in (("sampled", -0.02), ("importance", -0.02)):
        chosen = with_settings(state, bound=bound, samples=500)
        values = lifelong.evidence(chosen, few, rng=jax.random.key(1))[:, 1]
        assert (values - elbo >= at_least * np.abs(elbo)).all()
        if bound == "sampled":
            np.testing.assert_allclose(values, elbo, rtol=0.02)
        again = lifelong.evidence(chosen, few, rng=jax.random.key(1))[:, 1]
        np.testing.assert_array_equal(values, again)


def test_sampled_bounds_ask_for_randomness(state, images):
    with pytest.raises(lifelong.InputError, match="the bound 'importance' draws samples: an rng is expected"):
        lifelong.evidence(with_settings(state, bound="importance"), images)


def test_recognise_names_the_category_of_highest_posterior(state, images):
    names, probabilities = lifelong.recognize(state, images)
    expected = special.softmax(np.asarray(lifelong.evidence(state, images), np.float64), axis=1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    assert list(names) == [("2", "0", "1")[i] for i in expected.argmax(axis=1)]
    assert (names == np.repeat(["0", "1", "2"], 30)).mean() > 0.8


def test_category_priors_enter_by_bayes_rule(state, images):
    priors = {"0": 1.0, "1": 1e30, "2": 2.0}
    names, probabilities = lifelong.recognize(state, images, category_priors=priors)
    log_joint = np.asarray(lifelong.evidence(state, images), np.float64) + np.log([2.0, 1.0, 1e30])
    np.testing.assert_allclose(probabilities, special.softmax(log_joint, axis=1), atol=1e-4)
    assert len(names) == 90
    with pytest.raises(lifelong.InputError, match="a positive number for each of 2, 0, 1 is expected"):
        lifelong.recognize(state, images, category_priors={"0": 1.0})


def test_log_posteriors_are_normalized():
    values = recognition.log_posteriors(jnp.asarray([[-1000.0, -1001.0], [3.0, 3.0]]))
    np.testing.assert_allclose(special.logsumexp(values, axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(values[1], np.log(0.5), rtol=1e-6)


def test_no_image_gives_no_answer(state):
    names, probabilities = lifelong.recognize(state, np.zeros((0, 28, 28), np.uint8))
    assert names.shape == (0,)
    assert probabilities.shape == (0, 3)


def test_nothing_learned_and_other_shapes_are_refused(small_config, state, images, rng):
    with pytest.raises(lifelong.InputError, match="no category: at least one is expected"):
        lifelong.evidence(lifelong.init(small_config, (28, 28), rng=rng), images)
    with pytest.raises(lifelong.InputError, match=r"shape \[n, 28, 28, 1\] is expected, got \(90, 14, 14, 1\)"):
        lifelong.evidence(state, images[:, ::2, ::2])
