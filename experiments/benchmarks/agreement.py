"""Whether devices agree: learning, evidence and drawings on each, as differences from the first CPU."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from experiments.benchmarks.config import BenchmarkConfig
from lifelong_cvae import recognition, sampling
from lifelong_cvae.config import Config
from lifelong_cvae.state import LifelongState, init
from lifelong_cvae.training.learn import learn

# Small networks that use every part: playback, factors, texture and the closed form.
SETTINGS = {
    "mixed_widths": (100, 100),
    "category_widths": (32, 32),
    "output_rank": 16,
    "mixed_mode": "playback",
    "epochs": 1,
    "min_steps": 40,
    "steps_per_call": 20,
    "num_filters": 50,
    "random_features": 400,
}
IMAGES = 400


def agreement(setting: BenchmarkConfig) -> dict[str, Any]:
    """Largest differences of each device from the first CPU, with small networks.

    Returns:
        `differences`: device in words to `evidence` (nats per image) and `imagined` (pixels in [0, 1]), both
        of one state, and `evidence_after_learning` (nats), each device having learned by itself.
        `evidence_deviation`: standard deviation of the evidence itself.
    """
    reference, rng = jax.devices("cpu")[0], setting.rng
    state = _learned(reference, rng)
    expected = _says(reference, state, rng)
    nats = expected["evidence"]
    figures = {}
    for device in jax.devices():
        found, own = _says(device, state, rng), _says(device, _learned(device, rng), rng)
        figures[f"{device.platform} {device.id}, {device.device_kind}"] = {
            **{name: float(np.abs(found[name] - expected[name]).max()) for name in expected},
            "evidence_after_learning": float(np.abs(own["evidence"] - nats).max()),
        }
    return {"differences": figures, "evidence_deviation": float(nats.std())}


def _images(seed: int) -> np.ndarray:
    """Bright bars on black, of random places and widths: smooth enough to be learned, uint8 `[n, 16, 16]`."""
    numbers = np.random.default_rng(seed)
    places = numbers.uniform(0, 16, (IMAGES, 1, 1))
    bars = np.exp(-np.square((np.arange(16) - places) / numbers.uniform(1, 3, (IMAGES, 1, 1))))
    images = np.broadcast_to(255 * bars, (IMAGES, 16, 16)).astype(np.uint8)
    return images if seed % 2 else images.transpose(0, 2, 1)


def _learned(device: jax.Device, rng: jax.Array) -> LifelongState:
    with jax.default_device(device):
        state = init(Config().with_settings(SETTINGS), (16, 16), rng=rng)
        for seed, name in enumerate(("upright", "level")):
            state, _ = learn(state, {name: _images(seed)}, rng=rng)
    return jax.device_get(state)


def _says(device: jax.Device, state: LifelongState, rng: jax.Array) -> dict[str, np.ndarray]:
    with jax.default_device(device):
        images = np.concatenate([_images(seed)[:50] for seed in (2, 3)])
        drawn = sampling.imagine(state, state.names, 8, rng=rng)
        return {
            "evidence": np.asarray(recognition.evidence(state, images)),
            "imagined": np.concatenate([np.asarray(drawn[name]) for name in state.names]),
        }
