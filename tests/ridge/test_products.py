"""Products by blocks of columns, compared with products at once."""

import jax
import numpy as np
import pytest

from lifelong_cvae.ridge import products, sums

COUNTS = [1, 15, 16, 17, 64]
# Bits of the elements of a Gram matrix, and a sign.
BITS = 47


@pytest.fixture(scope="module")
def factors():
    """Factors that are so long that a product at once adds in an order that depends on the width."""
    numbers = np.random.default_rng(0)
    return np.float32(numbers.standard_normal((64, 1100))), np.float32(numbers.standard_normal((1100, max(COUNTS))))


@jax.jit
def multiply(left, right):
    return products.map_columns(lambda block: left @ block, right)


@pytest.mark.parametrize("count", COUNTS)
def test_map_columns_applies_the_function_to_each_column(factors, count):
    left, right = factors
    np.testing.assert_allclose(multiply(left, right[:, :count]), left @ right[:, :count], atol=1e-3)


@pytest.mark.parametrize("count", COUNTS)
def test_map_columns_has_the_same_bits_for_any_number_of_columns(factors, count):
    left, right = factors
    np.testing.assert_array_equal(multiply(left, right[:, :count]), multiply(left, right)[:, :count])


def test_project_multiplies_each_column(factors):
    left, right = factors
    np.testing.assert_allclose(jax.jit(products.project)(left[0], right), left[0] @ right, atol=1e-3)


@pytest.mark.parametrize(("num_features", "rows"), [(1, 4), (7, 4), (41, 1), (41, 4), (64, 4), (64, 128)])
def test_multiply_gram_multiplies_the_full_matrix(num_features, rows, monkeypatch):
    monkeypatch.setattr(products, "ROWS", rows)
    numbers = np.random.default_rng(num_features)
    whole = numbers.integers(-(2**BITS), 2**BITS, (num_features, num_features))
    whole = np.triu(whole) + np.triu(whole, 1).T
    stored = np.concatenate([whole[part, part.start :].ravel() for part in sums.row_blocks(num_features)])
    gram = {"high": np.int32(stored >> 16), "low": np.uint16(stored & 0xFFFF)}
    values = numbers.standard_normal((num_features, 17))
    with jax.enable_x64(True):
        product = jax.jit(lambda gram, values: products.multiply_gram(gram, values))(gram, values)
    # Elements are exact in float64, so that only their sums are rounded.
    np.testing.assert_allclose(product, whole.astype(np.float64) @ values, rtol=0, atol=1e-14 * 2**BITS * num_features)
