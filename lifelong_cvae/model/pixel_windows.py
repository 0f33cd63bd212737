"""Inputs of the pixel model: windows of a pixel, and the basis in which a network reads them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.images import Shape

Offset = tuple[int, int]

# The window of earlier pixels: so many rows above, and so many columns to either side.
ROWS_ABOVE, COLUMNS_BESIDE = 4, 4
# The window of the blurred image reaches so far in each direction.
MEAN_RADIUS = 2
# Scales that give inputs a standard deviation near 1: differences of neighbors, of the blurred image, single values.
NEIGHBOR_SCALE, MEAN_SCALE, VALUE_SCALE = 10.0, 30.0, 5.0


@dataclass(frozen=True)
class Windows:
    """Positions of a pixel's inputs in padded images. Static: hashable, equal by value.

    Attributes:
        image_shape: (height, width, channels).
    """

    image_shape: Shape

    @property
    def neighbors(self) -> list[Offset]:
        """Offsets (rows, columns) of earlier pixels."""
        above = [
            (row, column) for row in range(-ROWS_ABOVE, 0) for column in range(-COLUMNS_BESIDE, COLUMNS_BESIDE + 1)
        ]
        return above + [(0, column) for column in range(-COLUMNS_BESIDE, 0)]

    @property
    def means(self) -> list[Offset]:
        """Offsets (rows, columns) of the window of m."""
        reach = range(-MEAN_RADIUS, MEAN_RADIUS + 1)
        return [(row, column) for row in reach for column in reach]

    @property
    def padding(self) -> int:
        """Pixels that are added at every edge, so that all windows fit."""
        return max(ROWS_ABOVE, COLUMNS_BESIDE, MEAN_RADIUS)

    @property
    def padded_width(self) -> int:
        """Width of a padded image."""
        return self.image_shape[1] + 2 * self.padding

    @property
    def positions(self) -> int:
        """Number of pixels of an image, without channels."""
        return self.image_shape[0] * self.image_shape[1]

    def num_inputs(self, latent_size: int) -> int:
        """Returns the number of inputs of a pixel: its windows, z, and its row and column."""
        return self.image_shape[2] * (len(self.neighbors) + len(self.means)) + latent_size + 2

    def pad(self, rows: jax.Array) -> jax.Array:
        """Pads images `[batch, pixels]` with zeros: `[batch, padded positions, channels]`."""
        size, channels = self.padding, self.image_shape[2]
        padded = jnp.pad(rows.reshape(-1, *self.image_shape), ((0, 0), (size, size), (size, size), (0, 0)))
        return padded.reshape(len(rows), -1, channels)

    def padded_position(self, positions: jax.Array) -> jax.Array:
        """Returns the positions in a padded image of positions in an image."""
        row, column = jnp.divmod(positions, self.image_shape[1])
        return (row + self.padding) * self.padded_width + column + self.padding

    def steps(self, offsets: list[Offset]) -> np.ndarray:
        """Returns the distances in a padded image that belong to offsets."""
        return np.asarray([row * self.padded_width + column for row, column in offsets])


@lru_cache(maxsize=8)
def difference_basis(windows: Windows, size: int) -> np.ndarray:
    """Returns the map from inputs to differences of adjacent pixels, float32 `[inputs, inputs]`.

    Adjacent pixels are nearly equal, and a network that reads them as they are learns many times more slowly. Their
    differences are nearly uncorrelated. Each input but the nearest one becomes its difference from the next input on
    the way to the pixel; channels become their mean and two differences. `size` is `windows.num_inputs`.
    """
    channels = windows.image_shape[2]
    neighbors = _difference_matrix(windows.neighbors, _toward_neighbors, NEIGHBOR_SCALE)
    means = _difference_matrix(windows.means, _toward_center, MEAN_SCALE)
    colors = np.eye(channels)
    if channels == 3:
        colors = np.array([[1 / 3, 1 / 3, 1 / 3], [2, 0, -2], [-1, 2, -1]]).T
    basis, first = np.eye(size, dtype=np.float32), 0
    for block in (np.kron(neighbors, colors), np.kron(means, colors)):
        basis[first : first + len(block), first : first + len(block)] = block
        first += len(block)
    return basis


def _difference_matrix(offsets: list[Offset], toward: Callable[[Offset], Offset | None], scale: float) -> np.ndarray:
    """Returns the matrix whose column j is the difference of input j from the next one, if any."""
    matrix = np.eye(len(offsets)) * scale
    for column, offset in enumerate(offsets):
        following = toward(offset)
        if following in offsets:
            matrix[offsets.index(following), column] = -scale
        else:
            matrix[column, column] = VALUE_SCALE
    return matrix


def _toward_neighbors(offset: Offset) -> Offset:
    row, column = offset
    if row == 0 or (row == -1 and column > 0):
        return (row, column + (1 if row == 0 else -1))
    if row == -1 and column == 0:
        return (0, -1)
    return (row + 1, column)


def _toward_center(offset: Offset) -> Offset | None:
    row, column = offset
    if offset == (0, 0):
        return None
    return (row - np.sign(row), column) if abs(row) >= abs(column) else (row, column - np.sign(column))
