"""Rows of an array, read when they are needed: the array may be larger than memory and lie on disk."""

from dataclasses import dataclass
from typing import Any

import numpy as np

# Bytes that are read at once.
BLOCK_BYTES = 2**28


@dataclass(frozen=True, eq=False)
class Rows:
    """Selected rows of an array `[n, pixels]`, in order. Indexing reads them, `[..., pixels]`.

    Attributes:
        values: the array, for example a `numpy.memmap`.
        index: rows, increasing, int `[m]`.
    """

    values: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.values[self.index[key]]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of values per row."""
        return len(self.index), self.values.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self.values.dtype

    @property
    def nbytes(self) -> int:
        """Size of the rows in memory."""
        return len(self.index) * self.values.shape[1] * self.values.itemsize


def blocks(rows: Any) -> list[slice]:
    """Returns slices of rows `[n, ...]` of at most `BLOCK_BYTES`, at least one row each."""
    height = max(1, BLOCK_BYTES // max(1, rows.nbytes // max(1, len(rows))))
    return [slice(start, start + height) for start in range(0, len(rows), height)]
