"""Drawings and photos of one shape, brought to the form that handwritten digits have in MNIST."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from lifelong_cvae.errors import InputError
from lifelong_cvae.images import Shape, check_image_shape

BOX = 20 / 28  # part of the image's side that ink fills
MIN_INK = 8  # of 255: what is darker is no ink
# Width of a pen, as a part of the image's side: strokes through the middle of MNIST's training digits have
# the digits' ink then, and are recognized best.
PEN = 2.25 / 28
FINE = 8  # strokes are drawn so many times larger


def center_ink(ink: Any, image_shape: Sequence[int] = (28, 28, 1)) -> np.ndarray:
    """Light ink on black, scaled into the middle 20 x 20 of 28 x 28, its center of mass at pixel (14, 14).

    That is how MNIST was made (LeCun, Bottou, Bengio and Haffner 1998, section III.A), from images of
    another size in proportion.

    Args:
        ink: uint8 `[height, width]`; 0 is where no ink is.
        image_shape: (height, width, channels) that is wanted.

    Returns:
        uint8 of that shape, the same in all channels.

    Raises:
        InputError: another type or rank, or there is no ink.
    """
    height, width, channels = check_image_shape(image_shape)
    ink = np.asarray(ink)
    if ink.dtype != np.uint8 or ink.ndim != 2:
        raise InputError(f"ink: uint8 [height, width] is expected, got {ink.dtype} of {ink.ndim} dimensions")
    rows, columns = (np.flatnonzero((ink > MIN_INK).any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        raise InputError("there is no ink in the drawing: at least a dot is expected")
    drawn = Image.fromarray(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scale = BOX * min(width / drawn.width, height / drawn.height)
    size = max(1, round(scale * drawn.width)), max(1, round(scale * drawn.height))
    # Bilinear with antialiasing: sharper filters leave rims that the scans of digits do not have.
    return _place_ink(np.asarray(drawn.resize(size, Image.Resampling.BILINEAR)), (height, width, channels))


def render_strokes(strokes: Sequence[Any], image_shape: Sequence[int] = (28, 28, 1)) -> np.ndarray:
    """Strokes as a pen would draw them into the place that `centerd` gives to ink.

    Strokes are scaled before they are drawn, so that the pen is as wide as those of MNIST's writers whatever
    the size that they were drawn in.

    Args:
        strokes: each `[points, 2]`, x to the right and y downwards, in any unit; one point is a dot.
        image_shape: (height, width, channels) that is wanted.

    Returns:
        uint8 of that shape, light on black, the same in all channels.

    Raises:
        InputError: no stroke, or one that is not finite points.
    """
    height, width, channels = check_image_shape(image_shape)
    lines = [_points(stroke) for stroke in strokes]
    if not lines:
        raise InputError("there is no stroke in the drawing: at least a dot is expected")
    together = np.concatenate(lines)
    corner, extent = together.min(axis=0), np.ptp(together, axis=0)
    ink = PEN * min(height, width)
    box = BOX * np.asarray([width, height]) - ink
    scale = FINE * np.min(box / np.maximum(extent, 1e-6 + 0.05 * extent.max()))
    size = np.ceil((scale * extent + FINE * ink) / FINE).astype(int)
    canvas = Image.new("L", tuple(FINE * size.clip(1)))
    draw = ImageDraw.Draw(canvas)
    radius = FINE * ink / 2
    for line in lines:
        points = scale * (line - corner) + radius
        draw.line([tuple(point) for point in points], fill=255, width=round(2 * radius))
        for x, y in points:  # round ends and joints
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return _place_ink(np.asarray(canvas.reduce(FINE)), (height, width, channels))


def _points(stroke: Any) -> np.ndarray:
    try:
        points = np.asarray(stroke, np.float64)
    except (TypeError, ValueError):
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points) or not (np.abs(points) < 1e9).all():
        raise InputError("a stroke: finite points [points, 2] are expected, at least one")
    return points


def _place_ink(small: np.ndarray, shape: Shape) -> np.ndarray:
    """Ink `[h, w]` in an image of a shape, its center of mass in the middle."""
    height, width, channels = shape
    image = np.zeros((height, width), np.uint8)
    top, left = (_start(small.sum(axis=axis), side) for axis, side in ((1, height), (0, width)))
    image[top : top + small.shape[0], left : left + small.shape[1]] = small
    return np.repeat(image[..., None], channels, axis=-1)


def _start(weights: np.ndarray, side: int) -> int:
    """Where something of these weights begins, so that its center of mass is the middle of a side."""
    middle = np.average(np.arange(weights.size), weights=weights)
    return int(np.clip(round(side / 2 - middle), 0, side - weights.size))


def extract_ink(photo: Any) -> np.ndarray:
    """The ink in a photo or scan of writing on even ground, light on black.

    Args:
        photo: uint8 `[height, width]` or `[height, width, 1]`, dark on light or light on dark.

    Returns:
        uint8 `[height, width]`: the ground is 0, the strongest ink 255.
    """
    gray = np.asarray(photo, np.float32).reshape(np.shape(photo)[:2])
    ground = np.median(gray)
    darker, lighter = ground - gray.min(), gray.max() - ground
    strength = (ground - gray if darker > lighter else gray - ground) / max(darker, lighter, 1)
    # Paper is never even: what is nearer to the ground than to the ink counts as ground.
    return np.round(255 * np.clip(2 * strength - 0.5, 0, 1)).astype(np.uint8)
