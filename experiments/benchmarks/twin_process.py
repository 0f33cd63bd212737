"""Runs one side of the twins in a process of its own, and times it.

    python -m experiments.benchmarks.twin_process flax '{"file": "images.npz", "started": 1790000000.0, ...}'

learns the categories of a task one by one, recognizes its test images and prints the figures as JSON. `twin_runs`
writes the task and starts the process. Each side (`ours`, `flax`, `torch`) is a module `twin_SIDE` of three functions:

    build(task)                     returns a learner without categories
    train(learner, images, steps)   learns one more category from images `[n, pixels]`; yields losses
    predict(learner, images)        returns the index of the most likely category of each image, `[n]`

This module imports NumPy and the module of its side only, so that a process of a baseline imports nothing of
lifelong_cvae.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from types import ModuleType
from typing import Any

import numpy as np

# The first category trains the mixed part, the second has it frozen: later categories repeat the second one's program.
FIRST_CATEGORIES = 2


def run(side: str, task: dict[str, Any]) -> dict[str, float]:
    """Imports a side and measures it.

    Args:
        side: `ours`, `flax` or `torch`.
        task: as `twin_runs.write_task` returns it, and `started`, the time at which the process was started, in seconds
            of `time.time`.

    Returns:
        The figures of `measure`, and `imports`: seconds from the start of the process to the end of the imports.
    """
    module = importlib.import_module(f"experiments.benchmarks.twin_{side}")
    imports = time.time() - task["started"]
    return {"imports": imports, **measure(module, task)}


def measure(side: ModuleType, task: dict[str, Any]) -> dict[str, float]:
    """Learns all categories of a task one by one, and recognizes its test images.

    Args:
        side: module of the side.
        task: as `twin_runs.write_task` returns it.

    Returns:
        `first steps`: seconds of the first two categories up to the end of their first step; for ours, seconds of
        tracing and compiling. `learning`: the other seconds of learning. `recognizing`: seconds of recognition.
        `accuracy`: fraction of the test images that are recognized.

    Raises:
        FloatingPointError: the last loss of a category is not finite.
    """
    start = time.perf_counter()
    arrays = np.load(task["file"])
    images, labels = arrays["train"], arrays["train_labels"]
    learner, first_steps = side.build(task), 0.0
    for category, steps in enumerate(task["steps"]):
        category_start = time.perf_counter()
        losses = side.train(learner, images[labels == category], steps)
        loss = float(next(losses))  # waits for the device
        if category < FIRST_CATEGORIES:
            first_steps += time.perf_counter() - category_start
        for last_loss in losses:
            loss = last_loss
        if not np.isfinite(float(loss)):
            raise FloatingPointError(f"the last loss of category {category} is not finite")
    # Ours runs all steps in one call, and measures compilation itself.
    first_steps = getattr(learner, "compile_seconds", first_steps)
    learned = time.perf_counter()
    predictions = side.predict(learner, arrays["test"])
    return {
        "first steps": first_steps,
        "learning": learned - start - first_steps,
        "recognizing": time.perf_counter() - learned,
        "accuracy": float((predictions == arrays["test_labels"]).mean()),
    }


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], json.loads(sys.argv[2]))))
