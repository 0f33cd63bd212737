"""Compiling ahead: the programs of a run are those that it calls later."""

import contextlib
import threading

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.runs import compile_ahead
from lifelong_cvae.runs.compile_ahead import Plan
from tests.conftest import SMALL, SMALL_FEATURES

COMMON = {"train_chunk", "fit_parts", "batch_evidence", "imagine_stacked"}
FEATURES = {"accumulate", "extract_batch"}


@contextlib.contextmanager
def names_of_compilations():
    """Yields a set to which the name of each function is added that is compiled."""
    names = set()

    def listen(event, _, **info):
        if event.endswith("backend_compile_duration"):
            names.add(info.get("fun_name", "").removeprefix("jit(").removesuffix(")"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, COMMON | FEATURES),
        ({"recognizer": "elbo", "random_features": 0, "mixed_mode": "none", "bound": "sampled"}, COMMON),
    ],
)
def test_programs_are_those_of_learning_recognizing_and_imagining(settings, expected, rng):
    quick = {**SMALL, **SMALL_FEATURES, "min_steps": 2, "steps_per_call": 2, "output_rank": 13, "num_filters": 14}
    state = lifelong.init(lifelong.Config().with_settings({**quick, **settings}), (8, 9), rng=rng, capacity=3)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 9), np.uint8)
    with names_of_compilations() as ahead:
        for lower in compile_ahead.programs(state, Plan(("a",), ("a",), 40, (10,), np.uint8, 10)):
            compile_ahead._compile(lower, threading.Lock())
    assert ahead >= expected
    with names_of_compilations() as later:
        for name in "ab":
            state, _ = lifelong.learn(state, {name: images}, rng=rng)
            lifelong.recognize(state, images[:10], rng=rng)
            lifelong.imagine(state, state.names, 10, rng=rng)
    assert "_init_category" in later
    assert not later & expected
