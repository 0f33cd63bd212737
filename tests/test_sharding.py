"""Many devices compute what one computes, and processes read and tell what one would."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.data import hold_out, limit_train_images, split_reading
from lifelong_cvae.data.source import multihost_utils
from lifelong_cvae.distributed import any_process, broadcast_from_main, is_main_process, run_on_main
from lifelong_cvae.stacked import stack_categories
from tests.conftest import one_line

ROOT = Path(__file__).parents[1]
MESH = (2, 2)
NEW = "7"
SETTINGS = {
    "mixed_mode": "playback",
    "min_steps": 20,
    "steps_per_call": 10,
    "batch_size": 16,
    "bound": "sampled",
    "samples": 2,
    "eval_batch_size": 16,
}


def says(state, images, others, mesh=None):
    """What a state says and imagines before and after it learns a category more, under protection."""
    rng = jax.random.key(5)
    drawn = lifelong.imagine(state, state.names, 6, rng=rng, cycles=1, mesh=mesh)
    learned, report = lifelong.learn(
        state.replace(config=state.config.with_settings(SETTINGS)), {NEW: images}, rng=rng, mesh=mesh
    )
    return {
        "imagined": np.stack([drawn[name] for name in state.names]),
        "evidence": lifelong.evidence(learned, others, rng=rng, mesh=mesh),
        "probabilities": lifelong.recognize(learned, others, rng=rng, mesh=mesh)[1],
        "terms": np.asarray([report.terms[name] for name in sorted(report.terms)]),
    }


@pytest.fixture(scope="module")
def both(learner, digits, tmp_path_factory):
    """What one device says, and what four say, two that share images for each two that share categories."""
    folder = tmp_path_factory.mktemp("devices")
    lifelong.save(learner, folder / "state")
    others = np.concatenate([digits[name][300:313] for name in "201"])  # no multiple of anything
    np.savez(folder / "images.npz", **{NEW: digits[NEW], "test": others})
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    command = [sys.executable, "-m", "tests.devices", str(folder)]
    environment = {**os.environ, "XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    expected = says(learner, digits[NEW], others)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    with np.load(folder / "said.npz") as found:
        return expected, dict(found)


# Sums in another order: float32 has 7 digits, and 20 steps of Adam enlarge what differs.
@pytest.mark.parametrize(
    ("what", "tolerance"),
    [
        ("imagined", {"atol": 1e-5}),
        ("evidence", {"rtol": 1e-3}),
        ("probabilities", {"atol": 1e-3}),
        ("terms", {"rtol": 1e-3}),
    ],
)
def test_four_devices_say_what_one_says(both, what, tolerance):
    expected, found = both
    np.testing.assert_allclose(found[what], expected[what], **tolerance)


def test_a_mesh_of_one_device_says_bit_for_bit_what_none_says(learner, digits, rng):
    mesh = lifelong.make_mesh()
    assert mesh.shape == {"data": jax.device_count(), "category": 1}
    first, second = (np.asarray(lifelong.evidence(learner, digits["2"][:20], mesh=m)) for m in (None, mesh))
    np.testing.assert_array_equal(first, second)


def test_categories_are_dealt_out_one_by_one(learner):
    stack = stack_categories(learner, learner.names, shards=3)
    assert (stack.capacity, stack.shards, int(stack.count)) == (6, 3, 3)
    # Two rows for each device: of its own category, and of padding.
    for row, name in enumerate(("2", "2", "0", "2", "1", "2")):
        own = learner.params["categories"][name]["prior"]
        np.testing.assert_array_equal(stack.categories["prior"]["means"][row], own["means"])


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0), (None, 0), (7, 1), (1, 7), (None, 7)])
def test_a_mesh_of_devices_that_are_not_there_is_refused(sizes):
    with pytest.raises(lifelong.InputError) as error:
        lifelong.make_mesh(*sizes)
    one_line(error, "devices", "expected")


class Mesh:
    """A mesh of three devices, which this process does not have."""

    shape = {"data": 3, "category": 1}  # noqa: RUF012


def test_a_batch_that_devices_cannot_share_is_refused(learner, digits, rng):
    with pytest.raises(lifelong.InputError) as error:
        lifelong.learn(learner, {NEW: digits[NEW]}, rng=rng, mesh=Mesh())
    one_line(error, "batch_size=64", "3 devices", "multiple of 3")


# Several processes, as one that stands for each in turn


@pytest.fixture
def processes(monkeypatch):
    """Calls a function once for each of some processes; what they exchange, all of them have."""

    def call(count, function):
        monkeypatch.setattr(jax, "process_count", lambda: count)
        given = []

        def gather(value):
            given.append(value)
            raise InterruptedError

        for own in range(count):
            monkeypatch.setattr(jax, "process_index", lambda own=own: own)
            monkeypatch.setattr(multihost_utils, "process_allgather", gather)
            with pytest.raises(InterruptedError):
                function()
        monkeypatch.setattr(multihost_utils, "process_allgather", lambda _: np.stack(given))
        return [len(part) for part in given], function()

    return call


@pytest.mark.parametrize(("count", "rows"), [(2, slice(None)), (3, slice(5, 12)), (5, slice(0, 3))])
def test_each_process_reads_its_part_and_all_have_all(processes, mnist5k, count, rows):
    expected = mnist5k.read("train", "3")[rows]
    lengths, found = processes(count, lambda: split_reading(mnist5k).read("train", "3", rows))
    np.testing.assert_array_equal(found, expected)
    assert set(lengths) == {-(-len(expected) // count)}


@pytest.mark.parametrize("rows", [slice(None), slice(3), slice(2, 5), slice(350, None), slice(7, 7)])
def test_rows_of_what_is_narrowed_are_rows_of_what_is_left(mnist5k, rows):
    images = mnist5k.read("train", "3")
    few = limit_train_images(hold_out(mnist5k, 0.25), ["3"], 200)
    np.testing.assert_array_equal(few.read("train", "3", rows), images[:300][:200][rows])
    np.testing.assert_array_equal(few.read("validation", "3", rows), images[300:][rows])
    np.testing.assert_array_equal(few.read("test", "3", rows), mnist5k.read("test", "3")[rows])


def test_one_process_reads_by_itself_and_is_told_what_it_says(mnist5k):
    assert split_reading(mnist5k) is mnist5k
    assert is_main_process()
    assert broadcast_from_main({"a": [1]}) == {"a": [1]}
    assert run_on_main(lambda: 3) == 3
    assert any_process(bool) is bool
