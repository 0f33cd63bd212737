"""Confused categories, by hand and against a count of all errors."""

import numpy as np

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
