"""PNG pictures: labeled grids of images, and the accuracy matrix."""

import base64
import contextlib
import functools
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lifelong_cvae.images import to_uint8

DOTS_PER_INCH = 150
TILE_INCHES = 0.42
PADDING = 0.1  # around a figure, in inches
DEFAULT_FONT = "DejaVu Sans"

_logger = logging.getLogger("lifelong_cvae")


def image_grid(rows: Mapping[str, Any], file: Path, *, title: str = "") -> None:
    """Draws a grid with one labeled row of images per category.

    Args:
        rows: row label to images `[n, h, w, c]`, uint8 or float in [0, 1], with the same n in each row. Images with 3
            channels are drawn in color; of any other number the mean is drawn in gray, 1 as black ink.
        file: PNG file to write.
        title: title above the grid.
    """
    canvas = tile_images(rows)
    count, columns = len(rows), len(next(iter(rows.values())))
    figure, axes = _make_figure(TILE_INCHES * columns, TILE_INCHES * count)
    is_gray = canvas.shape[-1] != 3
    axes.imshow(canvas[..., 0] if is_gray else canvas, cmap="gray_r" if is_gray else None, vmin=0, vmax=1)
    step = canvas.shape[0] / count
    axes.set_yticks([step * (index + 0.5) - 0.5 for index in range(count)], list(rows))
    axes.set_xticks([])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(title, fontsize=10)
    write_figure(figure, file)


def accuracy_matrix(history: Sequence[Mapping[str, float]], file: Path) -> None:
    """Draws the matrix A[t, c] of accuracies in percent, with a row per task and a column per category.

    Args:
        history: for each task, category name to accuracy as a fraction.
        file: PNG file to write.
    """
    names = list(history[-1])
    values = np.full((len(history), len(names)), np.nan)
    for task, row in enumerate(history):
        for name, accuracy in row.items():
            values[task, names.index(name)] = 100 * accuracy
    figure, axes = _make_figure(0.55 * len(names) + 0.8, 0.4 * len(history) + 0.5)
    matrix = axes.imshow(values, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    for (task, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            color = "white" if value < 70 else "black"
            axes.text(column, task, f"{value:.1f}", ha="center", va="center", fontsize=7, color=color)
    is_long = max(map(len, names)) > 3
    axes.set_xticks(range(len(names)), names, rotation=45 if is_long else 0, ha="right" if is_long else "center")
    axes.set_yticks(range(len(history)), range(1, len(history) + 1))
    axes.set_xlabel("images of category")
    axes.set_ylabel("after task")
    axes.set_title("accuracy in percent", fontsize=10)
    figure.colorbar(matrix)
    write_figure(figure, file)


def scatter_panels(
    points: Mapping[str, tuple[np.ndarray, np.ndarray]], file: Path, *, columns: int, panel: float
) -> None:
    """Draws real and imagined points of each category in a panel of its own.

    Args:
        points: category name to real and imagined points, `[n, 2]` each.
        file: PNG file to write.
        columns: panels side by side.
        panel: side of a panel in inches.
    """
    with without_backend():
        from matplotlib.figure import Figure

    rows = -(-len(points) // columns)
    columns = min(columns, len(points))
    figure = Figure(figsize=(panel * columns, panel * rows), dpi=DOTS_PER_INCH)
    for index, (name, (real, imagined)) in enumerate(points.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        for label, values, color in (("real", real, "tab:gray"), ("imagined", imagined, "tab:blue")):
            axes.scatter(*values.T, s=3, alpha=0.5, color=color, label=label, linewidths=0)
        axes.set_title(name, fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
        if index == 0:
            axes.legend(fontsize=6, markerscale=2, loc="best")
    write_figure(figure, file)


def spectra(curves: Mapping[str, tuple[Any, Any]], file: Path) -> None:
    """Draws power spectra on logarithmic axes.

    Args:
        curves: label to frequencies in cycles per image and power, `[n]` each.
        file: PNG file to write.
    """
    figure, axes = _make_figure(4.0, 3.0)
    for label, (frequencies, power) in curves.items():
        axes.loglog(frequencies, power, label=label)
    axes.set_xscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")  # the default is math, which `write_figure` does not parse
        axis.set_minor_formatter("")
    axes.set_xlabel("cycles per image")
    axes.set_ylabel("mean power")
    axes.legend()
    write_figure(figure, file)


def tile_images(rows: Mapping[str, Any]) -> np.ndarray:
    """Places the rows of `image_grid` in one image with gaps, float `[height, width, 1 or 3]` in [0, 1]."""
    tiles = np.stack([_to_displayable(images) for images in rows.values()])
    padded = np.pad(tiles, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)])
    count, columns, height, width, channels = padded.shape
    return padded.transpose(0, 2, 1, 3, 4).reshape(count * height, columns * width, channels)


def _to_displayable(images: Any) -> np.ndarray:
    """Converts images to float with 3 channels or 1."""
    images = np.asarray(images)
    images = images / np.float32(255) if images.dtype == np.uint8 else images
    return images if images.shape[-1] == 3 else images.mean(axis=-1, keepdims=True)


def _make_figure(width: float, height: float) -> tuple[Any, Any]:
    # Without pyplot, which has global state and needs a window system.
    with without_backend():
        from matplotlib.figure import Figure

    # The axes fill the figure. `write_figure` extends it by the labels around them.
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
    return figure, figure.add_axes((0, 0, 1, 1))


@contextlib.contextmanager
def without_backend() -> Iterator[None]:
    """Hides MPLBACKEND from matplotlib's first import: the backend of a notebook may be missing here."""
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


@functools.cache
def find_font(character: str) -> str | None:
    """Returns a font family of this system that has a character, matplotlib's default if possible."""
    from matplotlib import font_manager

    # matplotlib's font of last resort draws a box for every character.
    fonts = [font for font in font_manager.fontManager.ttflist if not font.name.startswith("Last Resort")]
    for font in sorted(fonts, key=lambda font: (font.name != DEFAULT_FONT, font.name, font.fname)):
        with contextlib.suppress(OSError, RuntimeError):  # a damaged font file
            if font_manager.get_font(font.fname).get_char_index(ord(character)):
                return font.name
    return None


@functools.cache
def _warn_once(message: str) -> None:
    _logger.warning(message)


def write_figure(figure: Any, file: Path) -> None:
    """Writes a matplotlib figure as PNG, and creates its folder. Dollar signs are not parsed as math."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    characters = {character for text in texts for character in text.get_text() if not character.isspace()}
    families = {character: find_font(character) for character in sorted(characters)}
    if None in families.values():
        _warn_once("figures: no font of this system has all characters of the names, which are drawn as boxes")
    for text in texts:
        text.set_parse_math(False)  # category names may contain dollar signs
        text.set_fontfamily(list(dict.fromkeys([DEFAULT_FONT, *filter(None, families.values())])))
    file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        # What bbox_inches="tight" finds by drawing everything once more.
        tight = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer()).padded(PADDING)
        # Level 3 is faster than the default, and its files are smaller.
        figure.savefig(file, bbox_inches=tight, metadata={"Software": None}, pil_kwargs={"compress_level": 3})


def encode_png(pixels: np.ndarray) -> bytes:
    """Encodes an image `[height, width, c]` in [0, 1], gray (c = 1) or color (c = 3), as a PNG file."""
    values = to_uint8(pixels)
    content = io.BytesIO()
    Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values).save(content, "PNG")
    return content.getvalue()


def png_data_url(images: Any) -> str:
    """Returns a data URL (`data:image/png;base64,...`) that shows images side by side.

    Args:
        images: `[n, h, w, c]`, uint8 or float in [0, 1]. Images with 3 channels are shown in color; of any other
            number the mean is shown in gray, light on black.
    """
    return f"data:image/png;base64,{base64.b64encode(encode_png(tile_images({'': images}))).decode()}"
