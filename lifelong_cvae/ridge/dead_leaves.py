"""Dead leaves: synthetic images of shapes that occlude each other.

Their edges, corners and shading have the statistics of photographs at every scale (Lee, Mumford and Huang 2001,
"Occlusion models for natural images"). Networks have been trained on such images in place of real ones (Baradad et al.
2021, arXiv 2106.05963).
"""

import numpy as np

from lifelong_cvae.ridge.settings import MAX_FILTER_SIZE

# Side of an image, and how much larger it is drawn before it is averaged, in pixels.
SIDE = MAX_FILTER_SIZE
OVERSAMPLING = 2
# Shapes per image. The first covers everything.
SHAPES = 400
# Radii have the density r^-3 between these bounds, in pixels.
RADII = (1.0, 48.0)
# A shape is at most 2^1.5 times as long as wide.
LOG_ASPECT = 1.5
# Standard deviations of a shape's shading from center to edge, and of its channels about their common value.
SHADING = 0.25
CHROMA = 0.25


def sample_images(count: int, channels: int, numbers: np.random.Generator) -> np.ndarray:
    """Samples images `[count, SIDE, SIDE, channels]`, float32 in [0, 1].

    Args:
        count: number of images.
        channels: 1 gives gray images, more give colored shapes.
        numbers: source of random numbers.
    """
    images = np.empty((count, SIDE, SIDE, channels), np.float32)
    for image in images:
        canvas = np.zeros((SIDE * OVERSAMPLING, SIDE * OVERSAMPLING, channels), np.float32)
        for shape in _sample_shapes(channels, numbers):
            _draw(canvas, shape)
        image[:] = canvas.reshape(SIDE, OVERSAMPLING, SIDE, OVERSAMPLING, channels).mean(axis=(1, 3))
    return np.clip(images, 0, 1, out=images)


def _sample_shapes(channels: int, numbers: np.random.Generator) -> np.ndarray:
    """Samples the shapes of an image from back to front, a row each: see `_draw`."""
    smallest, largest = RADII
    # Inverse of the distribution function of the density r^-3.
    radii = (smallest**-2 - numbers.random(SHAPES) * (smallest**-2 - largest**-2)) ** -0.5
    radii[0] = 10 * SIDE
    margin = np.minimum(radii, SIDE)
    centers = numbers.random((2, SHAPES)) * (SIDE + 2 * margin) - margin
    angles = numbers.random(SHAPES) * np.pi
    stretch = 2 ** (0.5 * numbers.uniform(-LOG_ASPECT, LOG_ASPECT, SHAPES))
    slopes = SHADING * numbers.standard_normal(SHAPES) / np.maximum(radii, 4)
    is_rectangle = numbers.random(SHAPES) < 0.5
    values = numbers.random((SHAPES, 1)) + np.zeros((1, channels))
    if channels > 1:
        values += CHROMA * numbers.standard_normal(values.shape)
    axes = np.cos(angles) / stretch, np.sin(angles) / stretch, np.cos(angles) * stretch, np.sin(angles) * stretch
    return np.column_stack([radii, *centers, *axes, slopes, is_rectangle, values]).astype(np.float32)


def _draw(canvas: np.ndarray, shape: np.ndarray) -> None:
    """Draws an ellipse or a rectangle over what lies behind it.

    Args:
        canvas: `[height, width, channels]`, drawn in place.
        shape: radius, center (row, column), the long axis (across, down), the short axis (down, across), slope of the
            shading along the long axis, whether it is a rectangle, and the value of each channel.
    """
    radius, row, column, long_across, long_down, short_down, short_across, slope, is_rectangle = shape[:9]
    # The farthest corner of a rectangle is at sqrt(2^1.5 + 2^-1.5) = 1.78 radii.
    reach = 1.8 * radius
    spans = []
    for center, length in zip((row, column), canvas.shape[:2], strict=True):
        first, last = (center - reach) * OVERSAMPLING, (center + reach) * OVERSAMPLING + 1
        spans.append(slice(max(0, int(first)), min(length, max(0, int(last)))))
    if any(span.start >= span.stop for span in spans):
        return
    down, across = (
        np.arange(span.start, span.stop, dtype=np.float32) / OVERSAMPLING - center
        for span, center in zip(spans, (row, column), strict=True)
    )
    along = long_down * down[:, None] + long_across * across[None]
    beside = short_down * down[:, None] - short_across * across[None]
    if is_rectangle:
        inside = np.maximum(np.abs(along), np.abs(beside)) < radius
    else:
        inside = along * along + beside * beside < radius * radius
    covered = shape[9:] + (slope * along)[..., None]
    region = canvas[spans[0], spans[1]]
    np.copyto(region, covered, where=inside[..., None])
