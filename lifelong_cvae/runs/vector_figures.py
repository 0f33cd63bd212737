"""Figures of a run on vectors: real and imagined ones on the first two principal directions of each category."""

import base64
from pathlib import Path

import jax
import numpy as np

from lifelong_cvae import plotting, sampling
from lifelong_cvae.data import Source
from lifelong_cvae.state import LifelongState

# Figure of the last state, in a run directory.
FILE = "figures/directions.png"
# Vectors of each kind that are shown.
SHOWN = 300
# Panels side by side, and their size in inches.
COLUMNS, PANEL = 5, 2.0


def plot_directions(state: LifelongState, source: Source, split: str, file: Path, *, rng: jax.Array) -> None:
    """Draws real vectors of a split and imagined ones, a panel per category."""
    real = {name: source.read(split, name, slice(SHOWN)) for name in state.names}
    imagined = sampling.imagine(state, state.names, SHOWN, rng=rng)
    points = {name: project(real[name], np.asarray(imagined[name])) for name in state.names}
    plotting.scatter_panels(points, file, columns=COLUMNS, panel=PANEL)


def read_directions(workdir: Path) -> str | None:
    """Returns the figure of a run on vectors as a data URL, None if there is none."""
    file = workdir / FILE
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}" if file.exists() else None


def project(real: np.ndarray, imagined: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Projects vectors `[n, d]` on the first two principal directions of the real ones: `[n, 2]` each.

    The second coordinate is 0 if there are fewer than two directions.
    """
    real, imagined = (np.asarray(values, np.float64) for values in (real, imagined))
    mean = real.mean(axis=0)
    directions = np.linalg.svd(real - mean, full_matrices=False)[2][:2]
    missing = 2 - len(directions)
    return tuple(np.pad((values - mean) @ directions.T, ((0, 0), (0, missing))) for values in (real, imagined))
