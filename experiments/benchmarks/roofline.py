"""Rates of training, recognizing and imagining, relative to the peak rate of the device.

The peak is the rate of one large matrix product, which takes turns with everything else. Counted operations are those
of the matrix products in the jaxpr. XLA's own count also includes elementwise operations. A training step's matrix
products are also timed alone, with the same shapes: they show how much of the distance to the peak they cause. The
rest is elementwise work: activations, the likelihood, the optimizer. Source: Williams, Waterman and Patterson 2009.
"""

from __future__ import annotations

from collections import Counter
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
from lifelong_cvae.model import cvae, elbo
from lifelong_cvae.training.task_data import make_task_data
from lifelong_cvae.training.train import TrainCarry, init_carry, train_chunk

IMAGE_SHAPE = (28, 28, 1)
CATEGORIES = 10
IMAGES = 4096
# Images that are recognized. A GPU needs many to be busy.
RECOGNIZED = 16384
# Side of the square matrices that are multiplied, and float32 values that are copied.
SQUARE, COPIED = 2048, 2**26


class _Work(NamedTuple):
    """A function to time."""

    label: str
    run: Callable[[], Any]
    flops: float  # of the matrix products
    images: int


class _TrainingWork(NamedTuple):
    """Training, and the matrix products of its steps alone."""

    training: _Work
    products_alone: _Work
    step_products: Counter[products.Product]
    xla_cost: dict[str, float]  # XLA's analysis of one step before optimization; empty if there is none


def roofline(benchmark_config: BenchmarkConfig) -> dict[str, Any]:
    """Measures training, recognizing and imagining as fractions of the rate of one large matrix product.

    Training: one chunk of steps of one category, with the mixed part frozen or learning. Recognizing: the ELBO at the
    posterior mean for ten categories. Imagining: images of ten categories, without turns of the circle.

    Returns:
        `rows`, and figures of the device and of a training step. XLA's counts are None if the backend has none.
    """
    config, rng = benchmark_config.config, benchmark_config.rng
    frozen, learning = (_training_work(config, train_mixed, rng=rng) for train_mixed in (False, True))
    works = [
        frozen.training,
        frozen.products_alone,
        learning.training,
        learning.products_alone,
        _recognition_work(benchmark_config),
        _imagination_work(benchmark_config),
    ]
    square_flops, multiply = products.square_runner(SQUARE)
    copied_bytes, copy = products.copy_runner(COPIED)
    functions = {str(index): work.run for index, work in enumerate(works)}
    seconds = median_seconds({**functions, "peak": multiply, "copy": copy})
    peak = square_flops / seconds["peak"]
    return {
        "rows": [_row(work, seconds[name], peak) for name, work in zip(functions, works, strict=True)],
        "matrix_product_GFLOP_a_second": peak / 1e9,
        "copy_GB_a_second": copied_bytes / seconds["copy"] / 1e9,
        "XLA_counts_MFLOP_a_step": _millions(frozen.xla_cost.get("flops")),
        "counted_MFLOP_a_step": _millions(products.total_flops(frozen.step_products)),
        "XLA_counts_MB_a_step": _millions(frozen.xla_cost.get("bytes accessed")),
    }


def _row(work: _Work, seconds: float, peak: float) -> dict[str, Any]:
    return {
        "what": work.label,
        "images a second": work.images / seconds,
        "MFLOP an image": work.flops / work.images / 1e6,
        "GFLOP a second": work.flops / seconds / 1e9,
        "part of the roof": work.flops / seconds / peak,
    }


def _millions(value: float | None) -> float | None:
    return None if value is None else value / 1e6


def _training_work(config: Config, train_mixed: bool, *, rng: jax.Array) -> _TrainingWork:
    learning = config.learning
    state = untrained_state(config, IMAGE_SHAPE, 1, rng=rng).replace(base_categories_left=int(train_mixed))
    task = state.names[-1:]
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, state.networks.pixels), np.uint8)
    data = make_task_data(state, {task[0]: images}, rng=rng)

    def chunk_of(steps: int) -> Callable[..., Any]:
        settings = replace(learning, steps_per_call=steps)
        return partial(train_chunk, networks=state.training_networks, learning=settings, train_mixed=train_mixed)

    def new_carry() -> TrainCarry:
        return init_carry(state, task, train_mixed=train_mixed)

    batch, steps = learning.batch_size, learning.steps_per_call
    run_step, run_chunk = chunk_of(1), chunk_of(steps)
    step_products = products.matrix_products(run_step, new_carry(), data)
    step_flops = products.total_flops(step_products)
    lowered = run_step.func.lower(new_carry(), data, **run_step.keywords)
    label = f"training, mixed part {'learning' if train_mixed else 'frozen'}"
    return _TrainingWork(
        _Work(label, lambda: run_chunk(new_carry(), data), step_flops * steps, batch * steps),
        _Work("its matrix products alone", products.products_runner(step_products), step_flops, batch),
        step_products,
        lowered.cost_analysis() or {},  # backends behind PJRT's C API, such as GPUs, return None
    )


def _recognition_work(benchmark_config: BenchmarkConfig) -> _Work:
    state = untrained_state(benchmark_config.config, IMAGE_SHAPE, CATEGORIES, rng=benchmark_config.rng)
    images = np.random.default_rng(0).integers(0, 256, (RECOGNIZED, *IMAGE_SHAPE), np.uint8)
    model, x = state.model(state.names[0]), to_float(jnp.asarray(images[:1].reshape(1, -1)))

    def category_evidence(x: jax.Array, activations: Any) -> jax.Array:
        return elbo.evidence_bound(model, x, activations, state.config.recognition, rng=None)

    def activations(x: jax.Array) -> Any:
        return cvae.mixed_activations(model, "encoder", x)

    mixed_flops = products.total_flops(products.matrix_products(activations, x))
    category_flops = products.total_flops(products.matrix_products(category_evidence, x, activations(x)))
    flops = mixed_flops + CATEGORIES * category_flops
    recognizer = recognition.make_recognizer(state, "elbo")
    label = f"recognizing among {CATEGORIES}"
    return _Work(label, lambda: recognition.evidence(recognizer, images), flops * RECOGNIZED, RECOGNIZED)


def _imagination_work(benchmark_config: BenchmarkConfig) -> _Work:
    rng = benchmark_config.rng
    state = untrained_state(benchmark_config.config, IMAGE_SHAPE, CATEGORIES, rng=rng)
    model, count = state.model(state.names[0]), IMAGES // CATEGORIES
    z = jnp.zeros((1, state.networks.latent_size))
    flops = products.total_flops(products.matrix_products(lambda z: cvae.sample_image(model, z, rng=rng), z))
    images = CATEGORIES * count
    return _Work("imagining", lambda: sampling.imagine(state, state.names, count, rng=rng), flops * images, images)
