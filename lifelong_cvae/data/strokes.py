"""Drawings and photos of a single shape, brought to the form of the handwritten digits in MNIST."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from lifelong_cvae.errors import InputError
from lifelong_cvae.images import Shape, check_image_shape

# Fraction of the image's side that ink fills.
BOX = 20 / 28
# Brightest gray level (of 255) that does not count as ink.
MIN_INK = 8
# Width of a pen, as a fraction of the image's side. With it, strokes through the middle of MNIST's training digits have
# as much ink as the digits, and are recognized best.
PEN = 2.25 / 28
# Factor of supersampling at which strokes are drawn.
FINE = 8


def center_ink(ink: Any, image_shape: Sequence[int] = (28, 28, 1)) -> np.ndarray:
    """Scales light ink on black into the middle 20 x 20 of 28 x 28, its center of mass at pixel (14, 14).

    MNIST was made in this way (LeCun, Bottou, Bengio and Haffner 1998, section III.A). Other image shapes are filled
    in proportion.

    Args:
        ink: uint8 `[height, width]`; 0 is no ink.
        image_shape: (height, width, channels) of the result.

    Returns:
        uint8 of shape `image_shape`, the same in all channels.

    Raises:
        InputError: another type or rank, or no ink.
    """
    height, width, channels = check_image_shape(image_shape)
    ink = np.asarray(ink)
    if ink.dtype != np.uint8 or ink.ndim != 2:
        raise InputError(f"ink: expected uint8 [height, width], got {ink.dtype} {ink.shape}")
    rows, columns = (np.flatnonzero((ink > MIN_INK).any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        raise InputError("drawing: expected at least a dot of ink, got none")
    cropped = Image.fromarray(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scale = BOX * min(width / cropped.width, height / cropped.height)
    size = max(1, round(scale * cropped.width)), max(1, round(scale * cropped.height))
    # Bilinear with antialiasing: sharper filters leave rims that the scans of digits do not have.
    return _place_ink(np.asarray(cropped.resize(size, Image.Resampling.BILINEAR)), (height, width, channels))


def render_strokes(strokes: Sequence[Any], image_shape: Sequence[int] = (28, 28, 1)) -> np.ndarray:
    """Draws strokes with a pen into the box and at the position that `center_ink` gives to ink.

    Strokes are scaled before they are drawn, so that the pen is as wide as those of MNIST's writers at any size of
    the strokes.

    Args:
        strokes: each `[points, 2]`, x to the right and y downwards, in any unit; one point is a dot.
        image_shape: (height, width, channels) of the result.

    Returns:
        uint8 of shape `image_shape`, light on black, the same in all channels.

    Raises:
        InputError: no stroke, or one that is not finite points.
    """
    height, width, channels = check_image_shape(image_shape)
    lines = [_check_points(stroke) for stroke in strokes]
    if not lines:
        raise InputError("drawing: expected at least one stroke, got none")
    all_points = np.concatenate(lines)
    corner, extent = all_points.min(axis=0), np.ptp(all_points, axis=0)
    pen = PEN * min(height, width)
    box = BOX * np.asarray([width, height]) - pen
    scale = FINE * np.min(box / np.maximum(extent, 1e-6 + 0.05 * extent.max()))
    size = np.ceil((scale * extent + FINE * pen) / FINE).astype(int)
    canvas = Image.new("L", tuple(FINE * size.clip(1)))
    draw = ImageDraw.Draw(canvas)
    radius = FINE * pen / 2
    for line in lines:
        points = scale * (line - corner) + radius
        draw.line([tuple(point) for point in points], fill=255, width=round(2 * radius))
        for x, y in points:  # round ends and joints
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return _place_ink(np.asarray(canvas.reduce(FINE)), (height, width, channels))


def _check_points(stroke: Any) -> np.ndarray:
    """Returns a stroke as float64 `[points, 2]`."""
    try:
        points = np.asarray(stroke, np.float64)
    except (TypeError, ValueError):
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points) or not (np.abs(points) < 1e9).all():
        start = " ".join(repr(stroke).split())[:60]
        raise InputError(f"stroke: expected finite points [points, 2], at least one, got {start}")
    return points


def _place_ink(ink: np.ndarray, shape: Shape) -> np.ndarray:
    """Places ink `[h, w]` in a black image of a shape, its center of mass in the middle."""
    height, width, channels = shape
    image = np.zeros((height, width), np.uint8)
    top, left = (_centered_start(ink.sum(axis=axis), side) for axis, side in ((1, height), (0, width)))
    image[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return np.repeat(image[..., None], channels, axis=-1)


def _centered_start(weights: np.ndarray, side: int) -> int:
    """Returns the start at which the center of mass of `weights` is nearest to the middle of a side."""
    center = np.average(np.arange(weights.size), weights=weights)
    return int(np.clip(round(side / 2 - center), 0, side - weights.size))


def extract_ink(photo: Any) -> np.ndarray:
    """Extracts the ink of a photo or scan of writing on even ground, uint8 `[height, width]`; 255 is most.

    Args:
        photo: uint8 `[height, width]` or `[height, width, 1]`, dark on light or light on dark.
    """
    gray = np.asarray(photo, np.float32).reshape(np.shape(photo)[:2])
    ground = np.median(gray)
    darker, lighter = ground - gray.min(), gray.max() - ground
    strength = (ground - gray if darker > lighter else gray - ground) / max(darker, lighter, 1)
    # Paper is never even: less than a quarter of the strongest ink counts as ground, more than three quarters as ink.
    return np.round(255 * np.clip(2 * strength - 0.5, 0, 1)).astype(np.uint8)
