"""Scores by regressions without one image, against scikit-learn's regressions on all the other images."""

from functools import reduce

import numpy as np
import pytest
from sklearn import linear_model

from lifelong_cvae.ridge import leave_one_out, regression, sums


def sample_phi(num_features, counts):
    """Features of images of each category, int8 `[n, features]`, correlated and of unequal means."""
    numbers = np.random.default_rng(num_features)
    mixing = numbers.standard_normal((num_features, num_features))
    return [
        np.int8(np.clip(8 * (numbers.standard_normal((count, num_features)) + category) @ mixing / 3, -127, 127))
        for category, count in enumerate(counts)
    ]


@pytest.mark.parametrize(
    ("num_features", "counts", "ridge", "range_of_leverages"),
    [(12, (31, 17, 9), 1e-2, (0.05, 0.8)), (60, (31, 17, 9), 1e-3, (0.7, 0.99))],
)
def test_scores_are_those_of_regressions_on_the_other_images(num_features, counts, ridge, range_of_leverages):
    phi = sample_phi(num_features, counts)
    computed = [sums.compute_sums([part], len(part), len(part), num_features=num_features) for part in phi]
    gram = reduce(sums.add, [gram for gram, _ in computed])
    vectors = np.stack([sums.decode(vector) for _, vector in computed], axis=1)
    solution, factored = regression.solve(gram, vectors, ridge)
    rows, targets = np.float64(np.concatenate(phi)), np.repeat(np.eye(3), counts, axis=0)
    weights = np.repeat(1 / (3 * np.array(counts)), counts)
    scale = np.sqrt(weights @ (rows - weights @ rows) ** 2)
    scale = scale + 0.1 * scale.mean()
    first = 0
    for column, part in enumerate(phi):
        leverage = leave_one_out.leverages(factored, part, 1 / len(part))
        assert range_of_leverages[0] < leverage.min() < leverage.max() < range_of_leverages[1]
        fitted = np.float32(part) @ np.asarray(solution.weights) + np.asarray(solution.intercept)
        found = leave_one_out.scores(fitted, leverage, column)
        for index in range(0, len(part), 4):
            kept = np.arange(len(rows)) != first + index
            model = linear_model.Ridge(ridge, solver="cholesky")
            model.fit(rows[kept] / scale, targets[kept], sample_weight=weights[kept])
            np.testing.assert_allclose(found[index], model.predict(part[index : index + 1] / scale)[0], atol=2e-3)
        first += len(part)
