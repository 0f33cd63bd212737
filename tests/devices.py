"""What four devices make of a state, in a process of their own: `python -m tests.devices FOLDER`."""

import sys
from pathlib import Path

import jax
import numpy as np

import lifelong_cvae as lifelong
from tests.test_sharding import MESH, NEW, says


def main():
    assert jax.device_count() == 4
    folder, mesh = Path(sys.argv[1]), lifelong.make_mesh(*MESH)
    with np.load(folder / "images.npz") as images:
        np.savez(folder / "said.npz", **says(lifelong.load(folder / "state"), images[NEW], images["test"], mesh))


if __name__ == "__main__":
    main()
