"""The logistic regression that evaluates imagined vectors."""

import jax
import numpy as np
import pytest

from lifelong_cvae.data import from_arrays
from lifelong_cvae.evaluation import vector_classifier
from tests.vectors.test_vectors import CATEGORIES, gaussians


@pytest.fixture(scope="module")
def source():
    arrays = {}
    for split, seed in (("train", 1), ("test", 2)):
        parts = gaussians(60, seed, shift=4.0, scale=1e-3)
        arrays |= {
            f"{split}_images": np.concatenate(list(parts.values())),
            f"{split}_labels": np.repeat(list(parts), 60),
        }
    return from_arrays("vectors", **arrays)


@pytest.fixture(scope="module")
def classifier(source):
    return vector_classifier.train_classifier(source)


def test_features_are_principal_components_of_standardized_vectors(classifier, source):
    x = np.concatenate([source.read("train", name) for name in CATEGORIES])
    features = classifier.features(x)
    variances = np.linalg.eigvalsh(np.corrcoef(x, rowvar=False))[::-1]
    np.testing.assert_allclose(features.var(axis=0), variances, rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-2)


def test_features_and_predictions_recognizes_vectors(classifier, source):
    for name in CATEGORIES:
        x = source.read("test", name)
        features, names = classifier.features_and_predictions(x)
        np.testing.assert_array_equal(features, classifier.features(x))
        assert (names == name).mean() > 0.95


def test_fitting_capacity_depends_on_the_labels_of_the_vectors(classifier, source):
    real = {name: source.read("test", name) for name in CATEGORIES}
    train = {name: source.read("train", name) for name in CATEGORIES}
    assert classifier.fitting_capacity(train, real, rng=jax.random.key(0)) > 0.95
    swapped = {"a": train["b"], "b": train["a"], "c": train["c"]}
    assert classifier.fitting_capacity(swapped, real, rng=jax.random.key(0)) == pytest.approx(1 / 3, abs=0.05)


def test_select_strength_selects_the_highest_held_out_accuracy():
    class Fitted:
        def __init__(self, strength):
            self.strength = strength

        def score(self, x, names):
            assert x.tolist() == [[9], [19]]
            return -abs(self.strength - vector_classifier.STRENGTHS[3])

    x = np.arange(20)[:, None]
    chosen = vector_classifier.select_strength(lambda strength, *_: Fitted(strength), x, x[:, 0])
    assert chosen == vector_classifier.STRENGTHS[3]
