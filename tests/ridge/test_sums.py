"""Exact sums of features, compared with sums of Python's and numpy's whole numbers."""

from fractions import Fraction
from math import floor

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.errors import InputError
from lifelong_cvae.ridge import features, sums
from tests.compiled import extract_features, gram_elements
from tests.conftest import assert_trees_equal, one_line

SETTINGS = ClosedFormConfig(num_filters=4, filter_size=3, pool_grid=2, random_features=13)
SHAPE, FEATURES = (7, 8, 1), 45
LIMIT = 2**47

sizes = pytest.mark.parametrize("num_features", [1, 5, 8, 16, 41])
int64 = st.integers(-(2**63), 2**63 - 1)
int48 = st.integers(-LIMIT, LIMIT - 1)


divide = jax.jit(sums._divide, static_argnums=(2, 3))


def random_features(count, num_features):
    """Whole numbers of all sizes that features have, int64 `[count, num_features]`."""
    numbers = np.random.default_rng(num_features)
    return numbers.integers(-features.MAX_LEVEL, features.MAX_LEVEL + 1, (count, num_features))


def exact_sum(values, low):
    """Whole numbers as an exact sum, divided by Python."""
    pairs = [divmod(int(value), 256 ** np.dtype(low).itemsize) for value in values]
    high, rest = np.array(pairs).reshape(-1, 2).T
    return {"high": high.astype(np.int32), "low": rest.astype(low)}


def exact_gram(matrix):
    """A symmetric matrix of whole numbers as an exact sum."""
    blocks = [matrix[rows, rows.start :].ravel() for rows in sums.row_blocks(len(matrix))]
    return exact_sum(np.concatenate(blocks), np.uint16)


def random_symmetric(num_features, seed=0):
    """Whole numbers of up to 47 bits of both signs, int64 `[num_features, num_features]`."""
    matrix = np.random.default_rng(seed).integers(-LIMIT, LIMIT, (num_features, num_features))
    return np.triu(matrix) + np.triu(matrix, 1).T


def full_matrix(gram, num_features):
    """All elements of a Gram matrix."""
    rows, columns = (index.astype(np.int32) for index in np.indices((num_features, num_features)))
    with jax.enable_x64(True):
        return np.asarray(gram_elements(gram, rows, columns, num_features))


@pytest.mark.parametrize("num_features", [1, 5, 16, 41])
@pytest.mark.parametrize("branch", ["cpu", "default"])
def test_gram_products_are_those_of_rows_and_the_columns_from_the_first_on(num_features, branch, monkeypatch):
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arguments, **branches: branches[branch](*arguments))
    phi = random_features(9, num_features)
    gram = phi.T @ phi
    products = jax.jit(sums.gram_products)(np.float32(phi))
    for rows, product in zip(sums.row_blocks(num_features), products, strict=True):
        np.testing.assert_array_equal(product, gram[rows, rows.start :])


@sizes
def test_row_blocks_divide_the_rows(num_features):
    blocks = sums.row_blocks(num_features)
    rows = [row for block in blocks for row in range(block.start, block.stop)]
    assert rows == list(range(num_features))
    assert len(blocks) <= sums.ROW_BLOCKS


def test_packed_size_is_little_more_than_half():
    assert sums.packed_size(5001) / 5001**2 == pytest.approx(9 / 16, abs=1e-3)


@sizes
def test_gram_elements_are_those_of_both_triangles(num_features):
    matrix = random_symmetric(num_features)
    np.testing.assert_array_equal(full_matrix(exact_gram(matrix), num_features), matrix)


@sizes
@pytest.mark.parametrize("stride", [1, 2, 3, 4, 7])
def test_strided_gram_selects_rows_and_columns(num_features, stride):
    matrix = random_symmetric(num_features)
    strided = sums.strided_gram(exact_gram(matrix), num_features, stride)
    assert_trees_equal(strided, exact_gram(matrix[::stride, ::stride]))


@pytest.mark.parametrize(("length", "selected"), [(12, [0, 4, 8, 11]), (13, [0, 4, 8, 12]), (14, [0, 4, 8, 12, 13])])
def test_strided_vector_keeps_the_last_value(length, selected):
    values = np.random.default_rng(0).integers(-(2**50), 2**50, length)
    strided = sums.strided_vector(exact_sum(values, np.uint32), 4)
    assert_trees_equal(strided, exact_sum(values[selected], np.uint32))
    columns = np.arange(2 * length).reshape(length, 2)
    np.testing.assert_array_equal(sums.select_features(columns, 4), columns[selected])


@given(st.lists(int48, max_size=6), st.lists(int64, max_size=6))
def test_decode_returns_the_numbers_that_were_split(of_48_bits, of_64_bits):
    for values, low in ((of_48_bits, np.uint16), (of_64_bits, np.uint32)):
        exact = exact_sum(values, low)
        decoded = sums.decode(exact)
        assert decoded.dtype == np.int64
        assert decoded.tolist() == values


@given(st.lists(int48, min_size=6, max_size=6), st.lists(int64, min_size=6, max_size=6))
def test_add_zeros_keeps_every_bit(of_48_bits, of_64_bits):
    for values, low in ((of_48_bits, np.uint16), (of_64_bits, np.uint32)):
        exact, zeros = exact_sum(values, low), exact_sum([0] * len(values), low)
        assert_trees_equal(sums.add(exact, zeros), exact)
        assert_trees_equal(sums.add(zeros, exact), exact)


def test_zeros_are_exact_sums_of_nothing():
    assert_trees_equal(sums.zeros_gram(5), exact_sum([0] * 15, np.uint16))
    assert_trees_equal(sums.zeros_vector(3), exact_sum([0] * 3, np.uint32))


@given(int48, int48)
@example(LIMIT - 1, 1)
@example(-LIMIT, -1)
@example(LIMIT - 1, LIMIT - 1)
@example(-LIMIT, -LIMIT)
@example(-LIMIT, LIMIT - 1)
@example(LIMIT - 65536, 65535)
@example(1 - LIMIT, -1)
def test_add_rejects_exactly_the_sums_that_are_too_large(first, second):
    terms = exact_sum([0, first, 0], np.uint16), exact_sum([0, second, 0], np.uint16)
    if -LIMIT <= first + second < LIMIT:
        assert sums.decode(sums.add(*terms)).tolist() == [0, first + second, 0]
    else:
        with pytest.raises(InputError) as error:
            sums.add(*terms)
        one_line(error, "expected at most 8,000 visits of categories")


def test_add_adds_every_sum_of_a_tree():
    trees = [{"gram": exact_sum([n], np.uint16), "sum": [exact_sum([2 * n], np.uint32)]} for n in (5, -7)]
    expected = {"gram": exact_sum([-2], np.uint16), "sum": [exact_sum([-4], np.uint32)]}
    assert_trees_equal(sums.add(*trees), expected)


def test_add_holds_8000_visits_of_the_largest_features():
    visit = features.MAX_LEVEL**2 * 2**sums.GRAM_BITS
    total = sums.add(exact_sum([4000 * visit], np.uint16), exact_sum([4000 * visit], np.uint16))
    assert sums.decode(total) == 8000 * visit


@settings(max_examples=50)
@given(st.data(), st.sampled_from([np.uint16, np.uint32]))
def test_add_does_not_depend_on_order_or_grouping(data, low):
    bound = LIMIT // 8 if low == np.uint16 else 2**60
    element = st.lists(st.integers(-bound, bound), min_size=3, max_size=3)
    values = data.draw(st.lists(element, min_size=2, max_size=7))
    terms = [exact_sum(row, low) for row in values]
    while len(terms) > 1:
        second = terms.pop(data.draw(st.integers(0, len(terms) - 1)))
        first = terms.pop(data.draw(st.integers(0, len(terms) - 1)))
        terms.append(sums.add(first, second))
    assert_trees_equal(terms[0], exact_sum([sum(column) for column in zip(*values, strict=True)], low))


@given(st.integers(-127 * 2**22, 127 * 2**22), st.integers(2**10, 2**23))
@example(127 * 2**22, 2**22)
@example(-127 * 2**22, 2**22)
def test_divide_rounds_to_the_nearest(total, weight):
    for bits, low in ((sums.GRAM_BITS, np.uint16), (sums.VECTOR_BITS, np.uint32)):
        with jax.enable_x64(True):
            divided = divide(np.int64([total]), np.int64(weight), bits, low)
        rounded = floor(Fraction(total * 2**bits, weight) + Fraction(1, 2))
        assert_trees_equal(divided, exact_sum([rounded], low))


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).integers(0, 256, (37, 56), np.uint8)


def compute_sums(rows, weight):
    made, expand = features.make_dictionary(SETTINGS, SHAPE), features.expansion_matrix(SETTINGS, SHAPE)
    batches = features.feature_batches(made, expand, rows, image_shape=SHAPE, settings=SETTINGS)
    return sums.compute_sums(batches, len(rows), weight, num_features=FEATURES)


@pytest.fixture(scope="module")
def computed(rows):
    return compute_sums(rows, 37)


@pytest.fixture(scope="module")
def phi(rows):
    made, expand = features.make_dictionary(SETTINGS, SHAPE), features.expansion_matrix(SETTINGS, SHAPE)
    return np.int64(extract_features(made, expand, rows, image_shape=SHAPE, settings=SETTINGS))


@pytest.mark.parametrize("weight", [1, 37, 185])
def test_compute_sums_divides_sums_over_the_images(rows, phi, weight):
    def divide(totals, bits):
        return [floor(Fraction(int(total) * 2**bits, weight) + Fraction(1, 2)) for total in totals.ravel()]

    gram, vector = compute_sums(rows, weight)
    assert phi.shape == (37, FEATURES)
    full = np.array(divide(phi.T @ phi, sums.GRAM_BITS)).reshape(FEATURES, FEATURES)
    np.testing.assert_array_equal(full_matrix(gram, FEATURES), full)
    assert sums.decode(vector).tolist() == divide(np.append(phi.sum(axis=0), 37), 32)


def test_compute_sums_counts_images_by_the_last_value(rows):
    for count, weight in ((37, 37), (33, 44)):
        _, vector = compute_sums(rows[:count], weight)
        assert sums.decode(vector)[-1] == 2**32 * count // weight


@pytest.mark.parametrize("batch_sizes", [(8, 8), (8, 32)])
def test_compute_sums_does_not_depend_on_the_batch_size(rows, computed, batch_sizes, monkeypatch):
    monkeypatch.setattr(features, "BATCH_SIZES", batch_sizes)
    assert_trees_equal(compute_sums(rows, 37), computed)


def test_compute_sums_does_not_depend_on_the_order_of_images(rows, computed):
    assert_trees_equal(compute_sums(rows[np.random.default_rng(1).permutation(37)], 37), computed)


@pytest.mark.parametrize("max_batches", [1, 2, 5])
def test_compute_sums_adds_many_batches_in_parts(rows, computed, max_batches, monkeypatch):
    monkeypatch.setattr(features, "BATCH_SIZES", (8, 8))
    monkeypatch.setattr(sums, "MAX_BATCHES", max_batches)
    assert_trees_equal(compute_sums(rows, 37), computed)


def test_compute_sums_of_more_images_than_int32_can_hold():
    count = 1024 * sums.MAX_BATCHES + 5000
    largest = np.tile(np.int8([features.MAX_LEVEL, -features.MAX_LEVEL] * 3), (1024, 1))
    gram, vector = sums.compute_sums([largest] * (sums.MAX_BATCHES + 5), count, count, num_features=6)
    signs = np.array([1, -1] * 3)
    assert features.MAX_LEVEL**2 * count > 2**31
    assert sums.decode(vector).tolist() == [*(127 * signs * 2**32), 2**32]
    np.testing.assert_array_equal(full_matrix(gram, 6), np.outer(signs, signs) * 127**2 * 2**sums.GRAM_BITS)


def test_compute_sums_rejects_more_images_than_int64_can_hold(monkeypatch):
    monkeypatch.setattr(sums, "MAX_IMAGES", 36)
    with pytest.raises(InputError) as error:
        compute_sums(np.zeros((37, 56), np.uint8), 37)
    one_line(error, "expected at most 36 at once", "got 37")


def test_compute_sums_of_no_images_is_zero(rows):
    expected = sums.zeros_gram(FEATURES), sums.zeros_vector(FEATURES + 1)
    assert_trees_equal(compute_sums(rows[:0], 5), expected)
