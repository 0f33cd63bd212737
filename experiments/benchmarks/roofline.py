"""How near training, recognizing and imagining are to what the device can do.

The roof is the rate of one large matrix product, measured in turns with everything else. Operations are those
of the matrix products, counted in what JAX traces; XLA's own count, which adds what is done number by number,
stands beside it. A training step's products alone, with the same shapes, tell how much of the distance to the
roof is theirs; the rest is what is done number by number: activations, the likelihood, the optimizer.
Source: Williams, Waterman and Patterson 2009.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import products
from experiments.benchmarks.config import BenchmarkConfig
from experiments.benchmarks.timing import median_seconds
from experiments.benchmarks.untrained import untrained_state
from lifelong_cvae import recognition, sampling
from lifelong_cvae.config import Config
from lifelong_cvae.images import to_float
from lifelong_cvae.model import cvae
from lifelong_cvae.training.learn import make_task_data
from lifelong_cvae.training.train import TrainCarry, init_carry, train_chunk

IMAGE_SHAPE = (28, 28, 1)
CATEGORIES = 10
IMAGES = 4096
SQUARE, COPIED = 2048, 2**26


class _Work(NamedTuple):
    """A function to time, the operations of its matrix products, and the images that it treats."""

    run: Callable[[], Any]
    flops: float
    images: int


def roofline(setting: BenchmarkConfig) -> dict[str, Any]:
    """Rates of training, recognizing and imagining, as parts of the rate of one large matrix product.

    Training: images through a chunk of steps of one category, the mixed part frozen or learning. Recognizing:
    the ELBO at the mean for each of ten categories. Imagining: images of ten categories, no turn of the
    circle.
    """
    frozen, learns = (_training(setting.config, train_mixed, rng=setting.rng) for train_mixed in (False, True))
    works = {
        "training, mixed part frozen": frozen.work,
        "its matrix products alone": frozen.alone,
        "training, mixed part learning": learns.work,
        "its matrix products alone ": learns.alone,
        "recognizing among 10": _recognising(setting),
        "imagining": _imagining(setting),
    }
    (square, multiply), (moved, copy) = products.peak(SQUARE), products.copied(COPIED)
    seconds = median_seconds({**{name: work.run for name, work in works.items()}, "peak": multiply, "copy": copy})
    roof = square / seconds["peak"]
    rows = [
        {
            "what": name.strip(),
            "images a second": work.images / seconds[name],
            "MFLOP an image": work.flops / work.images / 1e6,
            "GFLOP a second": work.flops / seconds[name] / 1e9,
            "part of the roof": work.flops / seconds[name] / roof,
        }
        for name, work in works.items()
    ]
    return {
        "rows": rows,
        "matrix_product_GFLOP_a_second": roof / 1e9,
        "copy_GB_a_second": moved / seconds["copy"] / 1e9,
        "XLA_counts_MFLOP_a_step": frozen.xla["flops"] / 1e6,
        "counted_MFLOP_a_step": products.flops(frozen.counted) / 1e6,
        "XLA_counts_MB_a_step": frozen.xla["bytes accessed"] / 1e6,
    }


class _Training(NamedTuple):
    work: _Work
    alone: _Work
    counted: Any  # products of one step
    xla: dict[str, float]  # XLA's own analysis of one step, before it is optimized


def _training(config: Config, train_mixed: bool, *, rng: jax.Array) -> _Training:
    learning_config = config.learning
    state = untrained_state(config, IMAGE_SHAPE, 1, rng=rng).replace(base_categories_left=int(train_mixed))
    task = state.names[-1:]
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, state.networks.pixels), np.uint8)
    data = make_task_data(state, {task[0]: images}, rng=rng)

    def chunk(steps: int) -> Callable[..., Any]:
        settings = replace(learning_config, steps_per_call=steps)
        return partial(train_chunk, networks=state.training_networks, learning=settings, train_mixed=train_mixed)

    def carry() -> TrainCarry:
        return init_carry(state, task, train_mixed=train_mixed)

    batch, steps = learning_config.batch_size, learning_config.steps_per_call
    one, whole = chunk(1), chunk(steps)
    counted = products.products(one, carry(), data)
    operations = products.flops(counted)
    lowered = one.func.lower(carry(), data, **one.keywords)
    return _Training(
        _Work(lambda: whole(carry(), data), operations * steps, batch * steps),
        _Work(products.alone(counted), operations, batch),
        counted,
        lowered.cost_analysis(),
    )


def _recognising(setting: BenchmarkConfig) -> _Work:
    state = untrained_state(setting.config, IMAGE_SHAPE, CATEGORIES, rng=setting.rng)
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, *IMAGE_SHAPE), np.uint8)
    path, rows = state.model(state.names[0]), images[:1].reshape(1, -1)

    def one(x: jax.Array, shared: Any) -> jax.Array:
        return cvae.evidence_bound(path, x, shared, state.config.recognition, rng=None)

    x = to_float(jnp.asarray(rows))
    shared = products.products(lambda x: cvae.mixed_activations(path, "encoder", x), x)
    own = products.products(one, x, cvae.mixed_activations(path, "encoder", x))
    operations = products.flops(shared) + CATEGORIES * products.flops(own)
    ready = recognition.make_recognizer(state, "elbo")
    return _Work(lambda: recognition.evidence(ready, images), operations * IMAGES, IMAGES)


def _imagining(setting: BenchmarkConfig) -> _Work:
    state, rng = untrained_state(setting.config, IMAGE_SHAPE, CATEGORIES, rng=setting.rng), setting.rng
    path, count = state.model(state.names[0]), IMAGES // CATEGORIES
    z = jnp.zeros((1, state.networks.latent_size))
    operations = products.flops(products.products(lambda z: cvae.sample_image(path, z, rng=rng), z))
    images = CATEGORIES * count
    return _Work(lambda: sampling.imagine(state, state.names, count, rng=rng), operations * images, images)
