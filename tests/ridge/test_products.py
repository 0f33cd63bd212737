"""Products with a Gram matrix, compared with products of the full matrix."""

import jax
import numpy as np
import pytest

from lifelong_cvae.ridge import products, sums

# Bits of the elements of a Gram matrix, and a sign.
BITS = 47


@pytest.mark.parametrize(("num_features", "rows"), [(1, 4), (7, 4), (41, 1), (41, 4), (64, 4), (64, 128)])
def test_multiply_gram_multiplies_the_full_matrix(num_features, rows, monkeypatch):
    monkeypatch.setattr(products, "ROWS", rows)
    numbers = np.random.default_rng(num_features)
    whole = numbers.integers(-(2**BITS), 2**BITS, (num_features, num_features))
    whole = np.triu(whole) + np.triu(whole, 1).T
    stored = np.concatenate([whole[part, part.start :].ravel() for part in sums.row_blocks(num_features)])
    gram = {"high": np.int32(stored >> 16), "low": np.uint16(stored & 0xFFFF)}
    values = numbers.standard_normal((num_features, 3))
    with jax.enable_x64(True):
        product = jax.jit(lambda gram, values: products.multiply_gram(gram, values))(gram, values)
    # Elements are exact in float64, so that only their sums are rounded.
    np.testing.assert_allclose(product, whole.astype(np.float64) @ values, rtol=0, atol=1e-14 * 2**BITS * num_features)
