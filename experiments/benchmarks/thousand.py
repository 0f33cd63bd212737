"""A thousand categories of a thousand images each, learned in one task."""

from __future__ import annotations

import sys
import time
from typing import Any

from experiments.benchmarks.config import BenchmarkConfig
from experiments.benchmarks.many_categories import ShiftedCategories
from lifelong_cvae import recognition
from lifelong_cvae.state import init
from lifelong_cvae.training.learn import learn

CATEGORIES, IMAGES = 1000, 1000
# Test images to recognize.
TEST_IMAGES = 2000


def thousand(
    benchmark_config: BenchmarkConfig, *, categories: int = CATEGORIES, images: int = IMAGES
) -> dict[str, Any]:
    """Measures a task of many categories: the digits of the source at a hundred places.

    One base category is learned before, with the default settings, so that the mixed part does not learn.

    Returns:
        `learning_seconds` of the task, compilation included; `images_a_second` in training; `recognition_seconds` of
        `recognized_images` by the regression, solving included; `accuracy` on them.
    """
    source, rng = benchmark_config.open_source(), benchmark_config.rng
    shifted = ShiftedCategories(source, categories + 1)
    base, *names = shifted.names
    state = init(benchmark_config.config, source.image_shape, rng=rng, capacity=categories + 1)
    state, _ = learn(state, {base: shifted.read("train", base)[:images]}, rng=rng)
    task = {name: shifted.read("train", name)[:images] for name in names}
    print(f"{len(task)} categories in one task", file=sys.stderr, flush=True)
    state, report = learn(state, task, rng=rng)
    print(f"learned in {report.seconds:.1f} seconds", file=sys.stderr, flush=True)
    test, labels = shifted.read_alternating(names, TEST_IMAGES)
    start = time.perf_counter()
    recognized, _ = recognition.recognize(recognition.make_recognizer(state, "closed_form"), test)
    return {
        "categories": len(names),
        "images_of_each": max(map(len, task.values())),
        "steps": report.steps,
        "learning_seconds": report.seconds,
        "images_a_second": report.images_per_second,
        "recognized_images": len(test),
        "recognition_seconds": time.perf_counter() - start,
        "accuracy": float((recognized == labels).mean()),
    }
