"""A thousand categories of real images: the categories of a source, shifted to different places."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lifelong_cvae.data import Source


class ShiftedCategories:
    """Categories such as "7 at 3,11": category 7 of a source, shifted 3 pixels down and 11 to the right.

    Shifts wrap around, so that no stroke is lost. The shifts form a grid over the image: two or three pixels apart if
    digits of 28 x 28 pixels make a thousand categories. Neighbors on the grid look alike, but digits are centered well
    enough to tell neighbors apart.

    Args:
        source: source of the images.
        count: number of categories.
    """

    def __init__(self, source: Source, count: int):
        self._source = source
        side = math.ceil(math.sqrt(math.ceil(count / len(source.categories))))
        height, width = source.image_shape[:2]
        shifts = [(i * height // side, j * width // side) for i in range(side) for j in range(side)]
        pairs = [(category, shift) for shift in shifts for category in source.categories]
        self._pairs = {f"{name} at {down},{right}": (name, (down, right)) for name, (down, right) in pairs[:count]}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the categories."""
        return tuple(self._pairs)

    def read(self, split: str, name: str) -> np.ndarray:
        """Returns the images of a category, `[n, h, w, c]`."""
        category, shift = self._pairs[name]
        return np.roll(self._source.read(split, category), shift, axis=(1, 2))

    def read_alternating(self, names: Sequence[str], count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns test images of categories that take turns.

        Args:
            names: the categories.
            count: number of images.

        Returns:
            Images `[count, h, w, c]` and the names of their categories `[count]`.
        """
        turns = [(names[index % len(names)], index // len(names)) for index in range(count)]
        pools = {name: self.read("test", name) for name in dict.fromkeys(name for name, _ in turns)}
        images = np.stack([pools[name][turn % len(pools[name])] for name, turn in turns])
        return images, np.asarray([name for name, _ in turns])
