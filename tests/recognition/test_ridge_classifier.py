"""The closed-form recognizer: exact in any order, independent of the networks, categories can be dropped."""

from functools import partial, reduce

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import recognition
from lifelong_cvae.model import rejection
from lifelong_cvae.recognition import ridge_classifier, ridge_learning, ridge_sums
from lifelong_cvae.ridge import features, leave_one_out, sums, temperature_scaling
from lifelong_cvae.state import add_category, parameters_per_category
from tests.compiled import extract_features
from tests.conftest import SMALL_FEATURES, assert_trees_equal, one_line

QUICK = {"min_steps": "2", "steps_per_call": "2", "epochs": "1"}
# Categories of the 400 images of the fixture `images`.
LABELS = np.repeat(list("0124"), 100)


@pytest.fixture(scope="module")
def config(small_config):
    return small_config.with_settings({**SMALL_FEATURES, **QUICK, "batch_size": "256"})


def learned_state(config, order, digits, rng):
    """State that has learned digits one after another."""
    state = lifelong.init(config, (28, 28), rng=rng)
    for name in order:
        state, _ = lifelong.learn(state, {name: digits[name]}, rng=rng)
    return state


@pytest.fixture(scope="module")
def state(config, digits, rng):
    return learned_state(config, "2014", digits, rng)


@pytest.fixture(scope="module")
def own_gram_state(config, digits, rng):
    return learned_state(config.with_settings({"gram_sharing": "own"}), "2014", digits, rng)


@pytest.fixture(scope="module")
def images(mnist5k):
    return np.concatenate([mnist5k.read("test", name) for name in "0124"])


def sorted_scores(state, images):
    """Regression scores with the categories in alphabetical order."""
    values = np.asarray(ridge_classifier.scores(ridge_classifier.solve(state), images))
    return values[:, np.argsort(state.names)]


def test_recognize_is_accurate(state, images):
    names, probabilities = lifelong.recognize(state, images)
    assert (names == LABELS).mean() > 0.93
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert probabilities[names != LABELS].max(axis=1).mean() < probabilities.max(axis=1).mean()


def by_name(state, images):
    """Names and probabilities by `closed_form`, with the categories in alphabetical order."""
    names, probabilities = lifelong.recognize(lifelong.make_recognizer(state, "closed_form"), images)
    return names, probabilities[:, np.argsort(state.names)]


def assert_answers_equal(first, second):
    """Names and probabilities are bitwise equal."""
    for left, right in zip(first, second, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("kind", ["elbo", "closed_form", "combined"])
def test_recognize_with_evidence_agrees_with_its_parts(state, images, kind):
    recognizer = lifelong.make_recognizer(state, kind)
    names, probabilities, log_evidence, scores = recognition.recognize_with_evidence(recognizer, images)
    expected_names, expected = lifelong.recognize(recognizer, images)
    assert names.tolist() == expected_names.tolist()
    np.testing.assert_array_equal(probabilities, expected)
    np.testing.assert_array_equal(log_evidence, lifelong.evidence(state, images))
    if kind == "elbo":
        assert scores is None
    else:
        np.testing.assert_array_equal(scores, ridge_classifier.scores(recognizer.classifier, images))


slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize("order", [slow("0124"), "4210", slow("1402")])
def test_recognize_by_closed_form_does_not_depend_on_the_order(state, config, digits, rng, images, order):
    assert_answers_equal(by_name(state, images), by_name(learned_state(config, order, digits, rng), images))


@pytest.mark.parametrize("tasks", [slow(("2", "014")), ("04", "12"), slow(("4120",))])
def test_recognize_by_closed_form_does_not_depend_on_the_grouping(state, config, digits, rng, images, tasks):
    other = lifelong.init(config, (28, 28), rng=rng)
    for task in tasks:
        other, _ = lifelong.learn(other, {name: digits[name] for name in task}, rng=rng)
    assert_answers_equal(by_name(state, images), by_name(other, images))


def test_recognize_with_two_layers_does_not_depend_on_the_order(config, digits, rng, images):
    settings = {"second_filters": 8, "random_features": 0, "fold_mirrors": True}
    first, second = (learned_state(config.with_settings(settings), order, digits, rng) for order in ("01", "10"))
    images = images[:200]
    answers = by_name(first, images)
    assert_answers_equal(answers, by_name(second, images))
    assert (answers[0] == LABELS[:200]).mean() > 0.93


def test_recognize_by_closed_form_does_not_depend_on_batches_or_the_seed(state, config, digits, images, monkeypatch):
    expected = by_name(state, images)
    one_by_one = [by_name(state, images[index : index + 1]) for index in range(0, 400, 50)]
    np.testing.assert_array_equal(np.concatenate([p for _, p in one_by_one]), expected[1][::50])
    monkeypatch.setattr(features, "BATCH_SIZES", (16, 64))
    other = learned_state(config, "0124", digits, jax.random.key(8))
    assert_answers_equal(expected, by_name(other, images))


def test_recognize_breaks_ties_by_name(config, digits, rng):
    state = lifelong.init(config, (28, 28), rng=rng)
    for name, digit in (("same b", "0"), ("other", "1"), ("same a", "0")):
        state, _ = lifelong.learn(state, {name: digits[digit][:120]}, rng=rng)
    names, probabilities = lifelong.recognize(state, digits["0"][120:140])
    np.testing.assert_array_equal(probabilities[:, 0], probabilities[:, 2])
    assert set(names) == {"same a"}


def test_update_does_not_affect_the_networks(state, config, digits, rng, images):
    # The networks learn from the images that the regression does not hold out.
    image_statistics = ("thresholds", "images")
    train_images = {name: np.delete(values, np.s_[19::20], axis=0) for name, values in digits.items()}
    elbo_config = config.with_settings({"random_features": 0, "recognizer": "elbo"})
    without = learned_state(elbo_config, "2014", train_images, rng)
    assert_trees_equal(without.params["mixed"], state.params["mixed"])
    for name, subtree in without.params["categories"].items():
        networks = {key: part for key, part in subtree.items() if key not in image_statistics}
        assert_trees_equal({key: state.params["categories"][name][key] for key in networks}, networks)
    np.testing.assert_array_equal(lifelong.evidence(without, images), lifelong.evidence(state, images))
    assert "ridge" not in without.params


def test_update_leaves_earlier_categories_bitwise_equal(state, config, digits, rng):
    before = learned_state(config, "20", digits, rng)
    for name in "20":
        assert_trees_equal(before.params["categories"][name], state.params["categories"][name])
    assert_trees_equal(before.params["ridge"]["dictionary"], state.params["ridge"]["dictionary"])


def test_update_adds_the_images_of_a_revisited_category(state, digits, rng):
    revisited, _ = lifelong.learn(state, {"0": digits["0"][:100]}, rng=rng)
    before, after = (sums.decode(s.params["categories"]["0"]["ridge"]["sum"]["all"]) for s in (state, revisited))
    assert after[-1] == 2 * before[-1] == 2 << sums.VECTOR_BITS
    assert_trees_equal(revisited.params["ridge"]["dictionary"], state.params["ridge"]["dictionary"])


@pytest.fixture(scope="module")
def task(state, digits, rng):
    """A state with two new categories, their images, and the result of `update`."""
    images = {"3": digits["1"][:30].reshape(30, -1), "5": digits["0"][:45].reshape(45, -1)}
    grown = reduce(partial(add_category, rng=rng), images, state)
    grown = grown.replace(visits=(*state.visits, 1, 1))
    return grown, images, *ridge_sums.update(grown, images)


def test_update_and_add_held_out_add_the_means_over_all_images(task):
    grown, images, updated, held_out = task
    dictionary, settings = grown.params["ridge"]["dictionary"], grown.config.closed_form
    expand = features.expansion_matrix(settings, grown.image_shape)
    completed = ridge_sums.add_held_out(updated, held_out)
    added = 0
    for name, rows in images.items():
        phi = np.float64(extract_features(dictionary, expand, rows, image_shape=grown.image_shape, settings=settings))
        added += phi.T @ phi / len(phi)
        vector = sums.decode(completed.params["categories"][name]["ridge"]["sum"]["all"])
        np.testing.assert_allclose(np.ldexp(vector[:-1], -sums.VECTOR_BITS), phi.mean(axis=0), atol=1e-8)
        assert vector[-1] == 2**sums.VECTOR_BITS
    diagonal = np.arange(len(added), dtype=np.int32)
    with jax.enable_x64(True):
        before, after = (
            sums.gram_elements(ridge_sums.common_gram(s, "all"), diagonal, diagonal[::-1], len(added))
            for s in (grown, completed)
        )
    elements = added[diagonal, diagonal[::-1]]
    np.testing.assert_allclose(np.ldexp(after - before, -sums.GRAM_BITS), elements, atol=1e-5)


def test_update_leaves_held_out_images_to_add_held_out(task):
    _, images, updated, held_out = task
    assert {name: part.phi.count for name, part in held_out.items()} == {"3": 2, "5": 2}
    for name, rows in images.items():
        share = sums.decode(updated.params["categories"][name]["ridge"]["sum"]["all"])[-1] / 2**sums.VECTOR_BITS
        assert share == pytest.approx(1 - held_out[name].phi.count / len(rows))


def test_update_weights_categories_equally(config, digits, rng, mnist5k):
    state = lifelong.init(config, (28, 28), rng=rng)
    for name, count in (("2", 400), ("0", 400), ("1", 10)):
        state, _ = lifelong.learn(state, {name: digits[name][:count]}, rng=rng)
    names, _ = lifelong.recognize(state, mnist5k.read("test", "1"))
    assert (names == "1").mean() > 0.9


def test_solve_does_not_depend_on_gram_sharing(state, own_gram_state, images):
    np.testing.assert_allclose(sorted_scores(own_gram_state, images), sorted_scores(state, images), atol=1e-3)
    assert "gram" not in own_gram_state.params["ridge"]


def test_drop_is_exact_with_own_grams(own_gram_state, config, digits, rng, images):
    dropped = lifelong.drop(own_gram_state, "1")
    never_learned = learned_state(config.with_settings({"gram_sharing": "own"}), "204", digits, rng)
    for key in ("dictionary", "ridge"):
        assert_trees_equal(dropped.params["ridge"][key], never_learned.params["ridge"][key])
    for name, expected in never_learned.params["categories"].items():
        subtree = dropped.params["categories"][name]
        assert_trees_equal({**subtree, "ridge": None}, {**expected, "ridge": None})
        for key in ("sum", "gram"):
            assert_trees_equal(subtree["ridge"][key], expected["ridge"][key])
    np.testing.assert_array_equal(sorted_scores(dropped, images), sorted_scores(never_learned, images))


def test_drop_keeps_the_mixed_gram(state, images):
    dropped = lifelong.drop(state, "1")
    names, probabilities = lifelong.recognize(dropped, images)
    assert probabilities.shape == (400, 3)
    assert "1" not in names
    assert (names == LABELS)[LABELS != "1"].mean() > 0.93
    assert_trees_equal(dropped.params["ridge"], state.params["ridge"])


def test_select_ridge_is_determined_by_the_sums(state):
    other = {**state.params["ridge"], "ridge": np.float32(10)}
    reselected = ridge_sums.select_ridge(state.replace(params={**state.params, "ridge": other}))
    assert float(reselected.params["ridge"]["ridge"]) == float(state.params["ridge"]["ridge"])


def test_checkpoint_restores_the_sums(state, own_gram_state, tmp_path, images):
    for index, saved in enumerate((state, own_gram_state)):
        folder = tmp_path / str(index)
        lifelong.save(saved, folder)
        loaded = lifelong.load(folder)
        assert_trees_equal(loaded.params, saved.params)
        np.testing.assert_array_equal(sorted_scores(loaded, images[:20]), sorted_scores(saved, images[:20]))


def test_recognize_accepts_a_recognizer(state, images):
    recognizer = lifelong.make_recognizer(state)
    assert recognizer.kind == "closed_form"
    for first, second in zip(
        lifelong.recognize(recognizer, images[:50]), lifelong.recognize(state, images[:50]), strict=True
    ):
        np.testing.assert_array_equal(first, second)


def test_log_likelihoods_of_elbo_are_the_evidence(state, images):
    recognizer = lifelong.make_recognizer(state, "elbo")
    likelihoods = recognition.log_likelihoods(recognizer, images)
    np.testing.assert_array_equal(likelihoods, lifelong.evidence(state, images))


def test_log_likelihoods_weight_scores_and_evidence(state, images):
    scores = np.asarray(ridge_classifier.scores(ridge_classifier.solve(state), images))
    evidence = np.asarray(lifelong.evidence(state, images))
    for kind in ("closed_form", "combined"):
        recognizer = lifelong.make_recognizer(state, kind)
        assert recognizer.score_weight > 0
        assert (recognizer.elbo_weight > 0) == (kind == "combined")
        expected = recognizer.score_weight * scores + recognizer.elbo_weight * evidence
        np.testing.assert_allclose(recognition.log_likelihoods(recognizer, images), expected, rtol=1e-4, atol=1e-3)


def test_calibrate_fits_grids_to_held_out_images(config, digits, rng):
    state = learned_state(config, "240", digits, rng)
    held_out = digits["0"][19::20]
    # Regressions that leave one of the held-out images of the last task out.
    grown = add_category(learned_state(config, "24", digits, rng), "0", rng=rng).replace(visits=(1, 1, 1))
    updated, pending = ridge_sums.update(grown, {"0": digits["0"].reshape(-1, 784)})
    completed = ridge_sums.select_ridge(ridge_sums.add_held_out(updated, pending))
    found, _ = ridge_classifier.leave_one_out_scores(completed, {"0": pending["0"].phi}, {"0": len(digits["0"])})
    evidence, scores = np.asarray(lifelong.evidence(state, held_out)), found["0"]
    grids = [np.asarray(state.params["categories"][name]["ridge"]["calibration"]) for name in "240"]
    # Two alternatives, so the losses count twice.
    expected = 2 * temperature_scaling.loss_grid(evidence, scores, 2)
    np.testing.assert_allclose(grids[2], expected, rtol=1e-4, atol=1e-5)
    assert not grids[0].any()
    assert grids[1].any()


def test_held_out_scores_of_many_categories_are_those_of_the_weights(state, digits, monkeypatch):
    classifier = ridge_classifier.solve(state)
    phi = {
        name: ridge_classifier.extract_features(classifier, digits[name][:count])
        for name, count in zip("41", (9, 2), strict=True)
    }
    usual, own_mean = ridge_classifier.held_out_scores(state, phi)
    monkeypatch.setattr(ridge_classifier, "MANY_CATEGORIES", 1)
    monkeypatch.setattr(ridge_classifier, "CATEGORIES_PER_IMAGE", 0)
    found, found_mean = ridge_classifier.held_out_scores(state, phi)
    assert found.keys() == usual.keys() == phi.keys()
    for name, values in usual.items():
        np.testing.assert_allclose(values, ridge_classifier.scores_from_features(classifier, phi[name]))
        np.testing.assert_allclose(found[name], values, atol=1e-3)
    assert found_mean == pytest.approx(float(own_mean), abs=1e-3)


def test_leave_one_out_scores_are_near_those_of_held_out_images(task):
    _, images, updated, held_out = task
    completed = ridge_sums.select_ridge(ridge_sums.add_held_out(updated, held_out))
    without = ridge_sums.with_ridge(updated, completed.params["ridge"]["ridge"])
    phi = {name: part.phi for name, part in held_out.items()}
    found, classifier = ridge_classifier.leave_one_out_scores(completed, phi, {n: len(x) for n, x in images.items()})
    expected, _ = ridge_classifier.held_out_scores(without, phi)
    assert found.keys() == phi.keys()
    for name, values in found.items():
        fitted = np.asarray(ridge_classifier.scores_from_features(classifier, phi[name]))
        column = completed.names.index(name)
        assert (values[:, column] < fitted[:, column]).all()
        np.testing.assert_allclose(values, expected[name], atol=0.1)
    assert_trees_equal(classifier, ridge_classifier.solve(completed))


def test_learn_regression_leaves_all_held_out_images_out_where_leverages_are_high(task, monkeypatch):
    grown, images, updated, held_out = task
    learned = ridge_learning.learn_regression(grown, images)
    assert learned.classifier is not None
    monkeypatch.setattr(leave_one_out, "MAX_LEVERAGE", 0.0)
    refused = ridge_learning.learn_regression(grown, images)
    assert refused.classifier is None
    assert_trees_equal(refused.state, learned.state)
    without = ridge_sums.with_ridge(updated, refused.state.params["ridge"]["ridge"])
    expected, own_mean = ridge_classifier.held_out_scores(without, {name: part.phi for name, part in held_out.items()})
    assert_trees_equal((refused.scores, refused.own_mean), (expected, own_mean))


def test_learn_reports_the_solved_regression(state, config, digits, rng):
    learned, report = lifelong.learn(state, {"3": digits["3"][:40]}, rng=rng)
    assert_trees_equal(report.classifier, ridge_classifier.solve(learned))
    recognizer = lifelong.make_recognizer(learned, classifier=report.classifier)
    assert recognizer.classifier is report.classifier
    _, first = lifelong.learn(lifelong.init(config, (28, 28), rng=rng), {"3": digits["3"][:40]}, rng=rng)
    assert first.classifier is None


def test_calibrate_fits_thresholds_to_relative_scores_of_held_out_images(state, digits, images):
    # The last category's thresholds came from a regression without its held-out images.
    thresholds = np.asarray(state.params["categories"]["4"]["ridge"]["thresholds"])
    classifier = ridge_classifier.solve(state)
    relative = np.asarray(ridge_classifier.scores(classifier, digits["4"][19::20])) - classifier.own_mean
    resolved = np.asarray(rejection.RATES) >= 1 / 20  # of 20 images
    expected = np.quantile(relative[:, state.names.index("4")], np.asarray(rejection.RATES)[resolved])
    np.testing.assert_allclose(thresholds[resolved], expected, atol=0.15)
    assert np.asarray(state.params["categories"]["2"]["ridge"]["thresholds"]).max() == np.float32(rejection.NEVER)


def test_solve_returns_the_mean_score_of_own_images(state, digits):
    classifier = ridge_classifier.solve(state)
    scores = [np.asarray(ridge_classifier.scores(classifier, digits[name])) for name in state.names]
    own = [values[:, column].mean() for column, values in enumerate(scores)]
    assert classifier.own_mean == pytest.approx(np.mean(own), abs=1e-3)


@pytest.mark.slow
def test_solve_of_one_small_category_with_default_features(mnist5k, rng):
    # Few images of many features: the covariance has little rank, and its rounding must not make it indefinite.
    images = mnist5k.read("train", "1")
    state = add_category(lifelong.init(lifelong.Config(), (28, 28, 1), rng=rng), "1", rng=rng).replace(visits=(1,))
    state = ridge_sums.add_held_out(*ridge_sums.update(state, {"1": images.reshape(len(images), -1)}))
    scores = ridge_classifier.scores(ridge_classifier.solve(state), images)
    np.testing.assert_allclose(scores, 1, atol=1e-3)


def test_unknown_with_scores_flags_more_digits_that_were_not_learned(state, images, mnist5k):
    recognizer = lifelong.make_recognizer(state, "combined")
    rejected, by_evidence = {}, {}
    for kind, batch in (("known", images), ("not learned", mnist5k.read("test", "7"))):
        evidence = lifelong.evidence(state, batch)
        scores = ridge_classifier.scores(recognizer.classifier, batch)
        names, _ = lifelong.recognize(recognizer, batch)
        rejected[kind] = lifelong.unknown(recognizer, evidence, names, scores=scores, rate=0.1).mean()
        by_evidence[kind] = lifelong.unknown(recognizer, evidence, names, rate=0.1).mean()
    assert rejected["known"] < 0.25
    assert rejected["not learned"] > by_evidence["not learned"] + 0.1


def test_recognize_accepts_no_images(state, images):
    names, probabilities = lifelong.recognize(state, images[:0])
    assert names.shape == (0,)
    assert probabilities.shape == (0, 4)


def test_make_recognizer_rejects_an_unknown_kind(state):
    with pytest.raises(lifelong.InputError) as error:
        lifelong.make_recognizer(state, "nearest")
    one_line(error, "recognizer: expected one of", "closed_form", "got 'nearest'")


def test_make_recognizer_rejects_a_state_without_sums_or_categories(small_config, config, rng):
    with pytest.raises(lifelong.InputError) as error:
        lifelong.make_recognizer(lifelong.init(small_config, (28, 28), rng=rng), "closed_form")
    one_line(error, "second_filters above 0, got 0", "elbo")
    with pytest.raises(lifelong.InputError) as error:
        lifelong.make_recognizer(lifelong.init(config, (28, 28), rng=rng))
    one_line(error, "expected at least one category, got none")


def test_config_rejects_closed_form_without_random_features(config):
    with pytest.raises(lifelong.InputError) as error:
        config.with_settings({"random_features": 0})
    one_line(error, "recognizer=closed_form", "expected random_features or second_filters above 0, got 0")


def test_recognize_rejects_images_of_a_wrong_shape(state, images):
    with pytest.raises(lifelong.InputError) as error:
        lifelong.recognize(state, images[:, :9])
    one_line(error, "expected shape", "(400, 9, 28, 1)")


def test_parameters_per_category_include_the_sums(state, small_config):
    without = lifelong.init(small_config, (28, 28), rng=jax.random.key(0))
    assert parameters_per_category(state) == (
        parameters_per_category(without) + 2 * (297 + 75) + 9 + np.prod(temperature_scaling.GRID_SHAPE)
    )
