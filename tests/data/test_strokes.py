import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from lifelong_cvae import InputError
from lifelong_cvae.data import center_ink, extract_ink, open_source, render_strokes

CROSS = np.asarray([[[0, 0], [30, 90]], [[30, 0], [0, 90]]])


@pytest.fixture(scope="module")
def digits():
    """200 test digits of MNIST, uint8 `[200, 28, 28]`."""
    source = open_source("mnist5k")
    return np.concatenate([source.read("test", name)[:20, ..., 0] for name in source.categories])


def pixel_correlation(first, second):
    """Correlation of the pixels of two images."""
    return np.corrcoef(first.ravel(), second.ravel())[0, 1]


def test_center_ink_keeps_mnist_digits(digits):
    for digit in digits:
        assert pixel_correlation(center_ink(digit)[..., 0], digit) > 0.99


def test_center_ink_restores_scaled_and_moved_digits(digits):
    for digit in digits[::10]:
        canvas = np.zeros((500, 400), np.uint8)
        canvas[30:310, 100:380] = np.kron(digit, np.ones((10, 10), np.uint8))
        assert pixel_correlation(center_ink(canvas)[..., 0], digit) > 0.95


@settings(max_examples=50)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from([(28, 28), (32, 32, 3), (16, 40, 1)]),
    st.randoms(use_true_random=False),
)
def test_center_ink_fills_box_around_center_of_mass(height, width, shape, random):
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
    center = ndimage.center_of_mass(image[..., 0])
    np.testing.assert_allclose(center, (shape[0] / 2, shape[1] / 2), atol=0.5)


def test_center_ink_keeps_off_center_ink_inside():
    ink = np.zeros((100, 100), np.uint8)
    ink[:10, :10] = 255
    ink[99, 99] = 20  # the bounding box is far larger than its heavy corner
    assert np.count_nonzero(center_ink(ink)) > 0


@pytest.mark.parametrize(("dtype", "shape"), [(np.float32, (9, 9)), (np.uint8, (9, 9, 1))])
def test_center_ink_refuses_other_types_and_ranks(dtype, shape):
    with pytest.raises(InputError) as error:
        center_ink(np.ones(shape, dtype))
    assert str(error.value) == f"ink: expected uint8 [height, width], got {np.dtype(dtype)} {shape}"


@pytest.mark.parametrize("level", [0, 8])
def test_center_ink_refuses_images_without_ink(level):
    with pytest.raises(InputError, match="drawing: expected at least a dot of ink, got none"):
        center_ink(np.full((9, 9), level, np.uint8))


@pytest.mark.parametrize("dark_on_light", [True, False])
def test_extract_ink_finds_digits_on_uneven_ground(digits, dark_on_light):
    noise, correlations = np.random.default_rng(0), []
    for digit in digits[::10]:
        large = np.asarray(Image.fromarray(digit).resize((280, 280)), np.float32)
        photo = 70 + 0.5 * np.pad(large, 60) + noise.normal(0, 3, (400, 400))
        photo += np.linspace(-10, 10, 400)  # light from one side
        photo = 255 - photo if dark_on_light else photo
        ink = extract_ink(photo.astype(np.uint8)[..., None])
        assert (ink[:50] == 0).all()
        assert ink.max() == 255
        correlations.append(pixel_correlation(center_ink(ink)[..., 0], digit))
    assert np.mean(correlations) > 0.9  # a shift by one pixel costs 0.2


def test_extract_ink_finds_none_on_even_ground():
    assert not extract_ink(np.full((8, 8), 130, np.uint8)).any()


@pytest.mark.parametrize("scale", [0.01, 1, 50])
def test_render_strokes_does_not_depend_on_size_and_position(scale):
    moved = scale * (CROSS + np.asarray([7, -3]))
    np.testing.assert_allclose(render_strokes(moved), render_strokes(CROSS).astype(float), atol=25)


@pytest.mark.parametrize("shape", [(28, 28), (64, 64, 3), (20, 40)])
def test_render_strokes_fills_box_around_center_of_mass(shape):
    image = render_strokes(CROSS, shape)
    assert image.shape == (*shape, 1)[:3]
    rows, columns = np.nonzero(image[..., 0] > 127)
    assert np.ptp(rows) + 1 == pytest.approx(shape[0] * 20 / 28, abs=1.5)
    assert np.ptp(columns) < np.ptp(rows)
    center = ndimage.center_of_mass(image[..., 0])
    np.testing.assert_allclose(center, (shape[0] / 2, shape[1] / 2), atol=0.6)


def test_render_strokes_draws_with_pen_width():
    line = render_strokes([[[0, 0], [0, 100]]])[..., 0]
    assert line[14].sum() / 255 == pytest.approx(2.25, abs=0.3)
    dot = render_strokes([[[5, 5]]])[..., 0]
    assert dot.sum() / 255 == pytest.approx(np.pi * (2.25 / 2) ** 2, rel=0.3)


def test_render_strokes_keeps_distant_dots_apart():
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
        [np.full((40, 3), 0.5)],
    ],
)
def test_render_strokes_refuses_other_points(strokes):
    with pytest.raises(
        InputError, match=r"^stroke: expected finite points \[points, 2\], at least one, got .{,60}$"
    ) as error:
        render_strokes(strokes)
    assert "\n" not in str(error.value)


def test_render_strokes_refuses_empty_drawing():
    with pytest.raises(InputError, match="drawing: expected at least one stroke, got none"):
        render_strokes([])
