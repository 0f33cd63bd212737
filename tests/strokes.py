"""Strokes of a pen that trace a digit along the middle of its ink."""

import numpy as np
from scipy import ndimage

# Factor by which a digit is enlarged before it is thinned.
ZOOM = 4
# Gray level of ink in the enlarged digit.
INK_LEVEL = 100
# Points at the end of a stroke that define its direction.
DIRECTION_POINTS = 4


def strokes_of(digit):
    """Traces a digit `[28, 28]`: strokes, each a list of points (x, y) in pixels of the digit."""
    from skimage.morphology import skeletonize

    enlarged = ndimage.gaussian_filter(ndimage.zoom(digit.astype(float), ZOOM, order=3), 1.5)
    skeleton = {tuple(point) for point in np.argwhere(skeletonize(enlarged > INK_LEVEL))}
    remaining, strokes = set(skeleton), []
    while remaining:
        # An end of a line has at most one neighbor.
        start = min(remaining, key=lambda point: (len(_neighbors(point, remaining)) > 1, point))
        stroke = _trace(start, remaining)
        joined = [*_joint(stroke[0], stroke, skeleton), *stroke, *_joint(stroke[-1], stroke, skeleton)]
        if len(joined) > ZOOM or not strokes:
            strokes.append([(x / ZOOM, y / ZOOM) for y, x in joined])
    return strokes


def _neighbors(point, points):
    """Returns the neighbors of a point among `points`, sorted."""
    y, x = point
    adjacent = {(y + down, x + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} - {point}
    return sorted(adjacent & points)


def _trace(start, remaining):
    """Follows points from a start, as straight as possible, and removes them from `remaining`."""
    stroke = [start]
    remaining.discard(start)
    while neighbors := _neighbors(stroke[-1], remaining):
        direction = np.subtract(stroke[-1], stroke[max(0, len(stroke) - DIRECTION_POINTS)])
        steps = [np.subtract(point, stroke[-1]) for point in neighbors]
        straightest = max(
            range(len(neighbors)), key=lambda index: steps[index] @ direction / np.linalg.norm(steps[index])
        )
        stroke.append(neighbors[straightest])
        remaining.discard(neighbors[straightest])
    return stroke


def _joint(end, stroke, skeleton):
    """Returns the point at which the end of a stroke touches another stroke, as a list of at most one."""
    return [point for point in _neighbors(end, skeleton) if point not in stroke][:1]
