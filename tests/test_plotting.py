"""PNG pictures: their pixels show the images and the numbers."""

import base64
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fontTools import fontBuilder
from fontTools.pens import ttGlyphPen
from matplotlib import font_manager
from PIL import Image

from lifelong_cvae import plotting
from lifelong_cvae.errors import MissingExtraError, use_package

TILE = plotting.TILE_INCHES * plotting.DOTS_PER_INCH  # pixels of a tile and its gap
VIRIDIS_LOW, VIRIDIS_HIGH = (68, 1, 84), (253, 231, 37)
WHITE = (255, 255, 255)


def read_pixels(file):
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def has_color(pixels, color):
    """Mask of the pixels that have a color up to rounding."""
    return np.abs(pixels - np.asarray(color)).max(axis=-1) <= 2


def gray(value):
    """Color of a value in [0, 1] of a gray image: 0 is white paper, 1 is black ink."""
    return (round(255 * (1 - value)),) * 3


def center(mask):
    """Median row and column of a mask, which letters of the same color hardly move."""
    return np.median(np.argwhere(mask), axis=0)


def plain_images(value, count=1, side=8):
    return np.full((count, side, side, 1), value, np.float32)


def square_side(mask, count=1):
    """Side in pixels of `count` squares that make up a mask."""
    return np.sqrt(mask.sum() / count)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "grid.png"


def test_image_grid_draws_ink_on_paper(file):
    plotting.image_grid({"a": plain_images(1.0, 3), "b": plain_images(0.0, 3)}, file)
    black = has_color(read_pixels(file), gray(1.0))
    side = square_side(black, 3)
    inked = np.flatnonzero(black.sum(axis=1) > 2 * side)  # rows of pixels with more ink than letters
    assert len(inked) == pytest.approx(side, rel=0.1)
    assert np.ptp(inked) + 1 == len(inked), "the black tiles are side by side"
    # The white tiles and their gap are below.
    below = black[inked[-1] + 1 :]
    assert len(below) > side
    assert below.sum() < 0.05 * side**2, "only letters"


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 5), (10, 10)])
def test_image_grid_size_grows_with_rows_and_columns(file, rows, columns):
    plotting.image_grid({str(row): plain_images(0.5, columns) for row in range(rows)}, file)
    pixels = read_pixels(file)
    side = square_side(has_color(pixels, gray(0.5)), rows * columns)
    step = side * 10 / 8
    assert 0.75 * TILE < step < 2 * TILE
    height, width, _ = pixels.shape
    assert rows * step * 0.95 < height < rows * step + 100
    assert columns * step * 0.95 < width < columns * step + 200
    plotting.image_grid({str(row): plain_images(0.5, columns) for row in range(rows)}, file, title="a title")
    titled = read_pixels(file)
    inked = [has_color(picture, gray(0.5)).sum(axis=1) > 0.5 * side for picture in (pixels, titled)]
    top = [np.flatnonzero(picture)[0] for picture in inked]
    assert top[1] > top[0] + 5, "the title is above the images"


def test_image_grid_keeps_orientation(file):
    image = np.zeros((1, 8, 8, 1), np.float32)
    corners = {"upper left": 0.2, "upper right": 0.4, "lower left": 0.6, "lower right": 0.8}
    halves = {"upper": slice(0, 4), "lower": slice(4, 8), "left": slice(0, 4), "right": slice(4, 8)}
    for corner, value in corners.items():
        vertical, horizontal = corner.split()
        image[0, halves[vertical], halves[horizontal], 0] = value
    plotting.image_grid({"x": image}, file)
    pixels = read_pixels(file)
    at = {corner: center(has_color(pixels, gray(value))) for corner, value in corners.items()}
    side = square_side(has_color(pixels, gray(0.2)))
    assert 0.75 * TILE < 2 * side < 2 * TILE
    for left, right in [("upper left", "upper right"), ("lower left", "lower right")]:
        np.testing.assert_allclose(at[right] - at[left], [0, side], atol=3)
    for upper, lower in [("upper left", "lower left"), ("upper right", "lower right")]:
        np.testing.assert_allclose(at[lower] - at[upper], [side, 0], atol=3)


def test_image_grid_keeps_order_of_rows_and_images(file):
    values = np.arange(6).reshape(2, 3) / 10 + 0.2
    rows = {name: np.concatenate([plain_images(v) for v in row]) for name, row in zip("ab", values, strict=True)}
    plotting.image_grid(rows, file)
    pixels = read_pixels(file)
    at = np.array([[center(has_color(pixels, gray(v))) for v in row] for row in values])
    step = square_side(has_color(pixels, gray(values[0, 0]))) * 10 / 8
    np.testing.assert_allclose(np.diff(at[..., 0], axis=0), step, atol=3)
    np.testing.assert_allclose(np.diff(at[..., 1], axis=1), step, atol=3)
    np.testing.assert_allclose(np.diff(at[..., 0], axis=1), 0, atol=2)


def test_image_grid_keeps_colors(file):
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 204, 0)]
    images = np.zeros((4, 8, 8, 3), np.uint8) + np.asarray(colors, np.uint8)[:, None, None]
    plotting.image_grid({"x": images[:2], "y": images[2:]}, file)
    pixels = read_pixels(file)
    side = np.mean([square_side(has_color(pixels, color)) for color in colors])
    step = side * 10 / 8
    assert 0.75 * TILE < step < 2 * TILE
    at = np.array([center(has_color(pixels, color)) for color in colors])
    np.testing.assert_allclose(at - at[0], [[0, 0], [0, step], [step, 0], [step, step]], atol=4)


def test_image_grid_draws_uint8_and_float_alike(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    plotting.image_grid({"x": images}, tmp_path / "bytes.png")
    plotting.image_grid({"x": images / np.float32(255)}, tmp_path / "fractions.png")
    assert (tmp_path / "bytes.png").read_bytes() == (tmp_path / "fractions.png").read_bytes()


def test_image_grid_creates_folder(tmp_path):
    plotting.image_grid({"x": plain_images(1.0)}, tmp_path / "new" / "folder" / "x.png")
    assert read_pixels(tmp_path / "new" / "folder" / "x.png").size > 0


@pytest.mark.parametrize("name", ["T-shirt/top", "été ζ Ж", "a, b; c\\d", "x_1^2", "猫", "$\\frac$"])
def test_figures_draw_names_of_any_printable_characters(tmp_path, name):
    plotting.image_grid({name: plain_images(0.0)}, tmp_path / "grid.png", title=name)
    plotting.accuracy_matrix([{name: 0.5}], tmp_path / "matrix.png")
    assert (read_pixels(tmp_path / "grid.png") < 128).any(), "the name is beside a blank tile"
    assert read_pixels(tmp_path / "matrix.png").size > 0


def test_image_grid_draws_dollar_signs(tmp_path):
    dollars, letters = tmp_path / "dollars.png", tmp_path / "letters.png"
    plotting.image_grid({"$x$": plain_images(0.0)}, dollars)
    plotting.image_grid({"x": plain_images(0.0)}, letters)
    assert read_pixels(dollars).shape[1] > read_pixels(letters).shape[1] + 10


@pytest.mark.parametrize("columns", [1, 10])
def test_image_grid_widens_for_longer_names(tmp_path, columns):
    widths, sides = [], []
    for name in ("é", "a name, reconstructed"):
        plotting.image_grid({name: plain_images(0.5, columns)}, tmp_path / "grid.png")
        pixels = read_pixels(tmp_path / "grid.png")
        widths.append(pixels.shape[1])
        sides.append(square_side(has_color(pixels, gray(0.5)), columns))
    assert sides[1] > 0.75 * sides[0]
    assert widths[1] > widths[0] + 50


def test_accuracy_matrix_has_row_per_task_and_column_per_category(file):
    plotting.accuracy_matrix([{"a": 1.0}, {"a": 0.0, "b": 1.0}], file)
    pixels = read_pixels(file)
    height, width, _ = pixels.shape
    assert 0.5 < height / ((0.4 * 2 + 1.4) * plotting.DOTS_PER_INCH) < 1.1
    assert 0.5 < width / ((0.55 * 2 + 1.6) * plotting.DOTS_PER_INCH) < 1.1
    low = has_color(pixels, VIRIDIS_LOW)
    row, column = map(int, center(low))
    # A cell is as wide as the run of pixels of its color above the number in its middle.
    tall = np.flatnonzero(low.sum(axis=0) > 0.5 * low.sum(axis=0).max())
    broad = np.flatnonzero(low.sum(axis=1) > 0.5 * low.sum(axis=1).max())
    cell_width, cell_height = np.ptp(tall) + 1, np.ptp(broad) + 1
    off_center = row - cell_height // 3  # clear of the number
    assert has_color(pixels[off_center, column], VIRIDIS_LOW)
    assert has_color(pixels[off_center, column + cell_width], VIRIDIS_HIGH)
    assert has_color(pixels[off_center - cell_height, column], VIRIDIS_HIGH)
    assert has_color(pixels[off_center - cell_height, column + cell_width], WHITE), "b is unknown after task 1"


def test_accuracy_matrix_draws_every_cell(file):
    names = [f"category {index}" for index in range(12)]
    history = [dict.fromkeys(names[: task + 1], 0.0) for task in range(12)]
    plotting.accuracy_matrix(history, file)
    pixels = read_pixels(file)
    cell = 0.55 * 0.4 * plotting.DOTS_PER_INCH**2
    assert has_color(pixels, VIRIDIS_LOW).sum() == pytest.approx(78 * cell, rel=0.4)


def test_accuracy_matrix_is_reproducible(tmp_path):
    files = [tmp_path / "first.png", tmp_path / "second.png"]
    for file in files:
        plotting.accuracy_matrix([{"a": 0.25}], file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_missing_matplotlib_error_names_extra(monkeypatch):
    use_package("matplotlib")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError) as error:
        use_package("matplotlib")
    message = str(error.value)
    assert "\n" not in message
    assert "matplotlib" in message
    assert "lifelong_cvae[figures]" in message


def test_png_data_url_keeps_pixels():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    url = plotting.png_data_url(images)
    assert url.startswith("data:image/png;base64,")
    pixels = read_pixels(io.BytesIO(base64.b64decode(url.split(",")[1])))
    assert pixels.shape == (6, 21, 3)
    for index, image in enumerate(images):
        np.testing.assert_array_equal(pixels[1:5, 7 * index + 1 : 7 * index + 6], image)


def write_font(folder, character):
    """Writes a font that has one character, a filled square, and returns its path."""
    builder = fontBuilder.FontBuilder(1000)
    pen = ttGlyphPen.TTGlyphPen(None)
    for move, point in zip(
        (pen.moveTo, pen.lineTo, pen.lineTo, pen.lineTo), ((0, 0), (0, 700), (700, 700), (700, 0)), strict=True
    ):
        move(point)
    pen.closePath()
    square = pen.glyph()
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(character): "square"})
    builder.setupGlyf({".notdef": square, "square": square})
    builder.setupHorizontalMetrics({".notdef": (800, 0), "square": (800, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(folder / "squares.ttf")
    return folder / "squares.ttf"


def test_find_font_prefers_the_default_and_finds_others(tmp_path, monkeypatch):
    rare = "\U000e0100"  # in no font of a usual system
    plotting.find_font.cache_clear()
    assert plotting.find_font("a") == plotting.DEFAULT_FONT
    assert plotting.find_font(rare) is None
    manager = font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", list(manager.ttflist))
    manager.addfont(write_font(tmp_path, rare))
    plotting.find_font.cache_clear()
    assert plotting.find_font(rare) == "Squares"
    plotting.find_font.cache_clear()


def test_image_grid_warns_once_of_characters_without_a_font(tmp_path, caplog):
    plotting._warn_once.cache_clear()
    for name in ("one", "two"):
        plotting.image_grid({f"{name} \U000e0100": np.zeros((1, 2, 2, 1))}, tmp_path / f"{name}.png")
    assert [record.getMessage() for record in caplog.records] == [
        "figures: no font of this system has all characters of the names, which are drawn as boxes"
    ]


@pytest.mark.parametrize("name", ["猫", "قط", "ねこ"])
def test_image_grid_draws_names_of_other_scripts(tmp_path, name, recwarn):
    plotting.image_grid({name: np.zeros((1, 2, 2, 1))}, tmp_path / "grid.png")
    assert not recwarn.list


def test_image_grid_needs_no_backend_of_a_notebook(tmp_path):
    script = "import sys, numpy, lifelong_cvae.plotting as p; from pathlib import Path\n"
    script += "p.image_grid({'a': numpy.zeros((1, 2, 2, 1))}, Path(sys.argv[1]))"
    env = {
        **os.environ,
        "MPLBACKEND": "module://matplotlib_missing.backend",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    subprocess.run([sys.executable, "-c", script, tmp_path / "a.png"], env=env, check=True, timeout=100)
    assert (tmp_path / "a.png").exists()


def test_spectra_labels_axes_with_plain_numbers(file, monkeypatch):
    drawn = []
    monkeypatch.setattr(plotting, "write_figure", lambda figure, _: drawn.append(figure))
    frequencies = np.arange(1, 15)
    plotting.spectra({"real": (frequencies, 1e3 / frequencies**2)}, file)
    (axes,) = drawn[0].axes
    drawn[0].canvas.draw()
    labels = [text.get_text() for axis in (axes.xaxis, axes.yaxis) for text in axis.get_ticklabels(which="both")]
    assert {"1", "2", "4", "8", "100"} <= set(labels)
    assert not any("$" in label for label in labels)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), 1e3 / frequencies**2)
