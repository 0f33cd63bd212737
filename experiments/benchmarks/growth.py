"""A thousand categories, learned one after another: cost of the 10th, the 100th and the 1000th."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import memory
from experiments.benchmarks.config import BenchmarkConfig
from experiments.benchmarks.many_categories import ShiftedCategories
from experiments.benchmarks.timing import median_seconds
from experiments.benchmarks.untrained import chunk_runner, untrained_state
from lifelong_cvae import recognition
from lifelong_cvae.config import Config
from lifelong_cvae.state import LifelongState, add_category, init
from lifelong_cvae.training.learn import learn

COUNTS = (10, 100, 1000)
# Narrow networks with priors and residuals as in the preset `paper`. Tasks are short, and the mixed part keeps learning
# with a memory of many categories and few images of each.
NARROW = {
    "mixed_widths": (100, 100),
    "category_widths": (16, 16),
    "output_rank": 8,
    "latent_size": 8,
    "prior_components": 0,
    "noise_rank": 0,
    "sample_style": "mean",
    "num_filters": 50,
    "random_features": 500,
    "pooled_features": False,
    "recognizer": "elbo",
    "mixed_mode": "playback",
    "epochs": 1,
    "min_steps": 40,
    "steps_per_call": 40,
    "batch_size": 64,
    "memory_size": 2048,
    "memory_categories": 8,
    "memory_images": 8,
}
CANDIDATES = 10
# Images to recognize: with a shortlist, and by the evidence of all categories.
IMAGES, IMAGES_BY_ALL = 8192, 512
# Training images of the category whose steps are timed.
STEP_IMAGES = 1000
ROUNDS = 3
# Number of categories after which memory is measured again.
MEMORY_EVERY = 50
DEFAULT_CATEGORIES = 10


def growth(
    benchmark_config: BenchmarkConfig,
    *,
    counts: Sequence[int] = COUNTS,
    settings: Mapping[str, Any] = NARROW,
    candidates: int = CANDIDATES,
    images: tuple[int, int] = (IMAGES, IMAGES_BY_ALL),
) -> dict[str, Any]:
    """Learns `ShiftedCategories` one after another, and compares states with few and with many.

    Args:
        benchmark_config: seed, source of images, and the network of `images_a_second_default_network`.
        counts: numbers of categories to compare.
        settings: settings of the networks that learn.
        candidates: size of the shortlist.
        images: number of images to recognize with a shortlist, and by the evidence of all categories.

    Returns:
        `rows`: one per count, medians of states that take turns. `recall`: fraction of images whose answer among all
        categories is on the shortlist. `recall_true`: fraction whose true category is. `step_ratio` and `task_ratio`:
        the last row over the first. `compilations_of_the_step`: compilations of the train step. `megabytes_a_category`:
        slope of the resident memory from a tenth of the categories on. `megabytes_of_its_parameters`: parameters of a
        category. `images_a_second_default_network`: recognition among ten categories of the default network.
    """
    config, rng = benchmark_config.config.with_settings(settings), benchmark_config.rng
    categories = ShiftedCategories(benchmark_config.open_source(), counts[-1])
    states, learning_figures = _learn_categories(config, categories, counts, rng=rng)
    steps = median_seconds({name: _chunk_of_new_category(state, rng) for name, state in states.items()})
    tasks = median_seconds({n: _task_of_new_category(s, categories, rng) for n, s in states.items()}, rounds=ROUNDS)
    rows = [
        {
            "categories": len(state.names),
            "seconds_a_step": steps[name] / config.learning.steps_per_call,
            "seconds_a_task": tasks[name],
            **_recognition_figures(state, categories, candidates, *images),
        }
        for name, state in states.items()
    ]
    first, last = rows[0], rows[-1]
    return {
        "settings": dict(settings),
        "candidates": candidates,
        "rows": rows,
        "step_ratio": last["seconds_a_step"] / first["seconds_a_step"],
        "task_ratio": last["seconds_a_task"] / first["seconds_a_task"],
        **learning_figures,
        "images_a_second_default_network": _default_network_rate(benchmark_config, images[0]),
    }


def _learn_categories(
    config: Config, categories: ShiftedCategories, counts: Sequence[int], *, rng: jax.Array
) -> tuple[dict[str, LifelongState], dict[str, Any]]:
    """Learns all categories.

    Returns:
        The states after each of `counts` categories, by count as text; compilations and memory.
    """
    state = init(config, categories.read("train", categories.names[0]).shape[1:], rng=rng)
    states, memory_samples, compilations = {}, [], 0
    for number, name in enumerate(categories.names, start=1):
        state, report = learn(state, {name: categories.read("train", name)}, rng=rng)
        compilations += report.compilations
        if number in counts:
            states[str(number)] = state
        if number % min(MEMORY_EVERY, counts[0]) == 0:
            gc.collect()
            memory_samples.append((number, memory.resident_bytes() / 1e6))
    late_samples = [sample for sample in memory_samples if sample[0] >= counts[-1] / 10]
    numbers, megabytes = np.array(late_samples).T
    slope = float(np.polyfit(numbers, megabytes, 1)[0]) if len(numbers) > 1 else 0.0
    parameters = 4 * report.parameters_per_category / 1e6
    return states, {
        "compilations_of_the_step": compilations,
        "megabytes_a_category": slope,
        "megabytes_of_its_parameters": parameters,
        "memory_ratio": slope / parameters,
    }


def _chunk_of_new_category(state: LifelongState, rng: jax.Array) -> Callable[[], Any]:
    """Returns a function that runs one chunk of steps of one more category."""
    return chunk_runner(add_category(state, "one more", rng=rng), ("one more",), STEP_IMAGES, rng=rng)


def _task_of_new_category(state: LifelongState, categories: ShiftedCategories, rng: jax.Array) -> Callable[[], Any]:
    """Returns a function that learns one more category, with all parts of a task."""
    images = categories.read("train", categories.names[0])
    return lambda: learn(state, {"one more": images}, rng=rng)[0].params


def _recognition_figures(
    state: LifelongState, categories: ShiftedCategories, candidates: int, count: int, count_by_all: int
) -> dict[str, float]:
    """Measures speed and accuracy of recognition by all categories and with a shortlist.

    Accuracy and recall are computed on the first `count_by_all` of the images, which are shuffled, so that old and new
    categories are among them.
    """
    images, names = categories.read_alternating(state.names, count)
    order = np.random.default_rng(0).permutation(count)
    images, names = images[order], names[order]
    labels = np.asarray([state.names.index(name) for name in names])
    with_shortlist = len(state.names) > candidates
    if not with_shortlist:
        count_by_all = count
    recognizer = recognition.make_recognizer(state)
    functions = {"all": partial(recognition.evidence, recognizer, images[:count_by_all])}
    predictions = np.asarray(functions["all"]()).argmax(axis=1)
    labels = labels[:count_by_all]
    figures = {"accuracy": float((predictions == labels).mean())}
    if with_shortlist:
        recognizer = recognition.make_recognizer(state, candidates=candidates)
        functions["shortlist"] = partial(recognition.evidence, recognizer, images)
        evidence = np.asarray(functions["shortlist"]())[:count_by_all]
        on_shortlist, rows = np.isfinite(evidence), np.arange(count_by_all)
        figures |= {
            "accuracy_in_two_stages": float((evidence.argmax(axis=1) == labels).mean()),
            "recall": float(on_shortlist[rows, predictions].mean()),
            "recall_true": float(on_shortlist[rows, labels].mean()),
        }
    seconds = median_seconds(functions, rounds=ROUNDS)
    rates = {"images_a_second": count_by_all / seconds["all"]}
    if with_shortlist:
        rates["images_a_second_in_two_stages"] = count / seconds["shortlist"]
    return rates | figures


def _default_network_rate(benchmark_config: BenchmarkConfig, count: int) -> float:
    """Returns the images per second for which the evidence of ten untrained categories is computed."""
    config = benchmark_config.config.with_settings({"random_features": 0, "recognizer": "elbo"})
    source = benchmark_config.open_source()
    state = untrained_state(config, source.image_shape, DEFAULT_CATEGORIES, rng=benchmark_config.rng)
    categories = ShiftedCategories(source, len(source.categories))
    images, _ = categories.read_alternating(categories.names, count)
    recognizer = recognition.make_recognizer(state)
    seconds = median_seconds({"all": partial(recognition.evidence, recognizer, images)}, rounds=ROUNDS)
    return count / seconds["all"]
