"""Pictures, as PNG files: labelled grids of images and the accuracy matrix."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DOTS_PER_INCH = 150
TILE_INCHES = 0.42


def image_grid(rows: Mapping[str, Any], file: Path, *, title: str = "") -> None:
    """A row of images per category, its name at the left.

    Args:
        rows: name to images `[n, h, w, c]` in [0, 1] or uint8, as many for each; 3 channels are
            color, of any other number the mean is drawn in gray.
        file: the PNG to write.
        title: stands above.
    """
    canvas = tile_images(rows)
    count, columns = len(rows), len(next(iter(rows.values())))
    figure, axes = _figure(TILE_INCHES * columns, TILE_INCHES * count)
    gray = canvas.shape[-1] != 3
    axes.imshow(canvas[..., 0] if gray else canvas, cmap="gray_r" if gray else None, vmin=0, vmax=1)
    step = canvas.shape[0] / count
    axes.set_yticks([step * (index + 0.5) - 0.5 for index in range(count)], list(rows))
    axes.set_xticks([])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(title, fontsize=10)
    write_figure(figure, file)


def accuracy_matrix(history: Sequence[Mapping[str, float]], file: Path) -> None:
    """The matrix A[t, c]: a row per task, a column per category, values in per cent.

    Args:
        history: a dict per task, category name to accuracy as a fraction.
        file: the PNG to write.
    """
    names = list(history[-1])
    values = np.full((len(history), len(names)), np.nan)
    for task, row in enumerate(history):
        for name, accuracy in row.items():
            values[task, names.index(name)] = 100 * accuracy
    figure, axes = _figure(0.55 * len(names) + 0.8, 0.4 * len(history) + 0.5)
    shown = axes.imshow(values, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    for (task, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            color = "white" if value < 70 else "black"
            axes.text(column, task, f"{value:.1f}", ha="center", va="center", fontsize=7, color=color)
    long = max(map(len, names)) > 3
    axes.set_xticks(range(len(names)), names, rotation=45 if long else 0, ha="right" if long else "center")
    axes.set_yticks(range(len(history)), range(1, len(history) + 1))
    axes.set_xlabel("test images of category")
    axes.set_ylabel("after task")
    axes.set_title("accuracy in per cent", fontsize=10)
    figure.colorbar(shown)
    write_figure(figure, file)


def _displayable(images: Any) -> np.ndarray:
    images = np.asarray(images)
    images = images / np.float32(255) if images.dtype == np.uint8 else images
    return images if images.shape[-1] == 3 else images.mean(axis=-1, keepdims=True)


def tile_images(rows: Mapping[str, Any]) -> np.ndarray:
    """The images of `image_grid` side by side with a gap: float `[height, width, c]`, c is 1 or 3."""
    tiles = np.stack([_displayable(images) for images in rows.values()])
    padded = np.pad(tiles, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)])
    count, columns, height, width, channels = padded.shape
    return padded.transpose(0, 2, 1, 3, 4).reshape(count * height, columns * width, channels)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    # Figure without pyplot: no global state, no window system.
    from matplotlib.figure import Figure

    # The axes fill the figure; what stands around them widens it when it is written.
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
    return figure, figure.add_axes((0, 0, 1, 1))


def write_figure(figure: Any, file: Path) -> None:
    """Writes a PNG; texts are taken as they are, dollars too."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # names may hold dollars
    file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(file, bbox_inches="tight", metadata={"Software": None})


def png_data_url(images: Any) -> str:
    """Images side by side, as the address of a picture that holds it (`data:image/png;base64,...`).

    Args:
        images: `[n, h, w, c]`, uint8 or float in [0, 1]; 3 channels are color, of any other number the mean
            is shown in gray, light on black.
    """
    pixels = np.rint(255 * tile_images({"": images})).astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(written, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
