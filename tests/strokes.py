"""Strokes of a pen that would have written a digit: lines through the middle of its ink."""

import numpy as np
from scipy import ndimage

ZOOM = 4


def strokes_of(digit):
    """A digit `[28, 28]` as strokes, each a list of points (x, y) in its pixels."""
    from skimage.morphology import skeletonize

    large = ndimage.gaussian_filter(ndimage.zoom(digit.astype(float), ZOOM, order=3), 1.5)
    line = {tuple(point) for point in np.argwhere(skeletonize(large > 100))}
    left, strokes = set(line), []
    while left:
        start = min(left, key=lambda point: (len(_around(point, left)) > 1, point))  # an end, where there is one
        stroke = _followed(start, left)
        joined = [*_joint(stroke[0], stroke, line), *stroke, *_joint(stroke[-1], stroke, line)]
        if len(joined) > ZOOM or not strokes:
            strokes.append([(x / ZOOM, y / ZOOM) for y, x in joined])
    return strokes


def _around(point, points):
    """Neighbors of a point among points."""
    y, x = point
    near = {(y + down, x + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} - {point}
    return sorted(near & points)


def _followed(start, left):
    """Points from a start on, as straight as they go; they are taken out of `left`."""
    stroke = [start]
    left.discard(start)
    while near := _around(stroke[-1], left):
        ahead = np.subtract(stroke[-1], stroke[max(0, len(stroke) - 4)])
        steps = [np.subtract(point, stroke[-1]) for point in near]
        best = max(range(len(near)), key=lambda index: steps[index] @ ahead / np.linalg.norm(steps[index]))
        stroke.append(near[best])
        left.discard(near[best])
    return stroke


def _joint(end, stroke, line):
    """Where the end of a stroke touches another one."""
    return [point for point in _around(end, line) if point not in stroke][:1]
