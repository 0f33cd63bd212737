"""What a benchmark is run with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax

from lifelong_cvae.config import Config
from lifelong_cvae.data import Source


@dataclass(frozen=True)
class BenchmarkConfig:
    """What a benchmark is run with.

    Attributes:
        seed: of all randomness.
        config: the settings of the model; benchmarks of other networks say so.
        open_source: opens the images, for the benchmarks that learn real ones.
        recorded: what the figures are written with: the command's options.
    """

    seed: int
    config: Config
    open_source: Callable[[], Source]
    recorded: dict[str, object]

    @property
    def rng(self) -> jax.Array:
        """The seed's key."""
        return jax.random.key(self.seed)
