"""Our side of `twins`, in a process of its own: learns categories one by one and recognizes test images."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

import lifelong_cvae as lifelong


@contextlib.contextmanager
def compiling() -> Iterator[list[tuple[float, float]]]:
    """When, within the block, JAX traced and compiled: beginnings and ends in seconds of `time.time`.

    Some lie within others: see `covered`.
    """
    spans: list[tuple[float, float]] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            spans.append((time.time() - duration, time.time()))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield spans
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def covered(spans: list[tuple[float, float]]) -> float:
    """Seconds that spans cover together."""
    total, reached = 0.0, -np.inf
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def main(task: dict[str, Any]) -> dict[str, float]:
    """Does a task that `twins` wrote."""
    begun = time.perf_counter()
    arrays, rng = np.load(task["file"]), jax.random.key(task["seed"])
    images, test = (arrays[name].reshape(-1, *task["image_shape"]) for name in ("train", "test"))
    state = lifelong.init(lifelong.Config.from_dict(task["config"]), task["image_shape"], rng=rng)
    with compiling() as spans:
        for category in range(len(task["steps"])):
            own = images[arrays["train_labels"] == category]
            state, report = lifelong.learn(state, {str(category): own}, rng=rng)
            if report.steps != task["steps"][category]:
                raise AssertionError(f"{report.steps} steps, the twins take {task['steps'][category]}")
        learned, compiled = time.perf_counter(), covered(spans)
        answers = np.asarray(lifelong.evidence(state, test)).argmax(axis=1)
    return {
        "first steps": compiled,
        "learning": learned - begun - compiled,
        "recognizing": time.perf_counter() - learned,
        "accuracy": float((answers == arrays["test_labels"]).mean()),
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    imports = time.time() - given["started"]
    print(json.dumps({"imports": imports, **main(given)}))
