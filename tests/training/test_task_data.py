"""Tasks that are too large for the device: the same parameters, read from a file call by call."""

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.training import task_data
from tests.conftest import SMALL_FEATURES, assert_trees_equal


@pytest.fixture
def mapped_digits(digits, tmp_path):
    """Training images of three digits in files, `numpy.memmap`."""
    files = {name: tmp_path / f"{name}.npy" for name in "201"}
    for name, file in files.items():
        np.save(file, digits[name])
    return {name: np.load(file, mmap_mode="r") for name, file in files.items()}


# Without a mixed part the same bits: its activations are computed in batches of another size.
@pytest.mark.parametrize(("mixed_mode", "tolerance"), [("none", 0), ("frozen", 1e-3), ("playback", 1e-3)])
def test_learn_of_a_large_task_gives_the_state_of_a_small_one(
    small_config, digits, mapped_digits, rng, monkeypatch, mixed_mode, tolerance
):
    config = small_config.with_settings({**SMALL_FEATURES, "mixed_mode": mixed_mode})
    tasks = ("2",), ("0", "1")
    small = lifelong.init(config, (28, 28), rng=rng)
    for names in tasks:
        small, _ = lifelong.learn(small, {name: digits[name] for name in names}, rng=rng)
    monkeypatch.setattr(task_data, "DEVICE_BYTES", 0)
    large = lifelong.init(config, (28, 28), rng=rng)
    for names in tasks:
        large, _ = lifelong.learn(large, {name: mapped_digits[name] for name in names}, rng=rng)
    assert_trees_equal(large.params["ridge"], small.params["ridge"])
    for found, expected in zip(jax.tree.leaves(large.params), jax.tree.leaves(small.params), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_learn_of_a_large_task_resumes(small_config, mapped_digits, rng, monkeypatch):
    monkeypatch.setattr(task_data, "DEVICE_BYTES", 0)
    state = lifelong.init(small_config, (28, 28), rng=rng)
    stops = []
    expected, _ = lifelong.learn(state, {"2": mapped_digits["2"]}, rng=rng, progress=lambda stop, _: stops.append(stop))
    resumed, _ = lifelong.learn(state, {"2": mapped_digits["2"]}, rng=rng, resume_from=stops[0])
    assert_trees_equal(resumed.params, expected.params)


def test_open_task_data_spreads_the_images_of_the_fits(small_config, digits, rng, monkeypatch):
    monkeypatch.setattr(task_data, "DEVICE_BYTES", 0)
    monkeypatch.setattr(task_data, "SPREAD_IMAGES", 100)
    state = lifelong.init(small_config, (28, 28), rng=rng)
    state, _ = lifelong.learn(state, {"2": digits["2"][:50]}, rng=rng)
    rows = {"2": digits["2"].reshape(-1, 784)}
    data, read_steps = task_data.open_task_data(state, rows, rng=rng)
    assert data.counts == 100
    np.testing.assert_array_equal(np.asarray(data.images[0])[:100], rows["2"][::4])
    # 400 images in batches of 16 are 25 steps, in whole calls of 10.
    assert data.total_steps == 30
    read = read_steps(20)
    assert read.images.shape == (1, 160, 784)
    assert read.first_step == 20
    assert set(map(bytes, np.asarray(read.images[0]))) <= set(map(bytes, rows["2"]))
