"""The closed-form recognizer of a learner: exact in any order, apart from the networks, droppable."""

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import recognition
from lifelong_cvae.recognition import ridge_classifier
from lifelong_cvae.ridge import temperature_scaling
from tests.conftest import SMALL_FEATURES, assert_trees_equal, one_line

QUICK = {"min_steps": "2", "steps_per_call": "2", "epochs": "1"}


@pytest.fixture(scope="module")
def config(small_config):
    return small_config.with_settings({**SMALL_FEATURES, **QUICK, "batch_size": "256"})


def learned(config, order, digits, rng):
    state = lifelong.init(config, (28, 28), rng=rng)
    for name in order:
        state, _ = lifelong.learn(state, {name: digits[name]}, rng=rng)
    return state


@pytest.fixture(scope="module")
def state(config, digits, rng):
    return learned(config, "2014", digits, rng)


@pytest.fixture(scope="module")
def part(config, digits, rng):
    return learned(config.with_settings({"gram_sharing": "own"}), "2014", digits, rng)


@pytest.fixture(scope="module")
def images(mnist5k):
    return np.concatenate([mnist5k.read("test", name) for name in "0124"])


def truth():
    return np.repeat(list("0124"), 100)


def scores(state, images):
    """Scores with the categories in label order."""
    values = np.asarray(ridge_classifier.scores(ridge_classifier.solve(state), images))
    return values[:, np.argsort(state.names)]


def test_digits_are_recognised(state, images):
    names, probabilities = lifelong.recognize(state, images)
    assert (names == truth()).mean() > 0.93
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert probabilities[names != truth()].max(axis=1).mean() < probabilities.max(axis=1).mean()


def test_the_order_does_not_matter_once_the_first_category_is_there(state, config, digits, rng, images):
    other = learned(config, "2410", digits, rng)
    first, second = scores(state, images), scores(other, images)
    np.testing.assert_allclose(first, second, atol=1e-3)
    assert (first.argmax(axis=1) == second.argmax(axis=1)).all()


def test_another_first_category_gives_other_features_and_much_the_same_answers(state, config, digits, rng, images):
    other = learned(config, "0214", digits, rng)
    first, second = scores(state, images), scores(other, images)
    assert np.abs(first - second).max() > 0.01
    assert (first.argmax(axis=1) == second.argmax(axis=1)).mean() > 0.9


def test_the_networks_do_not_know_of_it(state, config, digits, rng, images):
    # They learn from what the regression does not hold out.
    counted = ("thresholds", "images")
    rest = {name: np.delete(values, np.s_[19::20], axis=0) for name, values in digits.items()}
    without = learned(config.with_settings({"random_features": 0, "recognizer": "elbo"}), "2014", rest, rng)
    assert_trees_equal(without.params["mixed"], state.params["mixed"])
    for name, subtree in without.params["categories"].items():
        own = {part: state.params["categories"][name][part] for part in subtree if part not in counted}
        assert_trees_equal({part: subtree[part] for part in own}, own)
    np.testing.assert_array_equal(lifelong.evidence(without, images), lifelong.evidence(state, images))
    assert "closed_form" not in without.params


def test_what_a_category_owns_stays_bitwise_when_others_come(state, config, digits, rng):
    before = learned(config, "20", digits, rng)
    for name in "20":
        assert_trees_equal(before.params["categories"][name], state.params["categories"][name])
    assert_trees_equal(before.params["ridge"]["dictionary"], state.params["ridge"]["dictionary"])


def test_a_share_of_its_own_is_no_other_regression(state, own, images):
    np.testing.assert_allclose(scores(own, images), scores(state, images), atol=1e-3)
    assert "gram" not in own.params["ridge"]


def test_dropping_is_exact_with_shares_of_their_own(own, config, digits, rng, images):
    dropped = lifelong.drop(own, "1")
    never = learned(config.with_settings({"gram_sharing": "own"}), "204", digits, rng)
    for key in ("dictionary", "ridge"):
        assert_trees_equal(dropped.params["ridge"][key], never.params["ridge"][key])
    for name, subtree in never.params["categories"].items():
        own = dropped.params["categories"][name]
        assert_trees_equal({**own, "closed_form": None}, {**subtree, "closed_form": None})
        for key in ("sum", "gram"):
            assert_trees_equal(own["ridge"][key], subtree["ridge"][key])
    np.testing.assert_array_equal(scores(dropped, images), scores(never, images))


def test_without_shares_a_dropped_category_is_not_named_and_its_gram_stays(state, images):
    dropped = lifelong.drop(state, "1")
    names, probabilities = lifelong.recognize(dropped, images)
    assert probabilities.shape == (400, 3)
    assert "1" not in names
    assert (names == truth())[truth() != "1"].mean() > 0.93
    assert_trees_equal(dropped.params["ridge"], state.params["ridge"])


def test_the_ridge_is_the_one_that_the_sums_ask_for(state):
    again, _ = ridge_classifier.select_ridge(state)
    assert float(again.params["ridge"]["ridge"]) == float(state.params["ridge"]["ridge"])
    blank = {**state.params["ridge"], "ridge": np.float32(10)}
    elsewhere, _ = ridge_classifier.select_ridge(state.replace(params={**state.params, "closed_form": blank}))
    assert_trees_equal(elsewhere.params["ridge"]["ridge"], again.params["ridge"]["ridge"])


def test_a_category_with_few_images_weighs_as_much_as_the_others(config, digits, rng, mnist5k):
    state = lifelong.init(config, (28, 28), rng=rng)
    for name, count in (("2", 400), ("0", 400), ("1", 10)):
        state, _ = lifelong.learn(state, {name: digits[name][:count]}, rng=rng)
    names, _ = lifelong.recognize(state, mnist5k.read("test", "1"))
    assert (names == "1").mean() > 0.9


def test_a_category_that_returns_adds_its_new_images(state, digits, rng):
    again, _ = lifelong.learn(state, {"0": digits["0"][:100]}, rng=rng)
    before, after = (s.params["categories"]["0"]["ridge"]["sum"]["fit"] for s in (state, again))
    assert float(after[-1]) == pytest.approx(float(before[-1]) * 2, rel=1e-4)
    assert_trees_equal(again.params["ridge"]["dictionary"], state.params["ridge"]["dictionary"])


def test_a_checkpoint_holds_it(state, own, tmp_path, images):
    for index, kept in enumerate((state, own)):
        folder = tmp_path / str(index)
        lifelong.save(kept, folder)
        loaded = lifelong.load(folder)
        assert_trees_equal(loaded.params, kept.params)
        np.testing.assert_array_equal(scores(loaded, images[:20]), scores(kept, images[:20]))


def test_a_recogniser_that_was_made_ready_answers_the_same(state, images):
    ready = lifelong.make_recognizer(state)
    assert ready.kind == "closed_form"
    for first, second in zip(
        lifelong.recognize(ready, images[:50]), lifelong.recognize(state, images[:50]), strict=True
    ):
        np.testing.assert_array_equal(first, second)


def test_the_elbo_can_be_asked_for_instead(state, images):
    asked = lifelong.make_recognizer(state, "elbo")
    likelihoods = recognition.log_likelihoods(asked, images)
    np.testing.assert_array_equal(likelihoods, lifelong.evidence(state, images))


def test_likelihoods_are_scores_and_evidence_each_over_its_temperature(state, images):
    scores, evidence = (
        np.asarray(ridge_classifier.scores(ridge_classifier.solve(state), images)),
        np.asarray(lifelong.evidence(state, images)),
    )
    for kind in ("closed_form", "combined"):
        asked = lifelong.make_recognizer(state, kind)
        assert asked.score_weight > 0
        assert (asked.elbo_weight > 0) == (kind == "combined")
        expected = asked.score_weight * scores + asked.elbo_weight * evidence
        np.testing.assert_allclose(recognition.log_likelihoods(asked, images), expected, rtol=1e-4, atol=1e-3)


def test_tables_are_of_images_that_the_regression_held_out(config, digits, rng):
    before = learned(config, "20", digits, rng)
    images = digits["0"][19::20]
    _, classifier = ridge_classifier.select_ridge(before)
    expected = temperature_scaling.loss_grid(
        np.asarray(lifelong.evidence(before, images)), np.asarray(ridge_classifier.scores(classifier, images)), 1
    )
    tables = [before.params["categories"][name]["ridge"]["calibration"] for name in "20"]
    np.testing.assert_allclose(tables[1], expected, rtol=1e-4, atol=1e-5)
    assert not np.asarray(tables[0]).any()


def test_no_images_have_no_answers(state, images):
    names, probabilities = lifelong.recognize(state, images[:0])
    assert names.shape == (0,)
    assert probabilities.shape == (0, 4)


def test_what_cannot_be_asked_is_refused(state, small_config, config, images, rng):
    with pytest.raises(lifelong.InputError) as error:
        lifelong.make_recognizer(state, "nearest")
    one_line(error, "nearest", "closed_form")
    with pytest.raises(lifelong.InputError) as error:
        lifelong.make_recognizer(lifelong.init(small_config, (28, 28), rng=rng), "closed_form")
    one_line(error, "random_features=0", "elbo")
    with pytest.raises(lifelong.InputError) as error:
        lifelong.make_recognizer(lifelong.init(config, (28, 28), rng=rng))
    one_line(error, "no category")
    with pytest.raises(lifelong.InputError) as error:
        config.with_settings({"random_features": 0})
    one_line(error, "random_features=0", "elbo")
    with pytest.raises(lifelong.InputError) as error:
        lifelong.recognize(state, images[:, :9])
    one_line(error, "shape")


def test_parameters_of_a_category_include_its_sums(state, small_config):
    from lifelong_cvae.state import parameters_per_category

    without = lifelong.init(small_config, (28, 28), rng=jax.random.key(0))
    assert parameters_per_category(state) == (
        parameters_per_category(without) + 2 * 81 + np.prod(temperature_scaling.GRID_SHAPE)
    )
