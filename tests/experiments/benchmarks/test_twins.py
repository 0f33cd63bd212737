import subprocess
import sys
from functools import partial

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from experiments.benchmarks import twin_flax, twin_ours, twin_process, twin_runs, twins
from experiments.benchmarks.config import BenchmarkConfig
from lifelong_cvae.data import from_arrays
from lifelong_cvae.state import add_category
from lifelong_cvae.training.losses import TASK, StepNoise, real_terms

SETTINGS = {"mixed_widths": "24,20", "category_widths": "12,10", "prior_components": "0", "sample_style": "mean"}
FIGURES = ["first steps", "learning", "recognizing", "accuracy"]


@pytest.fixture
def stripes():
    """Two categories of 60 images, level and upright stripes, that are easy to tell apart."""
    images = np.zeros((60, 8, 8), np.uint8)
    images[:, ::2] = np.random.default_rng(0).integers(150, 255, (60, 4, 8))
    images, labels = np.concatenate([images, images.swapaxes(1, 2)]), np.repeat([0, 1], 60)
    arrays = {"images": images, "labels": labels}
    splits = {f"{split}_{name}": array for split in ("train", "test") for name, array in arrays.items()}
    return from_arrays("stripes", **splits)


@pytest.fixture
def benchmark_config(small_config, stripes):
    return BenchmarkConfig(3, small_config.with_settings({**SETTINGS, "min_steps": "60"}), lambda: stripes, {})


@pytest.fixture
def stripes_task(tmp_path, benchmark_config, stripes):
    config = twins.twin_config(benchmark_config.config)
    return twin_runs.write_task(tmp_path / "images.npz", stripes, config, seed=benchmark_config.seed)


@pytest.fixture
def baseline_settings(small_config):
    return twins.baseline_settings(small_config.with_settings(SETTINGS))


@pytest.fixture
def model(small_config, rng):
    """A category with random values everywhere, also in the parameters that are initialized to zero."""
    state = add_category(lifelong.init(small_config.with_settings(SETTINGS), (8, 8), rng=rng), "one", rng=rng)
    numbers, model = np.random.default_rng(1), state.model("one")
    networks = {half: model.category[half] for half in ("encoder", "decoder")}
    mixed, networks = jax.tree.map(
        lambda leaf: np.asarray(leaf) + np.float32(0.1 * numbers.normal(size=leaf.shape)), (model.mixed, networks)
    )
    return model.replace(mixed=mixed, category={**model.category, **networks})


@pytest.fixture
def images():
    return np.random.default_rng(2).uniform(size=(7, 64)).astype(np.float32)


@pytest.mark.parametrize("precompute", [False, True])
def test_flax_loss_equals_ours(model, images, baseline_settings, rng, precompute):
    flax_model = twin_flax.make_model(baseline_settings, 64)
    params = {half: model.category[half]["params"] for half in ("encoder", "decoder")}
    mixed = {f"mixed_{half}": model.mixed[half]["params"] for half in ("encoder", "decoder")}
    activations = twin_flax.encoder_activations(flax_model, mixed, images) if precompute else None
    loss = jax.jit(partial(twin_flax.loss, flax_model))({**mixed, **params}, images, activations, rng=rng)
    np.testing.assert_allclose(loss, our_loss(model, images, rng), rtol=1e-5)


@pytest.mark.external
@pytest.mark.parametrize("precompute", [False, True])
def test_pytorch_loss_equals_ours(model, images, baseline_settings, rng, precompute):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: the extra benchmark")
    from experiments.benchmarks import twin_torch

    mixed = twin_torch.Mixed(baseline_settings, 64)
    torch_model = twin_torch.CVAE(mixed, baseline_settings, torch.full((64,), 0.5))
    halves = {half: model.category[half]["params"] for half in ("encoder", "decoder")}
    mixed_halves = {half: model.mixed[half]["params"] for half in ("encoder", "decoder")}
    torch_model.load_state_dict(dict(torch_weights({**halves, "mixed": mixed_halves})))
    x = torch.from_numpy(images)
    noise = torch.from_numpy(np.array(jax.random.normal(rng, (7, baseline_settings["latent_size"]))))
    activations = twin_torch.encoder_activations(torch_model.mixed, x) if precompute else None
    loss = -float(torch_model(x, noise, activations).detach().mean())
    assert loss == pytest.approx(our_loss(model, images, rng), rel=1e-5)


def our_loss(model, images, rng):
    noise = StepNoise(None, jax.random.normal(rng, (len(images), model.networks.latent_size)))
    return float(jax.jit(real_terms)(model, images, noise)["real"])


def torch_weights(tree, prefix=""):
    """Yields names and values of Flax's parameters as PyTorch has them: kernels are transposed weights."""
    import torch

    for name, value in tree.items():
        if isinstance(value, dict):
            yield from torch_weights(value, f"{prefix}{name.replace('hidden_', 'hidden.')}.")
        else:
            leaf = np.array(value)
            yield prefix + name.replace("kernel", "weight"), torch.from_numpy(leaf.T if name == "kernel" else leaf)


@pytest.mark.parametrize("side", [twin_flax, pytest.param(twin_ours, marks=pytest.mark.slow)])
def test_measure_learns_categories_and_recognizes_them(stripes_task, side):
    figures = twin_process.measure(side, stripes_task)
    assert list(figures) == FIGURES
    assert figures["accuracy"] == 1
    assert all(figures[name] > 0 for name in ("first steps", "learning", "recognizing"))


def test_measure_rejects_a_loss_that_is_not_finite(stripes_task, monkeypatch):
    monkeypatch.setattr(twin_flax, "train", lambda learner, images, steps: iter([1.0, np.nan]))
    with pytest.raises(FloatingPointError, match="category 0 is not finite"):
        twin_process.measure(twin_flax, stripes_task)


@pytest.mark.slow
def test_run_process_measures_a_baseline_in_a_fresh_process(stripes_task):
    figures = twin_runs.run_process("flax", stripes_task, {"JAX_PLATFORMS": "cpu"})
    assert list(figures) == ["seconds", "imports", *FIGURES]
    assert figures["accuracy"] == 1
    assert figures["seconds"] > sum(figures[name] for name in ("imports", *FIGURES[:3]))


@pytest.mark.parametrize("side", ["flax", pytest.param("torch", marks=pytest.mark.external)])
def test_baselines_import_nothing_of_the_library(side):
    if side == "torch":
        pytest.importorskip("torch", reason="PyTorch is not installed: the extra benchmark")
    program = (
        f"import sys, experiments.benchmarks.twin_process, experiments.benchmarks.twin_{side}; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=twin_runs.ROOT, check=True, capture_output=True, text=True
    )
    packages = {name.partition(".")[0] for name in done.stdout.split()}
    assert {"experiments", side} <= packages
    assert "lifelong_cvae" not in packages
    if side == "torch":
        assert "jax" not in packages


def test_trainers_leave_a_frozen_mixed_part_out(monkeypatch, benchmark_config, stripes):
    monkeypatch.setattr(twins, "STEPS", 20)
    config, images = twins.twin_config(benchmark_config.config), twins.uint8_rows(stripes, "1", "train")
    monkeypatch.setattr(twins, "_torch_trainer", lambda *_, **__: None)
    trainers = twins._trainers(config, stripes, images, first=False, precompute=True, rng=benchmark_config.rng)
    ours, (params, loss) = trainers["ours"](), trainers[twins.FLAX]()
    assert set(params) == {"encoder", "decoder"}
    assert np.isfinite(loss)
    assert set(ours["categories"]) == {TASK}


def test_covered_seconds_counts_overlaps_once():
    assert twin_ours.covered_seconds([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (5.25, 5.5)]) == 4
    assert twin_ours.covered_seconds([]) == 0


@pytest.mark.external
def test_all_sides_are_measured(monkeypatch, benchmark_config):
    pytest.importorskip("torch", reason="PyTorch is not installed: the extra benchmark")
    for module, name, value in ((twins, "STEPS", 20), (twins, "ROUNDS", 1), (twin_runs, "REPEATS", 1)):
        monkeypatch.setattr(module, name, value)
    rows = twins.speed(benchmark_config)["rows"]
    assert len(rows) == 3
    assert all(row["ours / PyTorch"] > 0 for row in rows)
    figures = twin_runs.ten_categories(benchmark_config)
    assert [row["accuracy"] for row in figures["rows"]] == [1] * 4
    assert figures["training_images"] == 120
