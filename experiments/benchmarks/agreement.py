"""Agreement of devices: differences in learning, evidence and imagined images from the first CPU."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from experiments.benchmarks.config import BenchmarkConfig
from lifelong_cvae import recognition, sampling
from lifelong_cvae.config import Config
from lifelong_cvae.state import LifelongState, init
from lifelong_cvae.training.learn import learn

# Small networks that use every part: replay, low-rank noise, texture and the closed form.
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
# Training images per category.
IMAGES = 400


def agreement(benchmark_config: BenchmarkConfig) -> dict[str, Any]:
    """Compares each device with the first CPU, with small networks.

    Returns:
        `differences`: by device, the largest differences of `evidence` (nats per image) and `imagined` (pixels in
        [0, 1]) for one state, and of `evidence_after_learning` (nats per image) for a state that was learned on the
        device. `evidence_deviation`: standard deviation of the evidence.
    """
    reference, rng = jax.devices("cpu")[0], benchmark_config.rng
    state = _learned_state(reference, rng)
    expected = _outputs(reference, state, rng)
    differences = {}
    for device in jax.devices():
        outputs = _outputs(device, state, rng)
        after_learning = _outputs(device, _learned_state(device, rng), rng)
        differences[f"{device.platform} {device.id}, {device.device_kind}"] = {
            **{name: float(np.abs(outputs[name] - expected[name]).max()) for name in expected},
            "evidence_after_learning": float(np.abs(after_learning["evidence"] - expected["evidence"]).max()),
        }
    return {"differences": differences, "evidence_deviation": float(expected["evidence"].std())}


def _bar_images(seed: int) -> np.ndarray:
    """Generates bright bars of random position and width on black, smooth enough to be learned.

    Returns:
        uint8 `[n, 16, 16]`; upright bars for odd seeds, level bars for even ones.
    """
    numbers = np.random.default_rng(seed)
    positions = numbers.uniform(0, 16, (IMAGES, 1, 1))
    bars = np.exp(-np.square((np.arange(16) - positions) / numbers.uniform(1, 3, (IMAGES, 1, 1))))
    images = np.broadcast_to(255 * bars, (IMAGES, 16, 16)).astype(np.uint8)
    return images if seed % 2 else images.transpose(0, 2, 1)


def _learned_state(device: jax.Device, rng: jax.Array) -> LifelongState:
    """Learns two categories on a device."""
    with jax.default_device(device):
        state = init(Config().with_settings(SETTINGS), (16, 16), rng=rng)
        for seed, name in enumerate(("upright", "level")):
            state, _ = learn(state, {name: _bar_images(seed)}, rng=rng)
    return jax.device_get(state)


def _outputs(device: jax.Device, state: LifelongState, rng: jax.Array) -> dict[str, np.ndarray]:
    """Computes the evidence of new images, and imagines images of every category, on a device."""
    with jax.default_device(device):
        images = np.concatenate([_bar_images(seed)[:50] for seed in (2, 3)])
        samples = sampling.imagine(state, state.names, 8, rng=rng)
        return {
            "evidence": np.asarray(recognition.evidence(state, images)),
            "imagined": np.concatenate([np.asarray(samples[name]) for name in state.names]),
        }
