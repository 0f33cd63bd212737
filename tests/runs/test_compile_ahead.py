"""Compiling ahead: the programs of a run are those that it calls later."""

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.runs import compile_ahead
from lifelong_cvae.runs.compile_ahead import Plan
from lifelong_cvae.training.compilations import count_compilations
from tests.conftest import SMALL, SMALL_FEATURES

LARGE = {"train_chunk", "fit_parts", "accumulate", "batch_evidence", "extract_batch", "imagine_stacked"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, 7), ({"recognizer": "elbo", "random_features": 0, "mixed_mode": "none", "bound": "sampled"}, 4)],
)
def test_programs_are_those_of_learning_recognizing_and_imagining(settings, expected, rng):
    quick = {**SMALL, **SMALL_FEATURES, "min_steps": 2, "steps_per_call": 2, "output_rank": 13, "num_filters": 14}
    state = lifelong.init(lifelong.Config().with_settings({**quick, **settings}), (8, 9), rng=rng, capacity=3)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 9), np.uint8)
    with count_compilations() as ahead:
        for lower in compile_ahead.programs(state, Plan(("a",), 40, 10, np.uint8, 10)):
            compile_ahead._compile(lower)
    assert ahead.count == expected
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(listen := lambda *_, **info: compiled.append(info))
    for name in "ab":
        state, _ = lifelong.learn(state, {name: images}, rng=rng)
        lifelong.recognize(state, images[:10], rng=rng)
        lifelong.imagine(state, state.names, 10, rng=rng)
    jax.monitoring.unregister_event_duration_listener(listen)
    names = {info.get("fun_name", "").removeprefix("jit(").removesuffix(")") for info in compiled}
    assert "_init_category" in names
    assert not names & LARGE
