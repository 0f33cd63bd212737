"""`LifelongClassifier`: the estimator for scikit-learn."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import lifelong_cvae as lifelong
from lifelong_cvae import InputError, LifelongClassifier
from tests.conftest import assert_trees_equal

SETTINGS = {
    "mixed_widths": "16",
    "category_widths": "8",
    "output_rank": "4",
    "latent_size": "2",
    "epochs": "1",
    "min_steps": "40",
    "steps_per_call": "20",
    "batch_size": "16",
    "prior_components": "1",
    "noise_rank": "0",
    "random_features": "64",
    "learning_rate": "0.01",
}
LABELS = np.asarray([10, 3, 7])


def blobs(count, seed):
    """Returns vectors of three categories far apart, and their labels."""
    numbers = np.random.default_rng(seed)
    means = 8 * np.random.default_rng(0).standard_normal((3, 5))
    x = np.concatenate([mean + numbers.standard_normal((count, 5)) for mean in means])
    return x, np.repeat(LABELS, count)


def estimator(**options):
    return LifelongClassifier(settings=SETTINGS, random_state=0, **options)


@pytest.fixture(scope="module")
def taught():
    """An estimator that was taught one category after another."""
    x, y = blobs(60, 1)
    learner = estimator()
    for label in LABELS:
        learner.partial_fit(x[y == label], y[y == label], classes=LABELS)
    return learner


def test_partial_fit_recognizes_all_categories_so_far(taught):
    x, y = blobs(40, 2)
    assert taught.score(x, y) > 0.97
    np.testing.assert_array_equal(taught.classes_, [3, 7, 10])
    probabilities = taught.predict_proba(x)
    assert probabilities.shape == (120, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(taught.classes_[probabilities.argmax(axis=1)], taught.predict(x))
    np.testing.assert_allclose(taught.decision_function(x), np.log(probabilities), rtol=1e-4, atol=1e-4)


def test_partial_fit_gives_announced_categories_no_probability():
    x, y = blobs(30, 1)
    learner = estimator().partial_fit(x[:60], y[:60], classes=LABELS)
    np.testing.assert_array_equal(learner.classes_, [3, 7, 10])
    assert (learner.predict_proba(x)[:, 1] == 0).all()
    learner.partial_fit(x[60:], y[60:])
    assert learner.score(x, y) > 0.97


def test_partial_fit_continues_known_categories(taught):
    x, y = blobs(30, 5)
    learner = pickle.loads(pickle.dumps(taught)).partial_fit(x, y)
    assert [learner.state_.visit(str(label)) for label in LABELS] == [2, 2, 2]
    assert learner.score(*blobs(40, 2)) > 0.97


def test_fit_forgets_what_was_learned_before(taught):
    x, y = blobs(30, 1)
    learner = clone(taught).partial_fit(x[:30], y[:30])
    learner.fit(x[30:], y[30:])
    np.testing.assert_array_equal(learner.classes_, [3, 7])
    assert_trees_equal(learner.state_.params, estimator().fit(x[30:], y[30:]).state_.params)


def test_decision_function_of_two_classes_is_a_difference():
    x, y = blobs(30, 1)
    learner = estimator().fit(x[:60], y[:60])
    values, probabilities = learner.decision_function(x), learner.predict_proba(x)
    assert values.shape == (90,)
    np.testing.assert_allclose(values, np.log(probabilities[:, 1]) - np.log(probabilities[:, 0]), rtol=1e-4, atol=1e-4)


def test_score_samples_is_the_mean_evidence_of_the_library(taught):
    x, _ = blobs(10, 3)
    evidence = np.asarray(lifelong.evidence(taught.state_, x), np.float64)
    expected = np.log(np.mean(np.exp(evidence - evidence.max()), axis=1)) + evidence.max()
    np.testing.assert_allclose(taught.score_samples(x), expected, rtol=1e-4)


def test_sample_is_recognized(taught):
    for label in LABELS:
        samples = taught.sample(50, label)
        assert samples.shape == (50, 5)
        assert np.mean(taught.predict(samples) == label) > 0.9
    assert np.abs(taught.sample(5, 3) - taught.sample(5, 3, random_state=1)).max() > 0
    np.testing.assert_array_equal(taught.sample(5, 3), taught.sample(5, 3))


def test_predict_unknown_flags_examples_far_away():
    # Thresholds are quantiles of every twentieth example.
    learner, (x, _) = estimator().fit(*blobs(600, 1)), blobs(100, 2)
    assert learner.predict_unknown(x, part=0.05).mean() < 0.15
    assert learner.predict_unknown(x + 100).all()
    assert not learner.predict_unknown(x + 100, part=0).any()


def test_forget_removes_a_category(taught):
    x, _ = blobs(20, 2)
    learner = pickle.loads(pickle.dumps(taught)).forget(7)
    np.testing.assert_array_equal(learner.classes_, [3, 10])
    assert set(learner.predict(x)) <= {3, 10}
    assert taught.predict_proba(x).shape == (60, 3)


def test_pickle_keeps_answers(taught):
    x, _ = blobs(20, 2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(taught)).predict_proba(x), taught.predict_proba(x))


def test_fit_takes_images(mnist5k):
    images, labels = (
        np.concatenate(parts) for parts in zip(*((mnist5k.read("train", n)[:40], [n] * 40) for n in "01"), strict=True)
    )
    learner = estimator(image_shape=(28, 28), preset="default").set_params(
        settings={**SETTINGS, "num_filters": "12", "pool_grid": "3"}
    )
    learner.fit(images, labels)
    assert learner.score(images, labels) > 0.9
    np.testing.assert_array_equal(learner.predict(images.reshape(80, -1)), learner.predict(images))
    assert learner.sample(2, "1").shape == (2, 28, 28, 1)


def test_classifier_works_in_a_pipeline_and_a_grid_search():
    x, y = blobs(30, 1)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), estimator()),
        {"lifelongclassifier__settings": [SETTINGS, {**SETTINGS, "random_features": "32"}]},
        cv=2,
    )
    assert search.fit(x, y).best_score_ > 0.9


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1, 1, 1, 1, 1, 2], "y: expected at least 2 examples of each class, got 1 sample of "),
        ([0.5, 1.5, 0.25, 3.5, 4.5, 5.5], "Unknown label type: continuous"),
    ],
)
def test_fit_refuses_bad_labels(y, message):
    with pytest.raises(ValueError, match=message):
        estimator().fit(np.zeros((6, 2)), y)


def test_a_refused_fit_loses_nothing(taught):
    x, _ = blobs(20, 2)
    learner = pickle.loads(pickle.dumps(taught))
    with pytest.raises(ValueError, match="expected at least 2 examples"):
        learner.fit(x[:3], [1, 1, 2])
    np.testing.assert_array_equal(learner.predict(x), taught.predict(x))


def test_partial_fit_refuses_labels_outside_classes(taught):
    x, y = blobs(4, 1)
    with pytest.raises(InputError, match=r"y: expected labels among classes \[1, 2\], got others"):
        estimator().partial_fit(x, y, classes=[1, 2])


def test_predict_refuses_an_unfitted_estimator():
    with pytest.raises(NotFittedError):
        estimator().predict(np.zeros((1, 2)))


@pytest.mark.slow
@parametrize_with_checks([estimator()])
def test_classifier_passes_checks_of_scikit_learn(estimator, check):
    check(estimator)
