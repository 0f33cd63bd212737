"""A thousand categories, learned one after another: what the tenth, hundredth and thousandth take."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import memory
from experiments.benchmarks.config import BenchmarkConfig
from experiments.benchmarks.many_categories import Crowd
from experiments.benchmarks.timing import median_seconds
from experiments.benchmarks.untrained import chunk_runner, untrained_state
from lifelong_cvae import recognition
from lifelong_cvae.config import Config
from lifelong_cvae.state import LifelongState, add_category, init
from lifelong_cvae.training.learn import learn

COUNTS = (10, 100, 1000)
# Narrow networks with priors and remainders as in the preset `paper`; short tasks, in which the mixed part
# goes on learning beside the memory of many categories, a few images of each.
NARROW = {
    "mixed_widths": (100, 100),
    "category_widths": (16, 16),
    "output_rank": 8,
    "latent_size": 8,
    "prior_components": 0,
    "noise_rank": 0,
    "sample_style": "mean",
    "random_features": 0,
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
IMAGES, OF_ALL = 8192, 512  # that are recognized: in two stages, and by the evidence of a thousand categories
STEPPED = 1000  # that a category is trained on, where a step is timed
ROUNDS = 3
WEIGHED_EVERY = 50
DEFAULT_CATEGORIES = 10


def growth(
    setting: BenchmarkConfig,
    *,
    counts: Sequence[int] = COUNTS,
    settings: Mapping[str, Any] = NARROW,
    candidates: int = CANDIDATES,
    images: tuple[int, int] = (IMAGES, OF_ALL),
) -> dict[str, Any]:
    """Learns categories one after another (see `Crowd`), and compares states of few and of many.

    Args:
        setting: the seed, the source of images, and the network of the last figure.
        counts: numbers of categories to compare.
        settings: of the networks that learn.
        candidates: of two stages.
        images: to recognize: in two stages, and by the evidence of all categories.

    Returns:
        `rows`, one for each count: medians of states that take turns. `recall`: how often the answer of all
        categories, and `recall_true`, how often the true category is among the candidates. Beside them ratios
        of the last row to the first, compilations of the train step in all, megabytes that a category adds to
        the process from a tenth of the categories on, and that its parameters are, and how many images of
        `DEFAULT_CATEGORIES` categories of the setting's network are recognized a second.
    """
    config, crowd = setting.config.with_settings(settings), Crowd(setting.open_source(), counts[-1])
    states, figures = _learned(config, crowd, counts, rng=setting.rng)
    steps = median_seconds({name: _step(state, setting.rng) for name, state in states.items()})
    tasks = median_seconds({n: _task(s, crowd, setting.rng) for n, s in states.items()}, rounds=ROUNDS)
    rows = [
        {
            "categories": len(state.names),
            "seconds_a_step": steps[name] / config.learning.steps_per_call,
            "seconds_a_task": tasks[name],
            **_recognised(state, crowd, candidates, *images),
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
        **figures,
        "images_a_second_default_network": _default_network(setting, images[0]),
    }


def _learned(
    config: Config, crowd: Crowd, counts: Sequence[int], *, rng: jax.Array
) -> tuple[dict[str, LifelongState], dict[str, Any]]:
    """States of so many categories, and what learning them took."""
    state = init(config, crowd.read("train", crowd.names[0]).shape[1:], rng=rng)
    states, weighed, compilations = {}, [], 0
    for number, name in enumerate(crowd.names, start=1):
        state, report = learn(state, {name: crowd.read("train", name)}, rng=rng)
        compilations += report.compilations
        if number in counts:
            states[str(number)] = state
        if number % min(WEIGHED_EVERY, counts[0]) == 0:
            gc.collect()
            weighed.append((number, memory.resident_bytes() / 1e6))
    numbers, megabytes = np.array([pair for pair in weighed if pair[0] >= counts[-1] / 10]).T
    slope = float(np.polyfit(numbers, megabytes, 1)[0]) if len(numbers) > 1 else 0.0
    own = 4 * report.parameters_per_category / 1e6
    return states, {
        "compilations_of_the_step": compilations,
        "megabytes_a_category": slope,
        "megabytes_of_its_parameters": own,
        "memory_ratio": slope / own,
    }


def _step(state: LifelongState, rng: jax.Array) -> Callable[[], Any]:
    """One chunk of steps of one more category."""
    return chunk_runner(add_category(state, "one more", rng=rng), ("one more",), STEPPED, rng=rng)


def _task(state: LifelongState, crowd: Crowd, rng: jax.Array) -> Callable[[], Any]:
    """The whole of learning one more category."""
    images = crowd.read("train", crowd.names[0])
    return lambda: learn(state, {"one more": images}, rng=rng)[0].params


def _recognised(state: LifelongState, crowd: Crowd, candidates: int, many: int, few: int) -> dict[str, float]:
    """How fast and how well images of the categories are recognized, by all and in two stages.

    How well is told of the first `few`, which are of any categories, old and new.
    """
    images, names = crowd.mixed(state.names, many)
    order = np.random.default_rng(0).permutation(many)
    images, names = images[order], names[order]
    truth = np.asarray([state.names.index(name) for name in names])
    if len(state.names) <= candidates:
        few = many
    ready = recognition.make_recognizer(state)
    functions = {"all": partial(recognition.evidence, ready, images[:few])}
    by_all = np.asarray(functions["all"]()).argmax(axis=1)
    figures = {"accuracy": float((by_all == truth[:few]).mean())}
    if len(state.names) > candidates:
        staged = recognition.make_recognizer(state, candidates=candidates)
        functions["staged"] = partial(recognition.evidence, staged, images)
        nats = np.asarray(functions["staged"]())[:few]
        asked = np.isfinite(nats)
        figures |= {
            "accuracy_in_two_stages": float((nats.argmax(axis=1) == truth[:few]).mean()),
            "recall": float(asked[np.arange(few), by_all].mean()),
            "recall_true": float(asked[np.arange(few), truth[:few]].mean()),
        }
    seconds = median_seconds(functions, rounds=ROUNDS)
    speed = {"images_a_second": few / seconds["all"]}
    if "staged" in seconds:
        speed["images_a_second_in_two_stages"] = many / seconds["staged"]
    return speed | figures


def _default_network(setting: BenchmarkConfig, count: int) -> float:
    """Images a second that the evidence of ten categories is computed of, untrained: it takes no less."""
    config = setting.config.with_settings({"random_features": 0, "recognizer": "elbo"})
    source = setting.open_source()
    state = untrained_state(config, source.image_shape, DEFAULT_CATEGORIES, rng=setting.rng)
    crowd = Crowd(source, len(source.categories))
    images, _ = crowd.mixed(crowd.names, count)
    ready = recognition.make_recognizer(state)
    seconds = median_seconds({"all": partial(recognition.evidence, ready, images)}, rounds=ROUNDS)
    return count / seconds["all"]
