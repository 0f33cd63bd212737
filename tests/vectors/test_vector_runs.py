"""Runs on vectors: figures, files, and launchers that refuse them."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import InputError
from lifelong_cvae.data import from_arrays, open_source
from lifelong_cvae.data.pictures import read_vectors
from lifelong_cvae.evaluation import metrics
from lifelong_cvae.runs import columns, evaluate, html_report, runner, vector_figures
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.runs.workdir import load_state
from lifelong_cvae.webapp import open_page
from tests.vectors.test_vectors import CATEGORIES, SETTINGS, D, gaussians


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """An npz file of vectors."""
    arrays = {}
    for split, count, seed in (("train", 60, 2), ("test", 20, 3)):
        parts = gaussians(count, seed)
        arrays[f"{split}_images"] = np.concatenate(list(parts.values())).astype(np.float16)
        arrays[f"{split}_labels"] = np.repeat(list(parts), count)
    file = tmp_path_factory.mktemp("vectors") / "vectors.npz"
    np.savez(file, **arrays)
    return file


@pytest.fixture(scope="module")
def run(file, tmp_path_factory):
    """A run on the vectors, with figures, and what it logged."""
    workdir, logged = tmp_path_factory.mktemp("run") / "run", []
    source = open_source(f"npz:{file}")
    config = RunConfig(f"npz:{file}", (("a",), ("b",), ("c",)), config=lifelong.Config().with_settings(SETTINGS))
    options = runner.RunOptions(tensorboard=False, log_fn=logged.append)
    result = runner.run(workdir, config, source, options)
    return workdir, result, logged


def test_open_source_reads_vectors_as_they_are(file):
    source = open_source(f"npz:{file}")
    assert (source.image_shape, source.max_value, source.categories) == ((D,), None, CATEGORIES)
    np.testing.assert_array_equal(source.read("test", "b"), gaussians(20, 3)["b"].astype(np.float16))


def test_run_on_vectors_recognizes_and_draws(run):
    workdir, result, logged = run
    assert result["accuracy"] > 0.95
    assert f"vectors of {D} numbers; floats from " in logged[0]
    assert sorted(path.name for path in (workdir / "figures").iterdir()) == ["accuracy.png", "directions.png"]


def test_run_on_vectors_resumes_with_a_further_category(run, file, tmp_path):
    workdir, _, _ = run
    config = RunConfig(f"npz:{file}", (("a",), ("b",)), config=lifelong.Config().with_settings(SETTINGS))
    options = runner.RunOptions(draw=False, tensorboard=False, log_fn=lambda _: None)
    source = open_source(f"npz:{file}")
    runner.run(tmp_path / "run", config, source, options)
    runner.run(tmp_path / "run", replace(config, tasks=(("a",), ("b",), ("c",))), source, options, resume=True)
    assert lifelong.checkpoints.digest(load_state(tmp_path / "run")) == lifelong.checkpoints.digest(load_state(workdir))


def test_write_samples_writes_vectors(run, tmp_path):
    state = load_state(run[0])
    columns.write_samples(state, ("a", "c"), 4, tmp_path / "samples.npz", seed=0)
    with np.load(tmp_path / "samples.npz") as arrays:
        assert (arrays["images"].shape, arrays["images"].dtype) == ((8, D), np.float32)
        assert (lifelong.recognize(state, arrays["images"])[0] == arrays["labels"]).mean() > 0.8


def test_launchers_of_pictures_refuse_vectors(run, tmp_path):
    workdir = run[0]
    state = load_state(workdir)
    with pytest.raises(InputError, match="serve: expected a run on images, got one on vectors"):
        open_page(workdir, port=0)
    with pytest.raises(InputError, match=r"x\.png: expected a run on images, got one on vectors"):
        columns.write_samples(state, ("a",), 4, tmp_path / "x.png", seed=0)


def test_report_of_vectors_shows_directions_and_no_pictures_of_vectors(run):
    text = (run[0] / "report.html").read_text("utf-8")
    assert text.count("<img") == 1
    assert '<img class="directions" src="data:image/png;base64,' in text
    assert "Turns of the circle" not in text
    assert "experiments.serve" not in text
    assert "Nearest categories" in text


def test_report_of_vectors_lists_confusions(run, tmp_path, monkeypatch):
    def mistaken(*arguments, **options):
        found = log_posteriors_by_category(*arguments, **options)
        return {kind: {**values, "a": np.roll(values["a"], 1, axis=1)} for kind, values in found.items()}

    log_posteriors_by_category = metrics.log_posteriors_by_category
    monkeypatch.setattr(html_report.metrics, "log_posteriors_by_category", mistaken)
    workdir = shutil.copytree(run[0], tmp_path / "run")
    text = html_report.report_run(workdir).read_text("utf-8")
    assert '<th scope="row">a</th><td>b</td><td>20 (100.0 %)</td></tr>' in text
    assert "most confident mistakes" not in text


def test_evaluate_run_compares_imagined_with_real_vectors(run, file, tmp_path):
    values = evaluate.evaluate_run(run[0], tmp_path / "none", samples=120, cycles=0, seed=0)
    imagined, floor = (values["generation"][kind] for kind in ("imagined", "floor"))
    assert imagined["fitting_capacity"] > 0.95
    assert floor["fitting_capacity"] > 0.95
    assert imagined["agreement"] > 0.95
    state, source = load_state(run[0]), open_source(f"npz:{file}")
    recognizer = lifelong.make_recognizer(state, "closed_form")
    for kind, images in (
        (imagined, metrics.sample_images(state, source, 120, rng=jax.random.key(0))),
        (floor, {name: source.read("test", name) for name in CATEGORIES}),
    ):
        right = [np.mean(lifelong.recognize(recognizer, x)[0] == name) for name, x in images.items()]
        assert kind["ridge_agreement"] == pytest.approx(np.mean(right))
    assert 0.4 < values["generation"]["nearest"]["ratio"] < 2.5
    assert values["novelty"]["left_out"] > 0.9
    assert json.loads((run[0] / "evaluation.json").read_text("utf-8"))["generation"] == values["generation"]
    assert not (tmp_path / "none").exists()


def test_recognize_reads_vectors(run, file, tmp_path):
    vectors = gaussians(20, 3)["b"]
    np.savez(tmp_path / "new.npz", images=vectors)
    read, files, skipped = read_vectors(tmp_path / "new.npz")
    np.testing.assert_array_equal(read, vectors)
    assert (files, skipped) == (["new.npz"] * 20, "")
    with pytest.raises(InputError, match=r"no such file, expected an npz file with images"):
        read_vectors(tmp_path / "missing.npz")


def test_from_arrays_refuses_bad_vectors():
    good = {
        "train_labels": [0, 1],
        "test_labels": [0, 1],
        "train_images": np.ones((2, 3)),
        "test_images": np.ones((2, 3)),
    }
    with pytest.raises(InputError, match="x: train vectors: expected finite numbers, got NaN or infinity in vector 1"):
        from_arrays("x", **{**good, "train_images": [[1, 2, 3], [1, np.inf, 3]]})
    with pytest.raises(InputError, match="x: max_value: expected images, got vectors"):
        from_arrays("x", **good, max_value=255)


def test_project_keeps_distances_in_the_plane(rng):
    numbers = np.random.default_rng(0)
    plane = np.linalg.qr(numbers.standard_normal((5, 2)))[0]
    points = numbers.standard_normal((2, 30, 2)) * [3, 1]
    real, imagined = vector_figures.project(*(points @ plane.T + 7))
    mean = points[0].mean(axis=0)
    for found, expected in ((real, points[0]), (imagined, points[1])):
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(expected - mean, axis=1))
    assert vector_figures.project(np.ones((3, 1)), np.ones((2, 1)))[1].shape == (2, 2)


def test_metrics_of_vectors_are_json(run):
    lines = (run[0] / "metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["categories"] for line in lines] == [["a"], ["b"], ["c"]]
