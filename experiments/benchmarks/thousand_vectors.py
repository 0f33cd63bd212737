"""A thousand categories of twenty vectors each, learned in one task and one by one, beside a joint method."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.config import BenchmarkConfig
from lifelong_cvae import recognition
from lifelong_cvae.evaluation.vector_classifier import flatten
from lifelong_cvae.state import LifelongState, init
from lifelong_cvae.training.learn import learn_stream

CATEGORIES, SIZE, TRAIN, TEST = 1000, 64, 20, 5
# Directions of a category's covariance, and standard deviations: of the means, along the directions, of white noise.
DIRECTIONS, MEANS, SPREAD, NOISE = 8, 0.55, 0.7, 0.3
# Shrinkage of the joint linear discriminant analysis.
SHRINKAGE = 0.1

Vectors = Mapping[str, np.ndarray]


def thousand_vectors(benchmark_config: BenchmarkConfig, *, categories: int = CATEGORIES) -> dict[str, Any]:
    """Learns synthetic Gaussians of low-rank covariance; `--dataset` is not read.

    Returns:
        `one_task_seconds`, compilation included, and `stream_seconds` of the same categories one by one; accuracy in
        percent by `closed_form` after each, and that of joint linear discriminant analysis.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    train, test = sample_gaussians(categories, benchmark_config.seed)
    joint = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE).fit(*flatten(train))
    figures: dict[str, Any] = {"categories": categories, "joint_lda_accuracy": 100 * joint.score(*flatten(test))}
    for name, tasks in (("one_task", [train]), ("stream", [{name: x} for name, x in train.items()])):
        start = time.perf_counter()
        state = _learn(benchmark_config, tasks)
        figures[f"{name}_seconds"] = time.perf_counter() - start
        figures[f"{name}_accuracy"] = _accuracy(state, test)
        print(f"{name}: {figures[f'{name}_seconds']:.0f} seconds", file=sys.stderr, flush=True)
        benchmark_config.save(figures)
    return figures


def sample_gaussians(categories: int, seed: int) -> tuple[Vectors, Vectors]:
    """Samples `TRAIN` and `TEST` vectors of each category, float32 `[n, SIZE]`."""
    numbers = np.random.default_rng(seed)
    train, test = {}, {}
    for category in range(categories):
        mean = MEANS * numbers.standard_normal(SIZE)
        factor = SPREAD * numbers.standard_normal((DIRECTIONS, SIZE)) / DIRECTIONS**0.5
        for split, count in ((train, TRAIN), (test, TEST)):
            low_rank = numbers.standard_normal((count, DIRECTIONS)) @ factor
            values = mean + low_rank + NOISE * numbers.standard_normal((count, SIZE))
            split[f"c{category:04d}"] = values.astype(np.float32)
    return train, test


def _learn(benchmark_config: BenchmarkConfig, tasks: Sequence[Vectors]) -> LifelongState:
    state = init(benchmark_config.config, (SIZE,), rng=benchmark_config.rng)
    for learned, _ in learn_stream(state, tasks, rng=benchmark_config.rng):
        state = learned
    return jax.block_until_ready(state)


def _accuracy(state: LifelongState, test: Vectors) -> float:
    x, names = flatten(test)
    found, _ = recognition.recognize(recognition.make_recognizer(state, "closed_form"), x)
    return 100 * float(np.mean(found == names))
