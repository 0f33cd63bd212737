"""Sums of features of vectors, against NumPy."""

import jax
import numpy as np
import pytest

from lifelong_cvae.ridge import sums, vector_sums
from tests.compiled import gram_elements
from tests.conftest import assert_trees_equal

FEATURES, BATCH = 19, 8


def extract(rows):
    """Yields padded batches of features: vectors of four numbers, times a matrix."""
    matrix = np.random.default_rng(0).standard_normal((4, FEATURES)).astype(np.float32)
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        phi = np.pad(part, ((0, BATCH - len(part)), (0, 0)), constant_values=1e3) @ matrix
        yield jax.device_put(np.float32(phi))


def compute_sums(rows, weights):
    return vector_sums.compute_sums(extract, rows, weights, num_features=FEATURES)


def decode(exact, bits):
    return sums.decode(exact) * 2.0**-bits


def full_gram(packed):
    index = np.meshgrid(*[np.arange(FEATURES, dtype=np.int32)] * 2, indexing="ij")
    with jax.enable_x64(True):
        return np.asarray(gram_elements(packed, *index, FEATURES)) * 2.0**-sums.GRAM_BITS


@pytest.fixture
def rows():
    numbers = np.random.default_rng(1)
    sizes = (("b", 13), ("a", 3), ("c", 8))
    return {name: np.float32(numbers.standard_normal((count, 4))) for name, count in sizes}


def test_compute_sums_are_weighted_sums_of_each_category(rows):
    weights = {"a": 3, "b": 20, "c": 7}
    gram, vectors = compute_sums(rows, weights)
    phi = {name: np.concatenate(list(extract(part)))[: len(part)].astype(np.float64) for name, part in rows.items()}
    expected = sum(part.T @ part / weights[name] for name, part in phi.items())
    np.testing.assert_allclose(full_gram(gram), expected, rtol=1e-5, atol=1e-5)
    assert list(vectors) == ["a", "b", "c"]
    for name, vector in vectors.items():
        expected = [*phi[name].sum(axis=0) / weights[name], len(phi[name]) / weights[name]]
        np.testing.assert_allclose(decode(vector, sums.VECTOR_BITS), expected, rtol=1e-5, atol=1e-6)


def test_compute_sums_does_not_depend_on_the_order_of_the_mapping(rows):
    weights = {name: len(part) for name, part in rows.items()}
    assert_trees_equal(compute_sums(rows, weights), compute_sums(dict(reversed(rows.items())), weights))


def test_compute_sums_of_one_after_another_are_those_of_all(rows):
    weights = {name: len(part) for name, part in rows.items()}
    together, _ = compute_sums(rows, weights)
    alone = [compute_sums({name: part}, weights)[0] for name, part in rows.items()]
    np.testing.assert_allclose(sum(map(full_gram, alone)), full_gram(together), rtol=1e-5, atol=1e-5)


def test_compute_sums_of_no_rows_is_zero(rows):
    gram, vectors = compute_sums({"a": rows["a"][:0]}, {"a": 5})
    assert not sums.decode(gram).any()
    assert not sums.decode(vectors["a"]).any()
