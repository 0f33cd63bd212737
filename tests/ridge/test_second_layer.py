"""The second layer by a second computation, cell by cell, and its mirrored dictionary."""

import jax
import numpy as np
import pytest

from lifelong_cvae.ridge import dictionary, second_layer

# Seed, channels, side of the first filters, their number, side of a patch, number of filters.
GRAY, COLOR = (0, 1, 5, 6, 2, 4), (0, 2, 4, 8, 3, 6)
ARGUMENTS = pytest.mark.parametrize("arguments", [GRAY, COLOR, (1, 1, 47, 2, 1, 2)])
respond = jax.jit(second_layer.respond)


def sample_responses(down, across, filters, seed=0):
    return np.random.default_rng(seed).standard_normal((3, down, across, filters), np.float32)


def mirrored(responses):
    """Responses of mirrored images: columns in reverse order, and each filter replaced by its mirror image."""
    return np.roll(responses[:, :, ::-1], responses.shape[-1] // 2, axis=-1)


def respond_by_cell(layer, responses, cells, side):
    """Responses by the formulas of the module's docstring, in float64, for cells of 3 x 3 positions."""
    layer = {key: np.float64(values) for key, values in layer.items()}
    rows, columns = cells
    half = responses.shape[-1] // 2
    places = np.ndindex(rows - side + 1, columns - side + 1)
    result = np.zeros((len(responses), rows - side + 1, columns - side + 1, len(layer["offset"])))
    for index, (top, left) in ((index, place) for place in places for index in range(len(responses))):
        patch = []
        for row, column in np.ndindex(side, side):
            y, x = 3 * (top + row), 3 * (left + column)
            values = np.float64(responses[index, y : y + 3, x : x + 3]).reshape(9, -1)
            maps = [
                np.maximum(sign * values[:, filters] - dictionary.THRESHOLD, 0).mean(axis=0)
                for filters in (slice(0, half), slice(half, None))
                for sign in (1, -1)
            ]
            patch.append((np.concatenate(maps) - layer["center"]) @ layer["basis"])
        patch = np.concatenate(patch)
        patch /= np.sqrt((patch**2).mean() + second_layer.CONTRAST_FLOOR)
        result[index, top, left] = layer["filters"].T @ patch - layer["offset"]
    return result


@pytest.mark.parametrize("arguments", [GRAY, COLOR])
def test_respond_follows_the_formulas(arguments):
    layer, responses = second_layer.make_layer(*arguments), sample_responses(9, 12, arguments[3])
    expected = respond_by_cell(layer, responses, (3, 4), arguments[4])
    values = respond(layer, responses)
    assert expected.std() > 0.3
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)


def test_respond_reads_a_part_of_the_filters(monkeypatch):
    monkeypatch.setattr(second_layer, "MAX_READ", 4)
    layer = second_layer.make_layer.__wrapped__(*COLOR)
    assert layer["center"].shape == (8,)
    responses = sample_responses(9, 9, 8)
    # Filters 0 and 1, and their mirror images 4 and 5.
    expected = respond_by_cell(layer, responses[..., [0, 1, 4, 5]], (3, 3), 3)
    np.testing.assert_allclose(respond(layer, responses), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [9, 10, 11])
@ARGUMENTS
def test_respond_to_mirror_images_is_mirrored(arguments, width):
    layer, responses = second_layer.make_layer(*arguments), sample_responses(9, width, arguments[3])
    expected = mirrored(np.asarray(respond(layer, responses)))
    np.testing.assert_allclose(respond(layer, mirrored(responses)), expected, rtol=1e-4, atol=1e-4)


@ARGUMENTS
def test_make_layer_has_its_shapes_and_is_read_only(arguments):
    layer = second_layer.make_layer(*arguments)
    shapes = second_layer.layer_shapes(arguments[3], *arguments[4:])
    assert {key: values.shape for key, values in layer.items()} == shapes
    assert {values.dtype for values in layer.values()} == {np.dtype(np.float32)}
    with pytest.raises(ValueError, match="read-only"):
        layer["filters"][0] = 0


def test_make_layer_is_determined_by_its_arguments():
    layer, again = second_layer.make_layer(*GRAY), second_layer.make_layer.__wrapped__(*GRAY)
    for key, values in layer.items():
        assert again[key] is not values
        np.testing.assert_array_equal(again[key], values)
    other = second_layer.make_layer(1, *GRAY[1:])
    assert abs(other["filters"] - layer["filters"]).max() > 0.1


def test_fit_components_are_principal_components_of_maps_and_mirror_images(monkeypatch):
    monkeypatch.setattr(second_layer, "COMPONENTS", 3)
    numbers = np.random.default_rng(0)
    maps = np.float32(numbers.standard_normal((300, 6)) @ numbers.standard_normal((6, 6)) + numbers.random(6))
    center, basis, signs = second_layer._fit_components(maps)
    both = np.concatenate([maps, np.roll(maps, 3, axis=1)])
    np.testing.assert_allclose(center, both.mean(axis=0), atol=1e-5)
    variances, vectors = np.linalg.eigh(np.cov(both.T, bias=True))
    expected = (both - center) @ vectors[:, ::-1][:, :3]
    components = (both - center) @ basis
    assert (components**2).mean() == pytest.approx(1, rel=1e-4)
    scale = np.sqrt(variances[-3:].mean())
    np.testing.assert_allclose(abs(components), abs(expected) / scale, atol=1e-3)
    np.testing.assert_allclose(components[300:], components[:300] * signs, atol=1e-4)


def test_sample_maps_are_those_of_respond():
    """Maps of synthetic images, sampled on the host, are those that `respond` computes on the device."""
    seed, channels, side, count, *_ = COLOR
    filters, offset = dictionary.make_filters(seed, channels, side, count)
    maps = second_layer._sample_maps((filters, offset), 2, channels, side, np.random.default_rng(5))
    images = second_layer.dead_leaves.sample_images(1, channels, np.random.default_rng(5))
    windows = np.lib.stride_tricks.sliding_window_view(images[0], (side, side), axis=(0, 1))
    patches = windows.transpose(0, 1, 3, 4, 2).reshape(45 * 45, -1)
    patches = dictionary.normalize_patches(patches, dictionary.contrast_floor(channels))
    responses = np.float32(patches @ filters - offset).reshape(1, 45, 45, count)
    # With the identity as basis, and patches of one cell, the responses are the maps but for their scale.
    identity = {"center": np.zeros(16), "basis": np.eye(16), "filters": np.eye(16), "offset": np.zeros(16)}
    values = np.asarray(respond({key: np.float32(array) for key, array in identity.items()}, responses))[0]
    scaled = maps[0] / np.sqrt(np.square(maps[0]).mean(axis=-1, keepdims=True) + second_layer.CONTRAST_FLOOR)
    np.testing.assert_allclose(values, scaled, rtol=1e-4, atol=1e-5)
