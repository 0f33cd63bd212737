"""Products with a Gram matrix, compared with products of the full matrix."""

import jax
import numpy as np
import pytest

from lifelong_cvae.ridge import products
from tests.ridge.test_sums import LIMIT, exact_gram, random_symmetric


@pytest.mark.parametrize(("num_features", "rows"), [(1, 4), (7, 4), (41, 1), (41, 4), (64, 4), (64, 128)])
def test_multiply_gram_multiplies_the_full_matrix(num_features, rows, monkeypatch):
    monkeypatch.setattr(products, "ROWS", rows)
    matrix = random_symmetric(num_features)
    values = np.random.default_rng(1).standard_normal((num_features, 3))
    with jax.enable_x64(True):
        product = jax.jit(lambda gram, values: products.multiply_gram(gram, values))(exact_gram(matrix), values)
    # Elements are exact in float64, so that only their sums are rounded.
    np.testing.assert_allclose(product, matrix.astype(np.float64) @ values, rtol=0, atol=1e-14 * LIMIT * num_features)
