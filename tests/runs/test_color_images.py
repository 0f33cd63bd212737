"""Color images of 32 x 32 pixels, end to end: an npz file, a run, recognition and imagined images."""

import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.data import open_source
from lifelong_cvae.runs import columns
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.runs.workdir import load_state
from tests.conftest import SMALL, SMALL_FEATURES, run_quietly

COLORS = {"rust": (0.8, 0.3, 0.1), "sea": (0.1, 0.4, 0.7), "moss": (0.3, 0.6, 0.2)}


def disc_images(color, count, seed):
    """Returns discs of random radius and center on a dark noisy background, uint8 [count, 32, 32, 3]."""
    numbers = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    center, radius = numbers.uniform(11, 21, (2, count, 1, 1)), numbers.uniform(4, 9, (count, 1, 1))
    inside = (y - center[0]) ** 2 + (x - center[1]) ** 2 < radius**2
    background = numbers.uniform(0, 0.15, (count, 32, 32, 3))
    return np.uint8(255 * np.where(inside[..., None], np.asarray(color), background))


@pytest.fixture(scope="module")
def npz_file(tmp_path_factory):
    """An npz file of discs in three colors."""
    arrays = {}
    for split, count, seed in (("train", 100, 0), ("test", 20, 10)):
        images = [disc_images(color, count, seed + index) for index, color in enumerate(COLORS.values())]
        arrays |= {f"{split}_images": np.concatenate(images), f"{split}_labels": np.repeat(list(COLORS), count)}
    file = tmp_path_factory.mktemp("color") / "discs.npz"
    np.savez(file, **arrays)
    return file


@pytest.mark.slow
def test_run_learns_and_imagines_color_images(npz_file, tmp_path):
    settings = {**SMALL, **SMALL_FEATURES, "recognizer": "combined", "min_steps": 100, "batch_size": 32}
    config = lifelong.Config().with_settings(settings)
    run_config = RunConfig(f"npz:{npz_file}", tuple((name,) for name in COLORS), config=config)
    result = run_quietly(tmp_path / "run", run_config, open_source(run_config.dataset))
    assert result["accuracy"] > 0.95
    assert result["accuracy_elbo"] > 0.95
    state = load_state(tmp_path / "run")
    columns.write_samples(state, list(COLORS), 20, tmp_path / "imagined.npz", seed=0)
    with np.load(tmp_path / "imagined.npz") as imagined:
        images, labels = imagined["images"], imagined["labels"]
    assert images.shape == (60, 32, 32, 3)
    for name, color in COLORS.items():
        center = images[labels == name][:, 14:18, 14:18].mean(axis=(0, 1, 2))
        np.testing.assert_allclose(center / center.max(), color / np.max(color), atol=0.1)
