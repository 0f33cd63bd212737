"""Drawings in the form of MNIST's digits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from lifelong_cvae import InputError
from lifelong_cvae.data import center_ink, extract_ink, open_source, render_strokes


@pytest.fixture(scope="module")
def digits():
    source = open_source("mnist5k")
    return np.concatenate([source.read("test", name)[:20, ..., 0] for name in source.categories])


def alike(one, other):
    """Correlation of two images' pixels."""
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


class TestCentred:
    def test_what_mnist_has_centred_stays_as_it_is(self, digits):
        for digit in digits:
            assert alike(center_ink(digit)[..., 0], digit) > 0.99

    def test_scaled_and_moved_digits_come_back(self, digits):
        for digit in digits[::10]:
            canvas = np.zeros((500, 400), np.uint8)
            canvas[30:310, 100:380] = np.kron(digit, np.ones((10, 10), np.uint8))
            assert alike(center_ink(canvas)[..., 0], digit) > 0.95

    @settings(max_examples=50)
    @given(
        st.integers(1, 90),
        st.integers(1, 90),
        st.sampled_from([(28, 28), (32, 32, 3), (16, 40, 1)]),
        st.randoms(use_true_random=False),
    )
    def test_ink_fills_the_box_around_its_centre_of_mass(self, height, width, shape, random):
        canvas = np.zeros((120, 110), np.uint8)
        top, left = random.randint(0, 120 - height), random.randint(0, 110 - width)
        canvas[top : top + height, left : left + width] = 200
        image = center_ink(canvas, shape)
        assert image.shape == (*shape, 1)[:3]
        assert image.dtype == np.uint8
        assert all(np.array_equal(image[..., 0], image[..., channel]) for channel in range(image.shape[-1]))
        rows, columns = np.nonzero(image[..., 0])
        filled = (np.ptp(rows) + 1) / shape[0], (np.ptp(columns) + 1) / shape[1]
        assert max(filled) == pytest.approx(20 / 28, abs=0.5 / min(shape[:2]))
        middle = ndimage.center_of_mass(image[..., 0])
        np.testing.assert_allclose(middle, (shape[0] / 2, shape[1] / 2), atol=0.5)

    def test_ink_in_a_corner_stays_inside(self):
        ink = np.zeros((100, 100), np.uint8)
        ink[:10, :10] = 255
        ink[99, 99] = 20  # the box is far larger than its heavy corner
        assert np.count_nonzero(center_ink(ink)) > 0

    @pytest.mark.parametrize(("dtype", "shape"), [(np.float32, (9, 9)), (np.uint8, (9, 9, 1))])
    def test_another_form_is_refused(self, dtype, shape):
        with pytest.raises(InputError, match=r"ink: uint8 \[height, width\] is expected"):
            center_ink(np.ones(shape, dtype))

    @pytest.mark.parametrize("faint", [0, 8])
    def test_without_ink_it_says_so(self, faint):
        with pytest.raises(InputError, match="there is no ink in the drawing: at least a dot is expected"):
            center_ink(np.full((9, 9), faint, np.uint8))


class TestInkOf:
    @pytest.mark.parametrize("dark_on_light", [True, False])
    def test_digits_are_found_on_uneven_ground(self, digits, dark_on_light):
        noise, found = np.random.default_rng(0), []
        for digit in digits[::10]:
            large = np.asarray(Image.fromarray(digit).resize((280, 280)), np.float32)
            photo = 70 + 0.5 * np.pad(large, 60) + noise.normal(0, 3, (400, 400))
            photo += np.linspace(-10, 10, 400)  # light from one side
            photo = 255 - photo if dark_on_light else photo
            ink = extract_ink(photo.astype(np.uint8)[..., None])
            assert (ink[:50] == 0).all()
            assert ink.max() == 255
            found.append(alike(center_ink(ink)[..., 0], digit))
        assert np.mean(found) > 0.9  # a pixel's shift is 0.2 less

    def test_even_ground_has_no_ink(self):
        assert not extract_ink(np.full((8, 8), 130, np.uint8)).any()


CROSS = np.asarray([[[0, 0], [30, 90]], [[30, 0], [0, 90]]])


class TestPen:
    @pytest.mark.parametrize("scale", [0.01, 1, 50])
    def test_a_drawing_is_the_same_in_every_size_and_place(self, scale):
        moved = scale * (CROSS + np.asarray([7, -3]))
        np.testing.assert_allclose(render_strokes(moved), render_strokes(CROSS).astype(float), atol=25)

    @pytest.mark.parametrize("shape", [(28, 28), (64, 64, 3), (20, 40)])
    def test_it_fills_the_box_around_its_centre_of_mass(self, shape):
        image = render_strokes(CROSS, shape)
        assert image.shape == (*shape, 1)[:3]
        rows, columns = np.nonzero(image[..., 0] > 127)
        assert np.ptp(rows) + 1 == pytest.approx(shape[0] * 20 / 28, abs=1.5)
        assert np.ptp(columns) < np.ptp(rows)
        middle = ndimage.center_of_mass(image[..., 0])
        np.testing.assert_allclose(middle, (shape[0] / 2, shape[1] / 2), atol=0.6)

    def test_the_pen_is_as_wide_as_it_says(self):
        line = render_strokes([[[0, 0], [0, 100]]])[..., 0]
        assert line[14].sum() / 255 == pytest.approx(2.25, abs=0.3)
        dot = render_strokes([[[5, 5]]])[..., 0]
        assert dot.sum() / 255 == pytest.approx(np.pi * (2.25 / 2) ** 2, rel=0.3)

    def test_dots_far_apart_stay_dots(self):
        _, count = ndimage.label(render_strokes([[[0, 0]], [[100, 0]], [[50, 80]]])[..., 0] > 100)
        assert count == 3

    @pytest.mark.parametrize(
        "strokes",
        [
            [[]],
            [[1, 2, 3]],
            [[[1, 2, 3]]],
            [[[0, np.nan]]],
            [[[0, 1e300]]],
            [[["a", "b"]]],
            [[[1, 2], [3]]],
            [None],
        ],
    )
    def test_what_is_no_stroke_is_refused(self, strokes):
        with pytest.raises(InputError, match=r"a stroke: finite points \[points, 2\] are expected, at least one"):
            render_strokes(strokes)

    def test_without_strokes_it_says_so(self):
        with pytest.raises(InputError, match="there is no stroke in the drawing: at least a dot is expected"):
            render_strokes([])
