"""Features of the closed-form recognizer by a second computation, patch by patch."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from sklearn import linear_model

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.model import cpu
from lifelong_cvae.ridge import dead_leaves, features, second_layer
from lifelong_cvae.ridge.dictionary import contrast_floor, normalize_patches
from tests.compiled import extract_features

SETTINGS = ClosedFormConfig(num_filters=6, filter_size=3, pool_grid=2, random_features=24)
FOLDED = dataclasses.replace(SETTINGS, fold_mirrors=True)
TWO_LAYERS = dataclasses.replace(SETTINGS, second_filters=4)
FOLDED_LAYERS = dataclasses.replace(FOLDED, second_filters=4, random_features=0)
GRAY, COLOR = (9, 8, 1), (8, 11, 2)

average_cells = jax.jit(cpu.average_cells, static_argnums=(1, 2))


def sample_rows(count, shape, seed=0):
    """Corners of synthetic images, the first half noisy, uint8 `[count, pixels]`."""
    numbers = np.random.default_rng(seed)
    images = dead_leaves.sample_images(count, shape[2], numbers)[:, : shape[0], : shape[1]]
    images[: count // 2] += 0.2 * numbers.standard_normal(images[: count // 2].shape)
    return np.uint8(np.rint(255 * np.clip(images, 0, 1))).reshape(count, -1)


def mirror(rows, shape):
    return rows.reshape(-1, *shape)[:, :, ::-1].reshape(rows.shape)


def extract(rows, shape, settings=SETTINGS, **changes):
    """Features of rows as numpy, with some arrays of the dictionary replaced."""
    made = {**features.make_dictionary(settings, shape), **changes}
    expand = features.expansion_matrix(settings, shape)
    return np.int32(extract_features(made, expand, rows, image_shape=shape, settings=settings))


def overlap(position, positions, cell, cells):
    """Part of a cell's width that a position covers."""
    first, last = cell * positions / cells, (cell + 1) * positions / cells
    return max(0.0, min(position + 1, last) - max(position, first)) / (last - first)


def pool_by_patch(row, shape, settings=SETTINGS):
    """Levels before rounding by the formulas of the module's docstring, in float64: `[2, 2, 2, filters]`."""
    made = features.make_dictionary(settings, shape)
    filters, offset = np.float64(made["filters"]), np.float64(made["offset"])
    image, down, across = np.float64(row).reshape(shape) / 255, shape[0] - 2, shape[1] - 2
    pooled = np.zeros((2, 2, 2, len(offset)))
    for y in range(down):
        for x in range(across):
            patch = image[y : y + 3, x : x + 3].ravel()
            patch = (patch - patch.mean()) / np.sqrt(patch.var() + contrast_floor(shape[2]))
            response = patch @ filters - offset
            for i, j in np.ndindex(2, 2):
                share = overlap(y, down, i, 2) * overlap(x, across, j, 2)
                pooled[0, i, j] += share * np.maximum(0, response - features.THRESHOLD)
                pooled[1, i, j] += share * np.maximum(0, -response - features.THRESHOLD)
    return features.POOLED_LEVELS * pooled


def expand_by_loop(levels, matrix):
    """Random features of pooled levels `[pooled]` by the formulas, in float64."""
    levels, matrix = np.float64(levels), np.float64(matrix)
    inputs = np.rint(features.INPUT_LEVELS * (levels - levels.mean()) / levels.std()).clip(-127, 127)
    blocks, width, outputs = matrix.shape
    expanded = []
    for block in range(blocks):
        for output in range(outputs):
            total = sum(inputs[block + blocks * i] * matrix[block, i, output] for i in range(width))
            unit = features.INPUT_LEVELS * features.MATRIX_LEVELS * np.sqrt(width)
            expanded.append(features.RANDOM_LEVELS * total / unit)
    return np.clip(expanded, 0, 254)


def assert_rounded(levels, expected):
    """Levels are the nearest whole numbers, of two where rounding errors decide."""
    np.testing.assert_array_equal(levels, np.rint(levels))
    np.testing.assert_allclose(levels, np.clip(expected, 0, 254), rtol=0, atol=0.502)


def split_levels(values):
    """Pooled and random features as levels from 0 on."""
    return np.split(values + features.MAX_LEVEL, [-24], axis=1)


@pytest.mark.parametrize("shape", [GRAY, COLOR])
def test_extract_pools_responses_by_the_formulas(shape):
    rows = sample_rows(8, shape)
    pooled, _ = split_levels(extract(rows, shape))
    assert pooled.std() > 5
    for levels, row in zip(pooled, rows, strict=True):
        assert_rounded(levels, pool_by_patch(row, shape).ravel())


@pytest.mark.parametrize("shape", [GRAY, COLOR])
def test_extract_folds_mirror_images_in(shape):
    rows = sample_rows(8, shape)
    pooled, _ = split_levels(extract(rows, shape, FOLDED))
    for levels, row in zip(pooled, rows, strict=True):
        both = pool_by_patch(row, shape) + pool_by_patch(mirror(row, shape), shape)
        assert_rounded(levels, both[..., :3].ravel() / 2)


@pytest.mark.parametrize("settings", [SETTINGS, FOLDED])
def test_extract_expands_the_pooled_levels(settings):
    pooled, expanded = split_levels(extract(sample_rows(8, GRAY), GRAY, settings))
    matrix = features.expansion_matrix(settings, GRAY)
    assert (expanded > 0).mean() > 0.2
    assert_rounded(expanded, np.array([expand_by_loop(levels, matrix) for levels in pooled]))


@pytest.mark.parametrize("shape", [GRAY, COLOR])
def test_extract_returns_levels_of_8_bits(shape):
    made, expand = features.make_dictionary(SETTINGS, shape), features.expansion_matrix(SETTINGS, shape)
    values = extract_features(made, expand, sample_rows(8, shape), image_shape=shape, settings=SETTINGS)
    assert values.dtype == np.int8
    assert values.shape == (8, features.feature_sizes(SETTINGS, shape).features) == (8, 72)
    assert abs(np.int32(values)).max() <= features.MAX_LEVEL


@pytest.mark.parametrize(("branch", "few"), [("cpu", 2**17), ("cpu", 0), ("default", 2**17)])
def test_correlate_multiplies_filters_with_every_patch(monkeypatch, branch, few):
    monkeypatch.setattr(cpu, "FEW_RESPONSES", few)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arguments, **branches: branches[branch](*arguments))
    numbers = np.random.default_rng(4)
    images, filters = numbers.standard_normal((3, 7, 9, 2)), numbers.standard_normal((4, 4, 2, 5))
    windows = np.lib.stride_tricks.sliding_window_view(images, (4, 4), axis=(1, 2))
    found = cpu.correlate(np.float32(images), np.float32(filters))
    np.testing.assert_allclose(found, np.einsum("nijcyx,yxck->nijk", windows, filters), rtol=1e-4, atol=1e-5)


def test_extract_clips_large_responses():
    filters = 100 * features.make_dictionary(SETTINGS, GRAY)["filters"]
    values = extract(sample_rows(8, GRAY), GRAY, filters=filters)
    assert (values.min(), values.max()) == (-features.MAX_LEVEL, features.MAX_LEVEL)


def test_extract_of_uint8_and_float_is_equal():
    rows = sample_rows(8, COLOR)
    np.testing.assert_array_equal(extract(np.float32(rows) / 255, COLOR), extract(rows, COLOR))


def assert_independent(compute, rows):
    """What is computed of 64 rows is equal bit for bit in batches of 8, at other places and beside other rows."""
    expected = np.asarray(compute(rows))
    batches = [compute(rows[start : start + 8]) for start in range(0, 64, 8)]
    np.testing.assert_array_equal(np.concatenate(batches), expected)
    for shift in (1, 2, 3, 37):
        np.testing.assert_array_equal(compute(np.roll(rows, shift, axis=0)), np.roll(expected, shift, axis=0))
    copies = compute(np.repeat(rows[5:6], 8, axis=0))
    np.testing.assert_array_equal(copies, np.repeat(expected[5:6], 8, axis=0))


@pytest.mark.parametrize("settings", [FOLDED, FOLDED_LAYERS])
def test_extract_treats_images_independently_bit_for_bit(settings):
    assert_independent(lambda rows: extract(rows, COLOR, settings), sample_rows(64, COLOR))


@pytest.mark.parametrize("shape", [pytest.param((19, 17, 1), marks=pytest.mark.slow), (17, 19, 2)])
def test_extract_appends_the_second_layer_to_the_first(shape):
    rows, made = sample_rows(8, shape), features.make_dictionary(TWO_LAYERS, shape)
    pooled, expanded = split_levels(extract(rows, shape, TWO_LAYERS))
    first, second = np.split(pooled, [48], axis=1)
    np.testing.assert_array_equal(first, split_levels(extract(rows, shape))[0])
    # Responses of the first layer, pixel by pixel, from filters that read one patch each.
    images = np.float64(rows).reshape(-1, *shape) / 255
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)
    patches = normalize_patches(windows.reshape(-1, 9 * shape[2]), contrast_floor(shape[2]))
    responses = (patches @ np.asarray(made["filters"]) - np.asarray(made["offset"])).reshape(*windows.shape[:3], -1)
    responses = np.float64(jax.jit(second_layer.respond)(made["second"], np.float32(responses)))
    size = features.feature_sizes(TWO_LAYERS, shape).second_cells
    expected = [np.maximum(signed - features.THRESHOLD, 0) for signed in (responses, -responses)]
    expected = [average_cells(average_cells(np.float32(sign), 1, size), 2, size) for sign in expected]
    assert second.std() > 5
    assert_rounded(second, features.SECOND_LEVELS * np.stack(expected, axis=1).reshape(8, -1))
    matrix = features.expansion_matrix(TWO_LAYERS, shape)
    assert_rounded(expanded, np.array([expand_by_loop(levels, matrix) for levels in pooled]))


def test_pool_responses_treats_images_independently_before_rounding(monkeypatch):
    """So no response is rounded to another level beside other images."""
    # A seed of its own, since compiled functions are kept.
    settings = dataclasses.replace(SETTINGS, filter_seed=9)
    monkeypatch.setattr(features, "POOLED_LEVELS", 2.0**30)
    monkeypatch.setattr(features, "MAX_LEVEL", 2.0**60)
    pool = partial(features.pool_responses, features.make_dictionary(settings, GRAY))
    rows = sample_rows(64, GRAY)
    assert len(np.unique(pool(rows, image_shape=GRAY, settings=settings))) > 2000
    assert_independent(partial(pool, image_shape=GRAY, settings=settings), rows)


def test_extract_without_pooled_or_random_features_returns_the_others():
    rows = sample_rows(8, GRAY)
    both = extract(rows, GRAY)
    np.testing.assert_array_equal(
        extract(rows, GRAY, dataclasses.replace(SETTINGS, pooled_features=False)), both[:, 48:]
    )
    np.testing.assert_array_equal(extract(rows, GRAY, dataclasses.replace(SETTINGS, random_features=0)), both[:, :48])


@pytest.mark.parametrize("shape", [COLOR, (5, 29, 1)])
def test_extract_with_folded_mirrors_is_equal_for_mirror_images(shape):
    """Also where the middle of 9 or 27 positions belongs to two cells."""
    rows = sample_rows(8, shape)
    values, of_mirrors = extract(rows, shape, FOLDED), extract(mirror(rows, shape), shape, FOLDED)
    assert abs(values - of_mirrors)[:, :24].max() <= 1
    assert (values != of_mirrors).mean() < 0.01
    assert values.std(axis=0).mean() > 5
    values, of_mirrors = extract(rows, shape, FOLDED_LAYERS), extract(mirror(rows, shape), shape, FOLDED_LAYERS)
    assert abs(values - of_mirrors).max() <= 1
    assert (values != of_mirrors).mean() < 0.01
    if shape == COLOR:
        assert abs(extract(rows, shape) - extract(mirror(rows, shape), shape)).max() > 5


def test_regression_on_folded_features_equals_one_on_images_and_mirror_images():
    rows, targets = sample_rows(24, GRAY), np.random.default_rng(3).standard_normal(24)

    def extract_pooled(rows, settings):
        batches = [extract(rows[start : start + 8], GRAY, settings) for start in range(0, len(rows), 8)]
        return split_levels(np.concatenate(batches))[0]

    folded = extract_pooled(rows, FOLDED)
    both = extract_pooled(np.concatenate([rows, mirror(rows, GRAY)]), SETTINGS)
    # Twice as many images, and a squared norm that is half of that of the folded weights.
    on_both = linear_model.Ridge(4 * 3000.0).fit(both, np.tile(targets, 2)).predict(both)
    on_folded = linear_model.Ridge(3000.0).fit(folded, targets).predict(folded)
    on_images = linear_model.Ridge(2 * 3000.0).fit(both[:24], targets).predict(both[:24])
    np.testing.assert_allclose(np.tile(on_folded, 2), on_both, atol=0.04)
    assert abs(on_folded - on_images).max() > 0.2


def test_expansion_matrix_is_whole_numbers_determined_by_the_seed():
    settings = ClosedFormConfig(num_filters=64, filter_size=3, pool_grid=2, random_features=4096)
    matrix = np.asarray(features.expansion_matrix(settings, GRAY))
    assert matrix.shape == (16, 32, 256)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, np.rint(matrix))
    assert abs(matrix.mean()) < 0.5
    assert matrix.std() == pytest.approx(features.MATRIX_LEVELS, rel=0.01)
    assert abs(matrix).max() == features.MAX_LEVEL
    np.testing.assert_array_equal(features.expansion_matrix(settings, GRAY), matrix)
    other = features.expansion_matrix(dataclasses.replace(settings, filter_seed=1), GRAY)
    assert abs(np.corrcoef(other.ravel(), matrix.ravel())[0, 1]) < 0.05


def test_expansion_matrix_makes_products_exact():
    """Sums of products of z and R stay below 2^24 for the largest features of the presets."""
    settings = ClosedFormConfig(fold_mirrors=True).resolve(3)
    size = features.feature_sizes(settings, (32, 32, 3))
    norm = np.linalg.norm(features.expansion_matrix(settings, (32, 32, 3)), axis=1).max()
    # Rounding adds at most half a level to each input.
    assert norm * (features.INPUT_LEVELS + 0.5) * np.sqrt(size.pooled) < 2**24


def test_batch_sizes_keep_sums_of_products_exact():
    assert features.MAX_LEVEL**2 * features.BATCH_SIZES[1] < 2**24


@pytest.mark.parametrize("level", [0, 100, 255])
def test_extract_of_flat_images_is_that_of_no_response(level):
    values = extract(np.full((8, 72), level, np.uint8), GRAY)
    offset = np.float64(features.make_dictionary(SETTINGS, GRAY)["offset"])
    assert abs(offset).max() < features.THRESHOLD
    np.testing.assert_array_equal(values, np.full((8, 72), -features.MAX_LEVEL))


def test_feature_sizes_follow_from_the_settings():
    assert features.feature_sizes(SETTINGS, GRAY) == (3, 2, 2, 1, 48, 12, 72)
    assert features.feature_sizes(FOLDED, GRAY) == (3, 2, 2, 1, 24, 12, 48)
    assert features.feature_sizes(FOLDED_LAYERS, (17, 17, 1)) == (3, 2, 3, 2, 24 + 16, 10, 24 + 16)
    only_random = dataclasses.replace(SETTINGS, pooled_features=False, random_features=35)
    assert features.feature_sizes(only_random, GRAY) == (3, 2, 2, 1, 48, 1, 35)


def test_feature_sizes_shrink_for_small_images():
    assert features.feature_sizes(SETTINGS, (2, 9, 1)) == (2, 1, 1, 1, 12, 12, 36)
    assert features.feature_sizes(SETTINGS, (9, 3, 1)) == (3, 1, 1, 1, 12, 12, 36)
    values = extract(np.random.default_rng(0).integers(0, 256, (4, 18), np.uint8), (2, 9, 1))
    assert values.shape == (4, 36)
    assert np.isfinite(values).all()


@pytest.mark.parametrize(("shape", "settings"), [(GRAY, SETTINGS), (COLOR, FOLDED_LAYERS), ((2, 9, 1), TWO_LAYERS)])
def test_empty_dictionary_has_the_shapes_of_a_made_one(shape, settings):
    empty, made = features.empty_dictionary(settings, shape), features.make_dictionary(settings, shape)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), empty) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), made
    )
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(empty))


@pytest.mark.parametrize(("positions", "cells"), [(9, 2), (27, 2), (5, 5), (7, 3), (4, 3), (6, 1)])
def test_average_cells_weights_positions_by_their_overlap(positions, cells):
    responses = np.random.default_rng(0).random((2, positions, 3), np.float32)
    # Every position is divided into as many parts as there are cells.
    parts = np.repeat(np.float64(responses), cells, axis=1).reshape(2, cells, positions, 3)
    averages = np.asarray(average_cells(responses, 1, cells))
    np.testing.assert_allclose(averages, parts.mean(axis=2), rtol=1e-6)
    along_the_last = average_cells(responses.transpose(0, 2, 1), 2, cells)
    np.testing.assert_allclose(along_the_last, averages.transpose(0, 2, 1), rtol=1e-6)


@pytest.mark.parametrize(("positions", "cells"), [(9, 2), (27, 2), (7, 3)])
def test_average_cells_of_mirrored_responses_are_mirrored(positions, cells):
    responses = np.random.default_rng(0).random((2, positions), np.float32)
    mirrored = np.asarray(average_cells(responses[:, ::-1], 1, cells))
    np.testing.assert_allclose(mirrored[:, ::-1], average_cells(responses, 1, cells), rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 16, 1), (5, 1, 1), (1, 1, 1)])
def test_extract_of_images_one_pixel_wide_is_finite(shape):
    settings = ClosedFormConfig(num_filters=4, second_filters=4, random_features=8).resolve(shape[2])
    rows = np.random.default_rng(0).integers(0, 256, (8, int(np.prod(shape))), np.uint8)
    dictionary = features.make_dictionary(settings, shape)
    expand = features.expansion_matrix(settings, shape)
    phi = np.asarray(extract_features(dictionary, expand, rows, image_shape=shape, settings=settings))
    assert np.isfinite(phi).all()
    assert np.abs(phi).max() <= features.MAX_LEVEL
