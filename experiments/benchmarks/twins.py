"""Ours against twins of it, in plain Flax and in eager PyTorch: how fast they train a category.

The twins have the networks, batch, steps, optimizer and schedule of the settings, one loss (the ELBO of real
images, with one sample and a prior N(0, I)), and a mixed part that the first category alone trains. Ours runs
without what they lack, `WITHOUT`. They keep the encoder's mixed neurons of every image, where these are
frozen, as ours does; and all use as many threads as they choose to.
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
from lifelong_cvae.images import flatten_images
from lifelong_cvae.state import add_category, init
from lifelong_cvae.training.learn import make_task_data
from lifelong_cvae.training.teacher import Teacher
from lifelong_cvae.training.train import train

# What the twins have not, left out of ours too.
WITHOUT = {
    "prior_components": 0,
    "noise_rank": 0,
    "random_features": 0,
    "recognizer": "elbo",
    "sample_style": "mean",
}
# The form of network and of learning that the twins have.
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
# Of one category, in a round of timing.
STEPS = 100
ROUNDS = 5


def speed(setting: BenchmarkConfig) -> dict[str, Any]:
    """Steps per second of training a category, side by side in one process; medians over rounds.

    Returns:
        `rows`: of a later category, of which the mixed part is frozen; of one whose twins compute the
        encoder's mixed neurons anew in every step; and of the first category, which trains the mixed part.
    """
    require_torch()
    config, source = config_of(setting), setting.open_source()
    images = rows_of(source, source.categories[0], "train")
    cases = {
        "later, mixed part frozen": (False, True),
        "later, twins without known neurons": (False, False),
        "first, mixed part learns": (True, False),
    }
    rows = []
    for case, (first, known) in cases.items():
        sides = _sides(config, source, images, first=first, known=known, rng=setting.rng)
        rates = {side: STEPS / value for side, value in median_seconds(sides, rounds=ROUNDS).items()}
        ratios = {f"ours / {side}": rates["ours"] / rates[side] for side in (FLAX, TORCH)}
        figures = {f"{side}, steps/s": rate for side, rate in rates.items()}
        rows.append({"category": case, **figures, **ratios})
    return {"rows": rows, "pytorch": importlib.metadata.version("torch")}


def plain(config: Config) -> dict[str, Any]:
    """The settings that the twins read."""
    return {
        **{name: list(getattr(config.network, name)) for name in ("mixed_widths", "category_widths")},
        **{name: getattr(config.network, name) for name in ("output_rank", "latent_size", "log_scale")},
        **{name: getattr(config.learning, name) for name in ("batch_size", "learning_rate")},
    }


def config_of(setting: BenchmarkConfig) -> Config:
    """The settings, in the form that the twins have and without what they lack."""
    return setting.config.with_settings({**FORM, **WITHOUT})


def require_torch() -> None:
    """Raises MissingExtraError where PyTorch is not installed."""
    use_package("torch")


def rows_of(source: Source, category: str, split: str) -> np.ndarray:
    """Images of a category, uint8 `[n, pixels]`."""
    rows = flatten_images(source.read(split, category), source.image_shape)
    return rows if rows.dtype == np.uint8 else np.rint(255 * rows).astype(np.uint8)


def _sides(
    config: Config, source: Source, images: np.ndarray, *, first: bool, known: bool, rng: jax.Array
) -> dict[str, Callable[[], Any]]:
    """Functions that train one category for STEPS steps, one for each side."""
    config = config.with_settings({"min_steps": STEPS, "epochs": 1, "steps_per_call": STEPS})
    return {
        "ours": _ours(config, source, images, first=first, rng=rng),
        FLAX: _flax(config, images, first=first, known=known, rng=rng),
        TORCH: _torch(config, images, first=first, known=known),
    }


def _ours(config: Config, source: Source, images: np.ndarray, *, first: bool, rng: jax.Array) -> Callable[[], Any]:
    state = init(config, source.image_shape, rng=rng)
    state = add_category(state, "one", rng=rng).replace(base_categories_left=int(first))
    data = make_task_data(state, {"one": images}, rng=rng)
    teacher = Teacher(state, ("one",), rng=rng)

    def run() -> Any:
        trained = train(state, ("one",), data, teacher, resume_from=None, progress=None, start=0.0)
        return trained.carry.params

    return run


def _flax(config: Config, images: np.ndarray, *, first: bool, known: bool, rng: jax.Array) -> Callable[[], Any]:
    settings, x = plain(config), images.astype(np.float32) / 255
    model = twin_flax.build(settings, x.shape[1])
    neurons: Any = None
    if known:
        neurons = twin_flax.known_neurons(model, twin_flax.init(model, x.mean(axis=0), rng=rng)[0], x)

    def run() -> Any:
        mixed, category = twin_flax.init(model, x.mean(axis=0), rng=rng)
        params, frozen = ({**mixed, **category}, {}) if first else (category, mixed)
        for step in twin_flax.train(model, params, frozen, x, settings, STEPS, rng=rng, known=neurons):
            last = step
        return last

    return run


def _torch(config: Config, images: np.ndarray, *, first: bool, known: bool) -> Callable[[], Any]:
    import torch  # an extra

    from experiments.benchmarks import twin_torch

    settings, device = plain(config), twin_torch.device()
    x = torch.from_numpy(images).to(device) / 255
    mixed = twin_torch.Mixed(settings, x.shape[1]).to(device)
    neurons = twin_torch.neurons_of(mixed, x) if known else None

    def run() -> float:
        model = twin_torch.CVAE(mixed, settings, x.mean(dim=0)).to(device)
        for loss in twin_torch.train(model, x, settings, STEPS, train_mixed=first, known=neurons):
            last = loss
        return float(last)

    return run
