"""Writes the outputs that four devices compute for a state, in their own process: `python -m tests.devices FOLDER`."""

import sys
from pathlib import Path

import jax
import numpy as np

import lifelong_cvae as lifelong
from tests.test_sharding import MESH, NEW, outputs


def main():
    assert jax.device_count() == 4
    folder, mesh = Path(sys.argv[1]), lifelong.make_mesh(*MESH)
    with np.load(folder / "images.npz") as images:
        state = lifelong.load(folder / "state")
        np.savez(folder / "outputs.npz", **outputs(state, images[NEW], images["test"], mesh))


if __name__ == "__main__":
    main()
