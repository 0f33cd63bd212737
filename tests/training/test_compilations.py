"""Counting compilations, and upper bounds on those of the train step."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.training.compilations import count_compilations


def test_count_compilations_counts_one_function_or_all_within_block():
    @jax.jit
    def doubled(x):
        return 2 * x

    @jax.jit
    def tripled(x):
        return 3 * x

    short, long = jnp.ones(2), jnp.ones(3)
    doubled(short)
    with count_compilations("doubled") as of_doubled, count_compilations() as of_all:
        doubled(short)
        doubled(long)
        doubled(long)
        tripled(short)
    doubled(jnp.ones(4))
    assert of_doubled.count == 1
    assert of_all.count == 2


@pytest.mark.slow
def test_train_chunk_compiles_at_most_7_times_for_32_categories_of_unequal_size(small_config, rng):
    config = small_config.with_settings({"min_steps": 1, "steps_per_call": 1})
    sizes = np.random.default_rng(0).integers(1, 600, 32)
    state = lifelong.init(config, (8, 8), rng=rng)
    with count_compilations("train_chunk") as compiled:
        for index, size in enumerate(sizes):
            images = np.full((size, 8, 8), 255 - index, np.uint8)
            state, _ = lifelong.learn(state, {f"category {index}": images}, rng=rng)
    assert 1 <= compiled.count <= 7
    assert len(state.names) == 32


@pytest.mark.slow
def test_train_chunk_compiles_at_most_6_times_for_ten_categories_of_mnist_sizes(small_config, rng):
    config = small_config.with_settings({"min_steps": 1, "steps_per_call": 1, "batch_size": 6000})
    state = lifelong.init(config, (8, 8), rng=rng)
    reported = 0
    with count_compilations("train_chunk") as compiled:
        for index, size in enumerate([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]):
            state, report = lifelong.learn(state, {str(index): np.zeros((size, 8, 8), np.uint8)}, rng=rng)
            reported += report.compilations
    assert 1 <= compiled.count <= 6
    assert reported == compiled.count


@pytest.mark.slow
def test_playback_compiles_as_often_as_stack_doubles(small_config, rng):
    settings = {
        "mixed_mode": "playback",
        "base_categories": 3,
        "min_steps": 1,
        "steps_per_call": 1,
        "prior_components": 0,
        "playback_weight": 0,
        "recognize_weight": 0,
        "circulate_weight": 0,
    }
    state = lifelong.init(small_config.with_settings(settings), (8, 8), rng=rng)
    sizes = np.random.default_rng(0).integers(20, 900, 9)
    with count_compilations("train_chunk") as trained, count_compilations("sample_memory") as replayed:
        for index, size in enumerate(sizes):
            images = np.random.default_rng(index).integers(0, 256, (size, 8, 8), np.uint8)
            state, _ = lifelong.learn(state, {f"category {index}": images}, rng=rng)
    # Stacks of 4 and of 8 categories, and the first task, which replays nothing.
    assert trained.count == 3
    assert replayed.count == 2


def count_programs(*arguments):
    """Counts in a process of its own, since compiled functions are kept."""
    command = [sys.executable, "-m", "tests.programs", *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_run_compiles_few_programs_that_are_exported_for_every_platform():
    result = count_programs("3", "products")
    # The second task adds the frozen mixed part and the regression; the others at most a padded size.
    assert result["after_task"][-1] <= result["after_task"][1] + 2
    assert result["programs"] <= 38
    assert result["products"] <= 86
    assert set(result["exported"]) >= {
        *("train_chunk", "fit_parts", "encoder_activations", "accumulate", "strided_gram"),
        *("_solve", "_held_out_error", "batch_evidence", "extract_batch", "imagine_stacked"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vectors", "pixels"])
def test_run_of_a_kind_compiles_few_programs_that_are_exported_for_every_platform(kind):
    result = count_programs("3", "products", kind)
    assert result["after_task"][-1] <= result["after_task"][1] + 2
    assert result["programs"] <= 38
    assert set(result["exported"]) >= {"train_chunk", "fit_parts", "accumulate", "_solve", "batch_evidence"}


@pytest.mark.slow
def test_run_with_playback_is_exported_for_every_platform():
    assert {"sample_memory", "_shift_priors", "train_chunk"} <= set(
        count_programs("3", "products", "playback")["exported"]
    )


@pytest.mark.slow
def test_run_of_ten_categories_compiles_as_few_programs_as_one_of_two():
    # Of as many test images, since another size of batches is another program.
    two, ten = count_programs("2", "tests"), count_programs("10", "tests")
    assert ten["programs"] <= min(45, two["programs"] + 2)
