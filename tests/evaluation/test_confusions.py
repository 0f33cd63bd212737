"""Confused categories, by hand and against a count of all errors."""

import numpy as np
import pytest

from lifelong_cvae.evaluation import confusions


def test_worst_confusions_are_ordered_by_fraction_and_images_by_margin():
    log_posteriors = {
        "cat": np.asarray([[5, 1, 0], [0, 2, 1], [0, 9, 1], [3, 1, 2]], float),  # two of four as dog
        "dog": np.asarray([[4, 1, 0]] + 9 * [[0, 1, 0]], float),  # one of ten as cat
        "horse": np.asarray([[0, 0, 1], [1, 0, 2]], float),
    }
    worst = confusions.worst_confusions(log_posteriors, ("cat", "dog", "horse"), 5)
    assert [(c.category, c.taken_for, c.images.tolist(), c.fraction) for c in worst] == [
        ("cat", "dog", [2, 1], 0.5),
        ("dog", "cat", [0], 0.1),
    ]
    (worst_one,) = confusions.worst_confusions(log_posteriors, ("cat", "dog", "horse"), 1)
    assert worst_one.category == "cat"


def test_worst_confusions_include_every_error():
    numbers = np.random.default_rng(0)
    names = ("a", "b", "c", "d")
    log_posteriors = {name: numbers.normal(size=(50, 4)) for name in names}
    worst = confusions.worst_confusions(log_posteriors, names, 100)
    assert all(confusion.category != confusion.taken_for for confusion in worst)
    for name in names:
        errors = np.flatnonzero(log_posteriors[name].argmax(axis=1) != names.index(name))
        listed = np.concatenate([confusion.images for confusion in worst if confusion.category == name])
        assert sorted(listed) == errors.tolist()


def test_nearest_categories_is_the_one_of_highest_mean_probability():
    probabilities = {"a": [[0.7, 0.1, 0.2], [0.5, 0.4, 0.1]], "b": [[0.3, 0.3, 0.4]], "c": [[0.0, 0.2, 0.8]]}
    shifted = {name: np.log(np.asarray(values) + 1e-12) - 5 for name, values in probabilities.items()}
    neighbors = confusions.nearest_categories(shifted, ("a", "b", "c"))
    assert [(each.category, each.nearest) for each in neighbors] == [("a", "b"), ("b", "c"), ("c", "b")]
    assert [each.probability for each in neighbors] == pytest.approx([0.25, 0.4, 0.2])
    assert confusions.nearest_categories({"a": np.zeros((2, 1))}, ("a",)) == []
