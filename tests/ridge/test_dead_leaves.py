"""Dead leaves: single shapes by the formulas of their pixels, whole images from front to back."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from lifelong_cvae.ridge import dead_leaves

# Radius, row, column, angle, logarithm of the aspect ratio, slope of the shading, whether it is a rectangle.
SHAPES = st.tuples(
    st.floats(0.5, 9),
    st.floats(-6, 12),
    st.floats(-6, 14),
    st.floats(0, np.pi),
    st.floats(-dead_leaves.LOG_ASPECT, dead_leaves.LOG_ASPECT),
    st.floats(-0.2, 0.2),
    st.booleans(),
)
# Direction of the corner of the longest rectangle.
CORNER = np.arctan(2**-dead_leaves.LOG_ASPECT)


def encode_shape(radius, row, column, angle, log_aspect, slope, is_rectangle, values):
    """A row of numbers as `_sample_shapes` returns it."""
    stretch = 2 ** (log_aspect / 2)
    cosine, sine = np.cos(angle), np.sin(angle)
    axes = cosine / stretch, sine / stretch, cosine * stretch, sine * stretch
    return np.array([radius, row, column, *axes, slope, is_rectangle, *values], np.float32)


def cover(height, width, radius, row, column, angle, stretch, slope, is_rectangle, values):
    """Distance of every pixel from the center, 1 at the edge of the shape, and the color of the shape there."""
    points = np.empty((height, width), complex)
    for y in range(height):
        for x in range(width):
            points[y, x] = complex(x / 2 - column, y / 2 - row) * np.exp(-1j * angle)
    along, beside = points.real / stretch, points.imag * stretch
    distance = np.maximum(abs(along), abs(beside)) if is_rectangle else np.hypot(along, beside)
    return distance / radius, np.asarray(values) + slope * along[..., None]


@settings(max_examples=150)
@given(SHAPES)
# The farthest corner of the longest rectangle reaches into the canvas from the left, and from above.
@example((9.0, 3.0, -12.0, np.pi - CORNER, dead_leaves.LOG_ASPECT, 0.1, True))
@example((9.0, -12.0, 3.5, np.pi / 2 - CORNER, dead_leaves.LOG_ASPECT, 0.1, True))
def test_draw_agrees_with_the_formula_of_each_pixel(shape):
    radius, row, column, angle, log_aspect, slope, is_rectangle = shape
    canvas = np.random.default_rng(0).random((12, 15, 2), np.float32)
    expected, values = canvas.copy(), (0.3, 0.9)
    distance, covered = cover(12, 15, radius, row, column, angle, 2 ** (log_aspect / 2), slope, is_rectangle, values)
    expected[distance < 1] = covered[distance < 1]
    dead_leaves._draw(canvas, encode_shape(*shape, values))
    # Rounding decides about pixels on the edge.
    certain = abs(distance - 1) > 1e-4
    np.testing.assert_allclose(canvas[certain], expected[certain], atol=1e-5)


@pytest.mark.parametrize("is_rectangle", [False, True])
@pytest.mark.parametrize("center", [(-20, 3), (30, 3), (3, -20), (3, 30), (-20, 30)])
def test_draw_leaves_a_canvas_beside_the_shape_unchanged(center, is_rectangle):
    canvas = np.random.default_rng(0).random((12, 12, 1), np.float32)
    before = canvas.copy()
    dead_leaves._draw(canvas, encode_shape(4, *center, 0.4, 1.0, 0.1, is_rectangle, (0.5,)))
    np.testing.assert_array_equal(canvas, before)


def test_draw_occludes_what_lies_behind():
    canvas = np.zeros((8, 8, 1), np.float32)
    dead_leaves._draw(canvas, encode_shape(50, 2, 2, 0, 0, 0, True, (0.2,)))
    dead_leaves._draw(canvas, encode_shape(1, 2, 2, 0, 0, 0, True, (0.7,)))
    expected = np.full((8, 8), 0.2)
    expected[3:6, 3:6] = 0.7
    np.testing.assert_allclose(canvas[..., 0], expected, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_sample_images_agrees_with_painting_from_front_to_back(channels):
    length = dead_leaves.SIDE * dead_leaves.OVERSAMPLING
    image, is_free = np.full((length, length, channels), np.nan), np.ones((length, length), bool)
    rows, columns = np.mgrid[:length, :length] / 2
    for shape in dead_leaves._sample_shapes(channels, np.random.default_rng(5))[::-1].astype(np.float64):
        down, across = rows - shape[1], columns - shape[2]
        along, beside = shape[3] * across + shape[4] * down, shape[5] * down - shape[6] * across
        distance = np.maximum(abs(along), abs(beside)) if shape[8] else np.hypot(along, beside)
        seen = is_free & (distance < shape[0])
        image[seen] = shape[9:] + shape[7] * along[seen][:, None]
        is_free &= ~seen
    assert not is_free.any()
    pixels = [image[y::2, x::2] for y in (0, 1) for x in (0, 1)]
    sampled = dead_leaves.sample_images(1, channels, np.random.default_rng(5))[0]
    agree = np.isclose(sampled, np.clip(sum(pixels) / 4, 0, 1), atol=1e-4)
    assert agree.mean() > 0.999


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_sample_images_returns_floats_from_0_to_1(channels):
    images = dead_leaves.sample_images(3, channels, np.random.default_rng(0))
    assert images.shape == (3, dead_leaves.SIDE, dead_leaves.SIDE, channels)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.std(axis=(1, 2)).min() > 0.1
    # Clipping is needed, so that the bounds are reached.
    assert (images.min(), images.max()) == (0, 1)


def test_sample_images_is_determined_by_the_numbers():
    first, same, other = (dead_leaves.sample_images(2, 2, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, same)
    assert abs(first - other).mean() > 0.1
    assert abs(first[0] - first[1]).mean() > 0.1


def test_sample_images_colors_shapes():
    image = dead_leaves.sample_images(1, 3, np.random.default_rng(0))[0]
    assert abs(image[..., 0] - image[..., 1]).mean() > 0.1
    # Channels share a common value.
    assert np.corrcoef(image.reshape(-1, 3).T)[np.triu_indices(3, 1)].min() > 0.2


def test_sample_shapes_draws_radii_of_density_r_to_the_minus_3():
    numbers = np.random.default_rng(0)
    radii = np.concatenate([dead_leaves._sample_shapes(1, numbers)[1:, 0] for _ in range(10)])
    smallest, largest = dead_leaves.RADII
    total = smallest**-2 - largest**-2
    assert stats.kstest(radii, lambda r: (smallest**-2 - r**-2.0) / total).pvalue > 0.01


def test_sample_shapes_draws_orthogonal_axes_of_bounded_aspect():
    shapes = dead_leaves._sample_shapes(1, np.random.default_rng(0)).astype(np.float64)
    # From (across, down) to positions along the axes: the rows of a matrix of determinant 1.
    along, beside = shapes[:, 3:5], shapes[:, [6, 5]] * [-1, 1]
    np.testing.assert_allclose((along * beside).sum(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(along[:, 0] * beside[:, 1] - along[:, 1] * beside[:, 0], 1, rtol=1e-5)
    aspects = np.log2(np.linalg.norm(beside, axis=1) / np.linalg.norm(along, axis=1))
    assert stats.kstest(aspects, stats.uniform(-dead_leaves.LOG_ASPECT, 2 * dead_leaves.LOG_ASPECT).cdf).pvalue > 0.01


def test_sample_shapes_covers_everything_by_the_first():
    numbers = np.random.default_rng(0)
    for _ in range(20):
        canvas = np.full((dead_leaves.SIDE * dead_leaves.OVERSAMPLING,) * 2 + (1,), np.nan, np.float32)
        dead_leaves._draw(canvas, dead_leaves._sample_shapes(1, numbers)[0])
        assert np.isfinite(canvas).all()
