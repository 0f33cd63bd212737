"""Writes the exhibits of the museum: checkpoints and run folders of this version, and what it answers with them.

    python -m tests.museum.write tests/museum/schema_4

Every schema from 4 on is read for ever, and `tests/checkpoints/test_museum.py` reads each exhibit. Exhibits are
written once, by the version that introduces a schema, and never again. Run it from the root of the repository. It uses
names of version 0.1, which 0.2 accepts: `schema_4` was written by commit 2835e8e.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import lifelong_cvae as lifelong

DIGITS = Path("tests/museum/digits.npz")
SMALL = {
    "mixed_widths": "8",
    "category_widths": "6",
    "rank": 4,
    "latent_size": 3,
    "epochs": 1,
    "min_steps": 40,
    "chunk_steps": 10,
    "batch_size": 16,
    "prior_components": 2,
    "factors": 2,
    "memory_size": 64,
    "memory_categories": 2,
    "memory_images": 8,
    "filters": 6,
    "cells": 2,
    "random_features": 30,
}
CHECKPOINTS: dict[str, dict[str, Any]] = {
    "neurons": {"mixed_mode": "playback"},
    "own_gram": {"gram": "own", "local": "patches"},
    "one_hot": {"growth": "vectors", "mixed_mode": "playback"},
}
NAMES = ("3", "1")


def write_digits() -> None:
    """Writes 14 x 14 digits: 60 training and 20 test images of each of three categories."""
    from lifelong_cvae.data import open_source

    source, arrays = open_source("mnist5k"), {}
    for split, count in (("train", 60), ("test", 20)):
        images = np.concatenate([source.read(split, name)[:count] for name in "134"])
        arrays[f"{split}_images"] = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).astype(np.uint8)
        arrays[f"{split}_labels"] = np.repeat([1, 3, 4], count)
    np.savez_compressed(DIGITS, **arrays)


def answers(state: lifelong.LifelongState, prefix: str) -> dict[str, np.ndarray]:
    """Evidence of all test images in nats, p(c|x), and imagined images, under names that begin with `prefix`."""
    test = np.load(DIGITS)["test_images"]
    imagined = lifelong.imagine(state, state.names, 2, rng=jax.random.key(5))
    return {
        f"{prefix}/evidence": np.asarray(lifelong.evidence(state, test)),
        f"{prefix}/probabilities": lifelong.recognise(state, test)[1],
        **{f"{prefix}/imagined/{name}": np.asarray(images) for name, images in imagined.items()},
    }


def write_checkpoints(folder: Path) -> dict[str, np.ndarray]:
    """Writes a checkpoint for each kind of network and returns the answers of its state."""
    expected, digits = {}, np.load(DIGITS)
    for kind, settings in CHECKPOINTS.items():
        rng = jax.random.key(3)
        state = lifelong.init(lifelong.Config().with_settings({**SMALL, **settings}), (14, 14), rng=rng)
        for name in NAMES:
            images = digits["train_images"][digits["train_labels"] == int(name)]
            state, _ = lifelong.learn(state, {name: images}, rng=rng)
        lifelong.save(state, folder / kind)
        expected |= answers(state, kind)
    return expected


def learn(workdir: Path, *flags: str, stop_within: int | None = None) -> None:
    """Runs the launcher `learn`; with `stop_within` it is sent SIGTERM during that task."""
    command = [sys.executable, "-m", "experiments.learn", f"--workdir={workdir}"]
    command += ["--nofigures", "--noreport", "--notensorboard", "--checkpoint_every=0", *flags]
    process = subprocess.Popen(command)
    if stop_within is not None:
        while process.poll() is None and not any((workdir / f"within_task/{stop_within}").glob("[0-9]*")):
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
    assert process.wait() == (0 if stop_within is None else 143)


def main(folder: Path) -> None:
    """Writes all exhibits into a new folder."""
    if not DIGITS.exists():
        write_digits()
    folder.mkdir()
    expected = write_checkpoints(folder)
    settings = [f"--set={key}={value}" for key, value in SMALL.items()]
    flags = [f"--dataset=npz:{DIGITS}", f"--categories={','.join(NAMES)}", *settings]
    learn(folder / "run", *flags, "--keep=all")
    learn(folder / "stopped", *flags, "--set=min_steps=2000", "--set=mixed_mode=playback", stop_within=2)
    resumed = folder.with_name("resumed")
    shutil.copytree(folder / "stopped", resumed)
    learn(resumed, "--resume")
    for name, workdir in (("run", folder / "run"), ("stopped", resumed)):
        expected |= answers(lifelong.load(workdir / "checkpoints"), name)
    shutil.rmtree(resumed)
    np.savez_compressed(folder / "expected.npz", **expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
