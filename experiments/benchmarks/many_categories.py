"""A thousand categories of real images: those of a source, moved to other places."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lifelong_cvae.data import Source


class Crowd:
    """Categories such as "7 at 3,11": the images of category 7 of a source, 3 pixels lower, 11 to the right.

    What leaves the image on one side comes back on the other, so that no stroke is lost. Places are a grid
    over the image, two or three pixels apart where digits of 28 x 28 pixels make a thousand categories:
    neighbors look alike, but digits are centerd well enough to tell them apart.

    Args:
        source: of the images.
        count: of categories.
    """

    def __init__(self, source: Source, count: int):
        self._source = source
        side = math.ceil(math.sqrt(math.ceil(count / len(source.categories))))
        height, width = source.image_shape[:2]
        places = [(i * height // side, j * width // side) for i in range(side) for j in range(side)]
        made = [(name, place) for place in places for name in source.categories]
        self._made = {f"{name} at {down},{right}": (name, (down, right)) for name, (down, right) in made[:count]}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the categories."""
        return tuple(self._made)

    def read(self, split: str, name: str) -> np.ndarray:
        """Images of a category, `[n, h, w, c]`."""
        original, place = self._made[name]
        return np.roll(self._source.read(split, original), place, axis=(1, 2))

    def mixed(self, names: Sequence[str], count: int) -> tuple[np.ndarray, np.ndarray]:
        """So many test images, each of the next category: `[count, h, w, c]`, and of which, `[count]`."""
        turns = [(names[index % len(names)], index // len(names)) for index in range(count)]
        pools = {name: self.read("test", name) for name in dict.fromkeys(name for name, _ in turns)}
        images = np.stack([pools[name][turn % len(pools[name])] for name, turn in turns])
        return images, np.asarray([name for name, _ in turns])
