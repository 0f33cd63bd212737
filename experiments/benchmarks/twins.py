"""Training speed of one category: ours, plain Flax and eager PyTorch, side by side.

The baselines have the networks, batch, number of steps, optimizer and schedule of the settings, one loss (the ELBO of
real images with one sample and the prior N(0, I)), and a mixed part that only the first category trains. Ours runs
without the parts that they lack (`WITHOUT`). Once the mixed part is frozen, the baselines keep the encoder's mixed
activations of every image, as ours does. Each side uses its default number of threads.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import twin_flax
from experiments.benchmarks.config import BenchmarkConfig
from experiments.benchmarks.timing import median_seconds
from lifelong_cvae.config import Config
from lifelong_cvae.data import Source
from lifelong_cvae.errors import use_package
from lifelong_cvae.images import flatten_images, to_uint8
from lifelong_cvae.state import add_category, init
from lifelong_cvae.training.task_data import make_task_data
from lifelong_cvae.training.teacher import make_teacher
from lifelong_cvae.training.train import train

# Settings that switch off the parts that the baselines lack.
WITHOUT = {"prior_components": 0, "noise_rank": 0, "random_features": 0, "recognizer": "elbo", "sample_style": "mean"}
# The form of network and of learning that the baselines have.
FORM = {
    "conditioning": "neurons",
    "likelihood": "gaussian",
    "noise_scale": "shared",
    "local": "none",
    "mixed_mode": "frozen",
    "base_categories": 1,
    "compute_dtype": "float32",
    "bound": "mean",
}
FLAX, TORCH = "plain Flax", "PyTorch"
# Steps of one category in each round of timing.
STEPS = 100
ROUNDS = 5


def speed(benchmark_config: BenchmarkConfig) -> dict[str, Any]:
    """Measures the training steps per second of one category, side by side in one process.

    Returns:
        `rows`: medians over rounds for a later category, whose mixed part is frozen; for the same with baselines that
        compute the encoder's mixed activations in every step; and for the first category, which trains the mixed part.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    use_package("torch")
    config, source = twin_config(benchmark_config.config), benchmark_config.open_source()
    images = uint8_rows(source, source.categories[0], "train")
    cases = {
        "later, mixed part frozen": (False, True),
        "later, twins without known neurons": (False, False),
        "first, mixed part learns": (True, False),
    }
    rows = []
    for case, (first, precompute) in cases.items():
        trainers = _trainers(config, source, images, first=first, precompute=precompute, rng=benchmark_config.rng)
        rates = {side: STEPS / seconds for side, seconds in median_seconds(trainers, rounds=ROUNDS).items()}
        ratios = {f"ours / {side}": rates["ours"] / rates[side] for side in (FLAX, TORCH)}
        rows.append({"category": case, **{f"{side}, steps/s": rate for side, rate in rates.items()}, **ratios})
    return {"rows": rows, "versions": {"pytorch": importlib.metadata.version("torch")}}


def baseline_settings(config: Config) -> dict[str, Any]:
    """Returns the settings that the baselines read."""
    return {
        **{name: list(getattr(config.network, name)) for name in ("mixed_widths", "category_widths")},
        **{name: getattr(config.network, name) for name in ("output_rank", "latent_size", "log_scale")},
        **{
            name: getattr(config.learning, name)
            for name in ("batch_size", "learning_rate", "full_rate_steps", "adam_b2")
        },
    }


def twin_config(config: Config) -> Config:
    """Returns the settings in the form of the baselines, without the parts that they lack."""
    return config.with_settings({**FORM, **WITHOUT})


def uint8_rows(source: Source, category: str, split: str) -> np.ndarray:
    """Returns the images of a category, uint8 `[n, pixels]`."""
    rows = flatten_images(source.read(split, category), source.image_shape)
    return to_uint8(rows)


def _trainers(
    config: Config, source: Source, images: np.ndarray, *, first: bool, precompute: bool, rng: jax.Array
) -> dict[str, Callable[[], Any]]:
    """Returns functions that train one category for STEPS steps, by side.

    Args:
        config: settings in the form of the baselines.
        source: source of the images.
        images: images of the category, uint8 `[n, pixels]`.
        first: whether the mixed part learns.
        precompute: whether the baselines compute the encoder's mixed activations once.
        rng: the seed's key.
    """
    config = config.with_settings({"min_steps": STEPS, "epochs": 1, "steps_per_call": STEPS})
    settings = baseline_settings(config)
    return {
        "ours": _ours_trainer(config, source, images, first=first, rng=rng),
        FLAX: _flax_trainer(settings, images, first=first, precompute=precompute, rng=rng),
        TORCH: _torch_trainer(settings, images, first=first, precompute=precompute),
    }


def _ours_trainer(
    config: Config, source: Source, images: np.ndarray, *, first: bool, rng: jax.Array
) -> Callable[[], Any]:
    state = init(config, source.image_shape, rng=rng)
    state = add_category(state, "one", rng=rng).replace(base_categories_left=int(first))
    data = make_task_data(state, {"one": images}, rng=rng)
    teacher = make_teacher(state, ("one",), rng=rng)
    return lambda: train(state, data, teacher).carry.params


def _flax_trainer(
    settings: dict[str, Any], images: np.ndarray, *, first: bool, precompute: bool, rng: jax.Array
) -> Callable[[], Any]:
    x = images.astype(np.float32) / 255
    model = twin_flax.make_model(settings, x.shape[1])
    activations: Any = None
    if precompute:
        mixed, _ = twin_flax.init_params(model, x.mean(axis=0), rng=rng)
        activations = twin_flax.encoder_activations(model, mixed, x)

    def train_steps() -> Any:
        mixed, category = twin_flax.init_params(model, x.mean(axis=0), rng=rng)
        trained, frozen = ({**mixed, **category}, {}) if first else (category, mixed)
        steps = twin_flax.train_steps(model, trained, frozen, x, settings, STEPS, rng=rng, activations=activations)
        for params_and_loss in steps:
            last = params_and_loss
        return last

    return train_steps


def _torch_trainer(settings: dict[str, Any], images: np.ndarray, *, first: bool, precompute: bool) -> Callable[[], Any]:
    import torch  # optional

    from experiments.benchmarks import twin_torch

    device = twin_torch.select_device()
    x = torch.from_numpy(images).to(device) / 255
    mixed = twin_torch.Mixed(settings, x.shape[1]).to(device)
    activations = twin_torch.encoder_activations(mixed, x) if precompute else None

    def train_steps() -> float:
        model = twin_torch.CVAE(mixed, settings, x.mean(dim=0)).to(device)
        steps = twin_torch.train_steps(model, x, settings, STEPS, train_mixed=first, activations=activations)
        for loss in steps:
            last = loss
        return float(last)

    return train_steps
