"""Our side of the twins: the public functions of lifelong_cvae. `twin_process` runs it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.monitoring
import numpy as np

import lifelong_cvae as lifelong

# Start and end of a phase, in seconds of `time.time`.
Span = tuple[float, float]


@dataclass
class Learner:
    """A state, and the seconds in which its categories were traced and compiled."""

    state: lifelong.LifelongState
    rng: jax.Array
    compile_seconds: float = 0.0


def build(task: dict[str, Any]) -> Learner:
    """Returns a learner without categories, with the settings `config` of the task."""
    rng = jax.random.key(task["seed"])
    return Learner(lifelong.init(lifelong.Config.from_dict(task["config"]), task["image_shape"], rng=rng), rng)


def train(learner: Learner, images: np.ndarray, steps: int) -> Iterator[float]:
    """Learns one more category and yields one loss, the mean over the last chunk of steps.

    Args:
        learner: learner to update.
        images: uint8 `[n, pixels]`.
        steps: number of training steps of the baselines.

    Raises:
        AssertionError: the settings lead to another number of steps.
    """
    name, shape = str(len(learner.state.names)), learner.state.image_shape
    with compile_spans() as spans:
        learner.state, report = lifelong.learn(learner.state, {name: images.reshape(-1, *shape)}, rng=learner.rng)
    learner.compile_seconds += covered_seconds(spans)
    if report.steps != steps:
        raise AssertionError(f"training steps: expected {steps} as in the baselines, got {report.steps}")
    yield report.terms["real"]


def predict(learner: Learner, images: np.ndarray) -> np.ndarray:
    """Returns the category of the highest evidence for images uint8 `[n, pixels]`, `[n]`."""
    images = images.reshape(-1, *learner.state.image_shape)
    return np.asarray(lifelong.evidence(learner.state, images)).argmax(axis=1)


@contextlib.contextmanager
def compile_spans() -> Iterator[list[Span]]:
    """Records the spans in which JAX traces and compiles within the block. Some lie within others."""
    spans: list[Span] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            spans.append((time.time() - duration, time.time()))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield spans
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def covered_seconds(spans: list[Span]) -> float:
    """Returns the length of the union of spans."""
    total, reached = 0.0, -np.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
