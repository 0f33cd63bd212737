"""Several devices compute what one computes, and several processes read what one would."""

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
from tests.vectors import test_vectors
from tests.vectors.test_vectors import gaussians

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


def outputs(state, images, test_images, mesh=None):
    """Imagined images of a state, and evidence, probabilities and loss terms after it learns `NEW` under replay."""
    rng = jax.random.key(5)
    imagined = lifelong.imagine(state, state.names, 6, rng=rng, cycles=1, mesh=mesh)
    learned, report = lifelong.learn(
        state.replace(config=state.config.with_settings(SETTINGS)), {NEW: images}, rng=rng, mesh=mesh
    )
    return {
        "imagined": np.stack([imagined[name] for name in state.names]),
        "evidence": lifelong.evidence(learned, test_images, rng=rng, mesh=mesh),
        "probabilities": lifelong.recognize(learned, test_images, rng=rng, mesh=mesh)[1],
        "terms": np.asarray([report.terms[name] for name in sorted(report.terms)]),
    }


@pytest.fixture(
    scope="module", params=["images", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("vectors", "pixels"))]
)
def outputs_of_one_and_four_devices(request, learner, digits, rng, tmp_path_factory):
    """Outputs of one device, and of a 2 x 2 mesh."""
    folder = tmp_path_factory.mktemp("devices")
    # 39 images: no multiple of a batch or of the devices.
    if request.param in ("images", "pixels"):
        state, new = learner, digits[NEW]
        if request.param == "pixels":
            # Samples of pixels are rounded to 8 bits: they are not compared.
            config = learner.config.with_settings({"pixel_widths": "8", "sample_style": "contrast"})
            state = lifelong.init(config, (28, 28, 1), rng=rng)
            for name in "201":
                state, _ = lifelong.learn(state, {name: digits[name]}, rng=rng)
        test_images = np.concatenate([digits[name][300:313] for name in "201"])
    else:
        state = test_vectors.learned(lifelong.Config().with_settings(test_vectors.SETTINGS), rng, gaussians(100, 2))
        test_images, new = np.concatenate(list(gaussians(13, 3).values())), gaussians(100, 4, shift=1.0)["a"]
    lifelong.save(state, folder / "state")
    np.savez(folder / "images.npz", **{NEW: new, "test": test_images})
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    command = [sys.executable, "-m", "tests.devices", str(folder)]
    environment = {**os.environ, "XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    of_one = outputs(state, new, test_images)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    with np.load(folder / "outputs.npz") as of_four:
        return of_one, dict(of_four)


# Sums are in another order: float32 has 7 digits, and 20 steps of Adam amplify the difference.
@pytest.mark.parametrize(
    ("output", "tolerance"),
    [
        ("imagined", {"atol": 1e-5}),
        ("evidence", {"rtol": 1e-3}),
        ("probabilities", {"atol": 1e-3}),
        ("terms", {"rtol": 1e-3}),
    ],
)
def test_mesh_of_four_devices_gives_outputs_of_one(outputs_of_one_and_four_devices, output, tolerance):
    of_one, of_four = outputs_of_one_and_four_devices
    np.testing.assert_allclose(of_four[output], of_one[output], **tolerance)


def test_mesh_of_one_device_gives_bitwise_same_evidence(learner, digits, rng):
    mesh = lifelong.make_mesh()
    assert mesh.shape == {"data": jax.device_count(), "category": 1}
    without, with_mesh = (np.asarray(lifelong.evidence(learner, digits["2"][:20], mesh=m)) for m in (None, mesh))
    np.testing.assert_array_equal(with_mesh, without)


def test_stack_categories_deals_categories_to_devices_in_turn(learner):
    stack = stack_categories(learner, learner.names, shards=3)
    assert (stack.capacity, stack.shards, int(stack.count)) == (6, 3, 3)
    # Two rows per device: its category, and padding.
    for row, name in enumerate(("2", "2", "0", "2", "1", "2")):
        prior = learner.params["categories"][name]["prior"]
        np.testing.assert_array_equal(stack.categories["prior"]["means"][row], prior["means"])


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0), (None, 0), (7, 1), (1, 7), (None, 7)])
def test_make_mesh_refuses_unavailable_devices(sizes):
    with pytest.raises(lifelong.InputError) as error:
        lifelong.make_mesh(*sizes)
    one_line(error, "mesh: expected positive numbers whose product is at most", "the number of devices", "got ")


class MeshOfThree:
    """A mesh of three devices, more than this process has."""

    shape = {"data": 3, "category": 1}  # noqa: RUF012


def test_learn_refuses_batch_size_that_devices_do_not_divide(learner, digits, rng):
    with pytest.raises(lifelong.InputError) as error:
        lifelong.learn(learner, {NEW: digits[NEW]}, rng=rng, mesh=MeshOfThree())
    one_line(error, "batch_size: expected a multiple of 3, the number of devices, got 64")


@pytest.fixture
def lengths_and_result(monkeypatch):
    """Function that simulates processes in turn: the lengths that they exchange, and the result that all get."""

    def simulate(count, function):
        monkeypatch.setattr(jax, "process_count", lambda: count)
        exchanged = []

        def gather(value):
            if not np.ndim(value):  # a flag
                return np.asarray([value])
            exchanged.append(value)
            raise InterruptedError

        for index in range(count):
            monkeypatch.setattr(jax, "process_index", lambda index=index: index)
            monkeypatch.setattr(multihost_utils, "process_allgather", gather)
            with pytest.raises(InterruptedError):
                function()
        monkeypatch.setattr(multihost_utils, "process_allgather", lambda x: np.stack(exchanged) if np.ndim(x) else x)
        return [len(part) for part in exchanged], function()

    return simulate


@pytest.mark.parametrize(("count", "rows"), [(2, slice(None)), (3, slice(5, 12)), (5, slice(0, 3))])
def test_split_reading_reads_one_part_per_process_and_returns_all(lengths_and_result, mnist5k, count, rows):
    expected = mnist5k.read("train", "3")[rows]
    lengths, images = lengths_and_result(count, lambda: split_reading(mnist5k).read("train", "3", rows))
    np.testing.assert_array_equal(images, expected)
    assert set(lengths) == {-(-len(expected) // count)}


@pytest.mark.parametrize("rows", [slice(None), slice(3), slice(2, 5), slice(350, None), slice(7, 7)])
def test_read_of_limited_source_counts_rows_from_remaining_images(mnist5k, rows):
    images = mnist5k.read("train", "3")
    limited = limit_train_images(hold_out(mnist5k, 0.25), ["3"], 200)
    np.testing.assert_array_equal(limited.read("train", "3", rows), images[:300][:200][rows])
    np.testing.assert_array_equal(limited.read("validation", "3", rows), images[300:][rows])
    np.testing.assert_array_equal(limited.read("test", "3", rows), mnist5k.read("test", "3")[rows])


def test_distributed_functions_are_trivial_in_one_process(mnist5k):
    assert split_reading(mnist5k) is mnist5k
    assert is_main_process()
    assert broadcast_from_main({"a": [1]}) == {"a": [1]}
    assert run_on_main(lambda: 3) == 3
    assert any_process(bool) is bool
