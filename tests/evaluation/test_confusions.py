"""Which categories are taken for which."""

import numpy as np

from lifelong_cvae.evaluation import confusions


def test_the_worst_come_first_with_the_surest_mistakes():
    answers = {
        "cat": np.asarray([[5, 1, 0], [0, 2, 1], [0, 9, 1], [3, 1, 2]], float),  # two of four: a dog
        "dog": np.asarray([[4, 1, 0]] + 9 * [[0, 1, 0]], float),  # one of ten: a cat
        "horse": np.asarray([[0, 0, 1], [1, 0, 2]], float),
    }
    found = confusions.worst_confusions(answers, ("cat", "dog", "horse"), 5)
    assert [(one.category, one.taken_for, one.images.tolist(), one.fraction) for one in found] == [
        ("cat", "dog", [2, 1], 0.5),
        ("dog", "cat", [0], 0.1),
    ]
    (only,) = confusions.worst_confusions(answers, ("cat", "dog", "horse"), 1)
    assert only.category == "cat"


def test_they_are_what_is_not_recognised():
    random = np.random.default_rng(0)
    names = ("a", "b", "c", "d")
    answers = {name: random.normal(size=(50, 4)) for name in names}
    found = confusions.worst_confusions(answers, names, 100)
    assert all(one.category != one.taken_for for one in found)
    for name in names:
        wrong = np.flatnonzero(answers[name].argmax(axis=1) != names.index(name))
        listed = np.concatenate([one.images for one in found if one.category == name])
        assert sorted(listed) == wrong.tolist()
