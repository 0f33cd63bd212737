"""Arguments that all benchmarks share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from lifelong_cvae.config import Config
from lifelong_cvae.data import Source


@dataclass(frozen=True)
class BenchmarkConfig:
    """Arguments of a benchmark.

    Attributes:
        seed: seed of all randomness.
        config: settings of the model. Some benchmarks replace some of them.
        open_source: opens the images, for the benchmarks that learn real ones.
        flags: flags of the command, written beside the figures.
        save: writes the figures so far, for benchmarks that take long.
    """

    seed: int
    config: Config
    open_source: Callable[[], Source]
    flags: dict[str, object]
    save: Callable[[dict[str, Any]], None] = lambda _: None

    @property
    def rng(self) -> jax.Array:
        """The seed's key."""
        return jax.random.key(self.seed)
