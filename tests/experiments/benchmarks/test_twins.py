import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from experiments.benchmarks import twin_flax, twin_ours, twin_runs, twins
from experiments.benchmarks.config import BenchmarkConfig
from lifelong_cvae.data import from_arrays
from lifelong_cvae.state import add_category
from lifelong_cvae.training.losses import TASK, real_terms

SETTINGS = {"mixed_widths": "24,20", "category_widths": "12,10", "prior_components": "0", "sample_style": "mean"}


@pytest.fixture
def stripes():
    """Two categories of 60 images, lying and standing stripes, that are told apart at a glance."""
    images = np.zeros((60, 8, 8), np.uint8)
    images[:, ::2] = np.random.default_rng(0).integers(150, 255, (60, 4, 8))
    images, labels = np.concatenate([images, images.swapaxes(1, 2)]), np.repeat([0, 1], 60)
    arrays = {"images": images, "labels": labels}
    splits = {f"{split}_{name}": array for split in ("train", "test") for name, array in arrays.items()}
    return from_arrays("stripes", **splits)


@pytest.fixture
def setting(small_config, stripes):
    return BenchmarkConfig(3, small_config.with_settings({**SETTINGS, "min_steps": "60"}), lambda: stripes, {})


@pytest.fixture
def path(small_config, rng):
    """A category with random values everywhere, those that start at zero too."""
    state = add_category(lifelong.init(small_config.with_settings(SETTINGS), (8, 8), rng=rng), "one", rng=rng)
    numbers, path = np.random.default_rng(1), state.model("one")
    trained = {half: path.category[half] for half in ("encoder", "decoder")}
    mixed, trained = jax.tree.map(
        lambda leaf: leaf + 0.1 * numbers.normal(size=leaf.shape).astype(np.float32), (path.mixed, trained)
    )
    return path.replace(mixed=mixed, category={**path.category, **trained})


@pytest.fixture
def images():
    return np.random.default_rng(2).uniform(size=(7, 64)).astype(np.float32)


def settings_of(small_config):
    return twins.plain(small_config.with_settings(SETTINGS))


@pytest.mark.parametrize("known", [False, True])
def test_the_twin_in_flax_has_our_loss(path, images, small_config, rng, known):
    model = twin_flax.build(settings_of(small_config), 64)
    params = {half: path.category[half]["params"] for half in ("encoder", "decoder")}
    mixed = {f"mixed_{half}": path.mixed[half]["params"] for half in ("encoder", "decoder")}
    neurons = twin_flax.known_neurons(model, mixed, images) if known else None
    found = twin_flax.loss(model, {**mixed, **params}, images, neurons, rng=rng)
    np.testing.assert_allclose(found, our_loss(path, images, rng), rtol=1e-5)


@pytest.mark.external
@pytest.mark.parametrize("known", [False, True])
def test_the_twin_in_pytorch_has_our_loss(path, images, small_config, rng, known):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: the extra benchmark")
    from experiments.benchmarks import twin_torch

    settings = settings_of(small_config)
    model = twin_torch.CVAE(twin_torch.Mixed(settings, 64), settings, torch.full((64,), 0.5))
    halves = {half: path.category[half]["params"] for half in ("encoder", "decoder")}
    mixed = {half: path.mixed[half]["params"] for half in ("encoder", "decoder")}
    model.load_state_dict(dict(weights({**halves, "mixed": mixed})))
    x = torch.from_numpy(images)
    noise = torch.from_numpy(np.array(jax.random.normal(rng, (7, settings["latent_size"]))))
    neurons = twin_torch.neurons_of(model.mixed, x) if known else None
    expected = our_loss(path, images, rng)
    assert -float(model(x, noise, neurons).detach().mean()) == pytest.approx(expected, rel=1e-5)


def our_loss(path, images, rng):
    noise = jax.random.normal(rng, (len(images), path.networks.latent_size))
    return float(real_terms(path, images, noise)["real"])


def weights(tree, place=""):
    """Flax's parameters under the names that PyTorch has for them: kernels are transposed weights."""
    import torch

    for name, value in tree.items():
        if isinstance(value, dict):
            yield from weights(value, f"{place}{name.replace('hidden_', 'hidden.')}.")
        else:
            leaf = np.array(value)
            yield (
                place + name.replace("kernel", "weight"),
                torch.from_numpy(leaf.T if name == "kernel" else leaf),
            )


@pytest.mark.parametrize("learns", [twin_flax.main, pytest.param(twin_ours.main, marks=pytest.mark.slow)])
def test_ours_and_the_twin_in_flax_learn_what_they_are_given(tmp_path, setting, stripes, learns):
    found = learns(twin_runs.task_of(tmp_path / "images.npz", stripes, twins.config_of(setting), seed=setting.seed))
    assert found["accuracy"] == 1
    assert all(found[part] > 0 for part in ("first steps", "learning", "recognizing"))


def test_sides_train_the_category_alone_where_the_mixed_part_is_frozen(monkeypatch, setting, stripes):
    monkeypatch.setattr(twins, "STEPS", 20)
    config, images = twins.config_of(setting), twins.rows_of(stripes, "1", "train")
    monkeypatch.setattr(twins, "_torch", lambda *_, **__: None)
    sides = twins._sides(config, stripes, images, first=False, known=True, rng=setting.rng)
    ours, (params, loss) = sides["ours"](), sides[twins.FLAX]()
    assert set(params) == {"encoder", "decoder"}
    assert np.isfinite(loss)
    assert set(ours["categories"]) == {TASK}


def test_spans_count_once_where_they_overlap():
    assert twin_ours.covered([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (5.25, 5.5)]) == 4
    assert twin_ours.covered([]) == 0


@pytest.mark.external
def test_all_sides_are_measured(monkeypatch, setting):
    pytest.importorskip("torch", reason="PyTorch is not installed: the extra benchmark")
    for module, name, value in ((twins, "STEPS", 20), (twins, "ROUNDS", 1), (twin_runs, "REPEATS", 1)):
        monkeypatch.setattr(module, name, value)
    rows = twins.speed(setting)["rows"]
    assert len(rows) == 3
    assert all(row["ours / PyTorch"] > 0 for row in rows)
    found = twin_runs.ten_categories(setting)
    assert [row["accuracy"] for row in found["rows"]] == [1] * 4
    assert found["training_images"] == 120
