"""Figures: the pixels of the PNG files show the images and the numbers."""

import sys

import numpy as np
import pytest
from PIL import Image

from lifelong_cvae import plotting
from lifelong_cvae.errors import MissingExtraError, use_package

TILE = plotting.TILE_INCHES * plotting.DOTS_PER_INCH  # pixels of a tile and its gap
VIRIDIS_LOW, VIRIDIS_HIGH = (68, 1, 84), (253, 231, 37)
WHITE = (255, 255, 255)


def read(file):
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def near(pixels, color):
    """Where the pixels have the color, but for rounding."""
    return np.abs(pixels - np.asarray(color)).max(axis=-1) <= 2


def gray(value):
    """The color of a value in [0, 1] of a gray image: 0 is white paper, 1 is black ink."""
    return (round(255 * (1 - value)),) * 3


def center(mask):
    """Median row and column: letters of the same color hardly move it."""
    return np.median(np.argwhere(mask), axis=0)


def plain(value, count=1, side=8):
    return np.full((count, side, side, 1), value, np.float32)


def side_of(mask, count=1):
    """Side in pixels of the `count` squares that are marked."""
    return np.sqrt(mask.sum() / count)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "grid.png"


def test_a_black_tile_is_ink_and_a_white_one_is_paper(file):
    plotting.image_grid({"a": plain(1.0, 3), "b": plain(0.0, 3)}, file)
    black = near(read(file), gray(1.0))
    side = side_of(black, 3)
    inked = np.flatnonzero(black.sum(axis=1) > 2 * side)  # rows of pixels with more ink than letters have
    assert len(inked) == pytest.approx(side, rel=0.1)
    assert np.ptp(inked) + 1 == len(inked), "the black tiles stand beside each other"
    # The white tiles and their gap stand below.
    below = black[inked[-1] + 1 :]
    assert len(below) > side
    assert below.sum() < 0.05 * side**2, "letters only"


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 5), (10, 10)])
def test_the_size_grows_with_rows_and_columns(file, rows, columns):
    plotting.image_grid({str(row): plain(0.5, columns) for row in range(rows)}, file)
    pixels = read(file)
    side = side_of(near(pixels, gray(0.5)), rows * columns)
    step = side * 10 / 8
    assert 0.75 * TILE < step < 2 * TILE
    height, width, _ = pixels.shape
    assert rows * step * 0.95 < height < rows * step + 100
    assert columns * step * 0.95 < width < columns * step + 200
    plotting.image_grid({str(row): plain(0.5, columns) for row in range(rows)}, file, title="a title")
    titled = read(file)
    inked = [near(picture, gray(0.5)).sum(axis=1) > 0.5 * side for picture in (pixels, titled)]
    top = [np.flatnonzero(picture)[0] for picture in inked]
    assert top[1] > top[0] + 5, "the title stands above the images"


def test_an_image_is_neither_turned_nor_mirrored(file):
    image = np.zeros((1, 8, 8, 1), np.float32)
    corners = {"upper left": 0.2, "upper right": 0.4, "lower left": 0.6, "lower right": 0.8}
    halves = {"upper": slice(0, 4), "lower": slice(4, 8), "left": slice(0, 4), "right": slice(4, 8)}
    for corner, value in corners.items():
        vertical, horizontal = corner.split()
        image[0, halves[vertical], halves[horizontal], 0] = value
    plotting.image_grid({"x": image}, file)
    pixels = read(file)
    at = {corner: center(near(pixels, gray(value))) for corner, value in corners.items()}
    side = side_of(near(pixels, gray(0.2)))
    assert 0.75 * TILE < 2 * side < 2 * TILE
    for left, right in [("upper left", "upper right"), ("lower left", "lower right")]:
        np.testing.assert_allclose(at[right] - at[left], [0, side], atol=3)
    for upper, lower in [("upper left", "lower left"), ("upper right", "lower right")]:
        np.testing.assert_allclose(at[lower] - at[upper], [side, 0], atol=3)


def test_images_stand_in_their_order_each_row_its_category(file):
    values = np.arange(6).reshape(2, 3) / 10 + 0.2
    rows = {name: np.concatenate([plain(v) for v in row]) for name, row in zip("ab", values, strict=True)}
    plotting.image_grid(rows, file)
    pixels = read(file)
    at = np.array([[center(near(pixels, gray(v))) for v in row] for row in values])
    step = side_of(near(pixels, gray(values[0, 0]))) * 10 / 8
    np.testing.assert_allclose(np.diff(at[..., 0], axis=0), step, atol=3)
    np.testing.assert_allclose(np.diff(at[..., 1], axis=1), step, atol=3)
    np.testing.assert_allclose(np.diff(at[..., 0], axis=1), 0, atol=2)


def test_colour_images_keep_their_colours(file):
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 204, 0)]
    images = np.zeros((4, 8, 8, 3), np.uint8) + np.asarray(colors, np.uint8)[:, None, None]
    plotting.image_grid({"x": images[:2], "y": images[2:]}, file)
    pixels = read(file)
    side = np.mean([side_of(near(pixels, color)) for color in colors])
    step = side * 10 / 8
    assert 0.75 * TILE < step < 2 * TILE
    at = np.array([center(near(pixels, color)) for color in colors])
    np.testing.assert_allclose(at - at[0], [[0, 0], [0, step], [step, 0], [step, step]], atol=4)


def test_bytes_and_fractions_draw_the_same_file(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    plotting.image_grid({"x": images}, tmp_path / "bytes.png")
    plotting.image_grid({"x": images / np.float32(255)}, tmp_path / "fractions.png")
    assert (tmp_path / "bytes.png").read_bytes() == (tmp_path / "fractions.png").read_bytes()


def test_a_figure_goes_into_a_new_folder(tmp_path):
    plotting.image_grid({"x": plain(1.0)}, tmp_path / "new" / "folder" / "x.png")
    assert read(tmp_path / "new" / "folder" / "x.png").size > 0


@pytest.mark.parametrize(
    "name",
    [
        "T-shirt/top",
        "été ζ Ж",
        "a, b; c\\d",
        "x_1^2",
        "猫",
        "$\\frac$",
    ],
)
def test_names_of_any_printable_characters_are_drawn(tmp_path, name):
    plotting.image_grid({name: plain(0.0)}, tmp_path / "grid.png", title=name)
    plotting.accuracy_matrix([{name: 0.5}], tmp_path / "matrix.png")
    assert (read(tmp_path / "grid.png") < 128).any(), "letters beside a blank tile"
    assert read(tmp_path / "matrix.png").size > 0


def test_dollars_in_a_name_are_drawn(tmp_path):
    dollars, letters = tmp_path / "dollars.png", tmp_path / "letters.png"
    plotting.image_grid({"$x$": plain(0.0)}, dollars)
    plotting.image_grid({"x": plain(0.0)}, letters)
    assert read(dollars).shape[1] > read(letters).shape[1] + 10


@pytest.mark.parametrize("columns", [1, 10])
def test_a_longer_name_takes_more_room_and_the_images_stay_as_large(tmp_path, columns):
    widths, sides = [], []
    for name in ("é", "a name, reconstructed"):
        plotting.image_grid({name: plain(0.5, columns)}, tmp_path / "grid.png")
        pixels = read(tmp_path / "grid.png")
        widths.append(pixels.shape[1])
        sides.append(side_of(near(pixels, gray(0.5)), columns))
    assert sides[1] > 0.75 * sides[0]
    assert widths[1] > widths[0] + 50


def test_the_accuracy_matrix_shows_tasks_downwards_and_categories_to_the_right(file):
    plotting.accuracy_matrix([{"a": 1.0}, {"a": 0.0, "b": 1.0}], file)
    pixels = read(file)
    height, width, _ = pixels.shape
    assert 0.5 < height / ((0.4 * 2 + 1.4) * plotting.DOTS_PER_INCH) < 1.1
    assert 0.5 < width / ((0.55 * 2 + 1.6) * plotting.DOTS_PER_INCH) < 1.1
    low = near(pixels, VIRIDIS_LOW)
    row, column = map(int, center(low))
    # Cells are as wide as the run of pixels of that color, above the number in the middle.
    tall = np.flatnonzero(low.sum(axis=0) > 0.5 * low.sum(axis=0).max())
    broad = np.flatnonzero(low.sum(axis=1) > 0.5 * low.sum(axis=1).max())
    cell_width, cell_height = np.ptp(tall) + 1, np.ptp(broad) + 1
    off_centre = row - cell_height // 3  # clear of the number
    assert near(pixels[off_centre, column], VIRIDIS_LOW)
    assert near(pixels[off_centre, column + cell_width], VIRIDIS_HIGH)
    assert near(pixels[off_centre - cell_height, column], VIRIDIS_HIGH)
    assert near(pixels[off_centre - cell_height, column + cell_width], WHITE), "b was not known after task 1"


def test_the_accuracy_matrix_draws_every_category_and_task(file):
    names = [f"category {index}" for index in range(12)]
    history = [dict.fromkeys(names[: task + 1], 0.0) for task in range(12)]
    plotting.accuracy_matrix(history, file)
    pixels = read(file)
    cell = 0.55 * 0.4 * plotting.DOTS_PER_INCH**2
    assert near(pixels, VIRIDIS_LOW).sum() == pytest.approx(78 * cell, rel=0.4)


def test_figures_are_the_same_file_every_time(tmp_path):
    files = [tmp_path / "first.png", tmp_path / "second.png"]
    for file in files:
        plotting.accuracy_matrix([{"a": 0.25}], file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_missing_matplotlib_is_told_in_one_line_that_names_the_extra(monkeypatch):
    use_package("matplotlib")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError) as error:
        use_package("matplotlib")
    message = str(error.value)
    assert "\n" not in message
    assert "matplotlib" in message
    assert "lifelong_cvae[figures]" in message
