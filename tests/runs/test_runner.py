"""Files of a run: their keys, and their figures by a second computation."""

import json
import math

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import checkpoints
from lifelong_cvae.checkpoints import orbax_store
from lifelong_cvae.data import from_arrays, hold_out, make_tasks
from lifelong_cvae.files import device_description, package_versions
from lifelong_cvae.runs.config import read_run_config
from lifelong_cvae.runs.workdir import load_state
from tests.conftest import assert_trees_equal, lines_of, result_of, run_quietly
from tests.runs.conftest import FIVE, THREE, accuracies_of, recorded_source

METRICS = {
    "schema",
    "task",
    "categories",
    "accuracy",
    "accuracy_elbo",
    "accuracy_per_category",
    "accuracy_per_category_elbo",
    "calibration_error",
    "calibration_error_elbo",
    "terms",
    "steps",
    "seconds",
    "images_per_second",
    "parameters_per_category",
    "compilations",
}
OVER_TIME = {
    "accuracy",
    "accuracy_per_category",
    "average_accuracy",
    "average_incremental_accuracy",
    "backward_transfer",
    "calibration_error",
    "forgetting",
    "forgetting_same_candidates",
}
RESULT = {
    "schema",
    "recognizer",
    "recogniser",
    *OVER_TIME,
    *(f"{key}_elbo" for key in OVER_TIME),
    "parameters_per_category",
    "seconds_total",
    "seconds_learning",
    "categories",
    "versions",
    "device",
}


def test_run_without_drawing_writes_no_figures(run_of_three):
    assert {path.name for path in run_of_three.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "result.json",
        "checkpoints",
        ".lock",
    }


def test_run_records_configuration_data_and_versions(run_of_five, make_run_config, mnist5k):
    values = json.loads((run_of_five / "config.json").read_text("utf-8"))
    run_config = json.loads(json.dumps(make_run_config(FIVE).to_dict()))
    assert len(values.pop("digest")) == 64
    assert values == {
        "schema": 1,
        **run_config,
        "image_shape": [28, 28, 1],
        "pixel_values": "whole numbers from 0 to 255",
        "max_value": None,
        "fingerprint": mnist5k.fingerprint,
        "versions": package_versions(),
        "device": device_description(),
    }
    assert read_run_config(run_of_five) == make_run_config(FIVE)


def test_run_writes_a_line_of_metrics_per_task(run_of_five, config_with_features):
    lines = lines_of(run_of_five)
    assert [line["task"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["categories"] for line in lines] == [[name] for name in FIVE]
    learning = config_with_features.learning
    steps = learning.steps_per_call * math.ceil(math.ceil(400 / learning.batch_size) / learning.steps_per_call)
    for task, line in enumerate(lines, start=1):
        assert set(line) == METRICS
        assert line["schema"] == 1
        assert list(line["accuracy_per_category"]) == list(FIVE[:task])
        assert set(line["terms"]) == {"real"}
        assert line["steps"] == steps
        assert line["images_per_second"] * line["seconds"] == pytest.approx(steps * learning.batch_size)
    # Nothing is compiled from the third category on.
    assert [line["compilations"] for line in lines[2:]] == [0, 0, 0]


def test_run_counts_parameters_per_category(run_of_five):
    params = load_state(run_of_five).params["categories"]
    sizes = {sum(np.size(leaf) for leaf in jax.tree.leaves(params[name])) for name in FIVE}
    counts = {line["parameters_per_category"] for line in lines_of(run_of_five)}
    assert sizes == counts == {result_of(run_of_five)["parameters_per_category"]}


@pytest.mark.parametrize("task", [1, 3, 5])
def test_run_records_accuracies_of_each_checkpoint(run_of_five, mnist5k, task):
    state = checkpoints.load(run_of_five / "checkpoints", step=task)
    assert state.names == FIVE[:task]
    line = lines_of(run_of_five)[task - 1]
    accuracies = accuracies_of(state, mnist5k)
    assert line["accuracy_per_category"] == pytest.approx(accuracies)
    # Each category has 100 test images.
    assert line["accuracy"] == pytest.approx(sum(accuracies.values()) / len(accuracies))
    by_elbo = accuracies_of(state, mnist5k, recognizer="elbo")
    assert line["accuracy_per_category_elbo"] == pytest.approx(by_elbo)
    assert line["accuracy_elbo"] == pytest.approx(sum(by_elbo.values()) / len(by_elbo))


def test_result_summarizes_the_metrics(run_of_five):
    lines, result = lines_of(run_of_five), result_of(run_of_five)
    assert set(result) == RESULT
    assert result["schema"] == 1
    assert result["categories"] == list(FIVE)
    for name in ("accuracy", "accuracy_elbo", "accuracy_per_category", "accuracy_per_category_elbo"):
        assert result[name] == lines[-1][name]
    assert result["recognizer"] == "closed_form"
    losses = []
    for name in FIVE[:-1]:
        history = [line["accuracy_per_category"][name] for line in lines if name in line["accuracy_per_category"]]
        losses.append(max(history[:-1]) - history[-1])
    assert result["forgetting"] == pytest.approx(100 * sum(losses) / len(losses))
    means = [np.mean(list(line["accuracy_per_category"].values())) for line in lines]
    assert result["average_accuracy"] == pytest.approx(means[-1])
    assert result["average_incremental_accuracy"] == pytest.approx(np.mean(means))
    assert result["seconds_learning"] == pytest.approx(math.fsum(line["seconds"] for line in lines))
    assert result["versions"] == package_versions()
    assert result["device"] == device_description()


def test_result_forgetting_same_candidates_excludes_later_categories(run_of_five, mnist5k):
    lines, state = lines_of(run_of_five), load_state(run_of_five)
    losses = []
    for position, name in enumerate(FIVE[:-1]):
        evidence = np.asarray(lifelong.evidence(state, mnist5k.read("test", name)))
        accuracy = np.mean(evidence[:, : position + 1].argmax(axis=1) == position)
        best = max(line["accuracy_per_category_elbo"][name] for line in lines[position:-1])
        losses.append(best - accuracy)
    assert result_of(run_of_five)["forgetting_same_candidates_elbo"] == pytest.approx(100 * np.mean(losses))


def test_run_logs_a_table_with_a_row_per_task(run_of_five, log_of_five):
    images, heading, *rows = log_of_five
    counts = [", ".join(f"{name}: {count}" for name in FIVE) for count in (400, 100)]
    assert images == f"images 28 x 28 x 1; whole numbers from 0 to 255; train {counts[0]}; test {counts[1]}"
    assert "accuracy" in heading
    assert "\n" not in "".join(log_of_five)
    for row, line in zip(rows, lines_of(run_of_five), strict=True):
        name = line["categories"][0]
        assert row.split()[:5] == [
            str(line["task"]),
            name,
            f"{100 * line['accuracy']:.2f}%",
            f"{100 * line['accuracy_per_category'][name]:.2f}%",
            f"{line['terms']['real']:.1f}",
        ]


def test_run_keeps_all_checkpoints_if_asked(run_of_five):
    assert orbax_store.steps(run_of_five / "checkpoints") == [1, 2, 3, 4, 5]


def test_checkpoint_holds_no_training_image(run_of_five, config_with_features, mnist5k):
    state = load_state(run_of_five)
    fresh = lifelong.init(config_with_features, (28, 28), rng=jax.random.key(0))
    sizes = [np.size(leaf) for leaf in jax.tree.leaves(state.params)]
    mixed = sum(np.size(leaf) for leaf in jax.tree.leaves(fresh.params))
    per_category = lines_of(run_of_five)[0]["parameters_per_category"]
    assert sum(sizes) == mixed + len(FIVE) * per_category, "only parameters of networks"
    # No row of 784 parameters is proportional to an image either.
    images = np.concatenate([mnist5k.read("train", name) for name in FIVE]).reshape(-1, 784) / 255
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    compared = 0
    for leaf in map(np.asarray, jax.tree.leaves(state.params)):
        if leaf.size % 784 == 0:
            for rows in (leaf.reshape(-1, 784), leaf.reshape(784, -1).T):
                cosines = rows @ images.T / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9)
                assert cosines.max() < 0.99
                compared += len(rows)
    assert compared > 0


def test_run_learns_two_categories_per_task(tmp_path, make_run_config, mnist5k):
    tasks = make_tasks(mnist5k.categories, categories=THREE, categories_per_task=2)
    assert tasks == (("3", "1"), ("4",))
    result = run_quietly(tmp_path / "run", make_run_config(tasks), mnist5k)
    lines = lines_of(tmp_path / "run")
    assert [line["task"] for line in lines] == [1, 2]
    assert [line["categories"] for line in lines] == [["3", "1"], ["4"]]
    assert [list(line["accuracy_per_category"]) for line in lines] == [["3", "1"], ["3", "1", "4"]]
    state = load_state(tmp_path / "run")
    assert state.names == THREE
    accuracies = accuracies_of(state, mnist5k)
    assert result["accuracy_per_category"] == pytest.approx(accuracies)
    # Both categories of the first task were candidates when it had been learned.
    first = lines[0]["accuracy_per_category_elbo"]
    evidence = {name: np.asarray(lifelong.evidence(state, mnist5k.read("test", name))) for name in "31"}
    restricted = {name: np.mean(evidence[name][:, :2].argmax(axis=1) == "31".index(name)) for name in "31"}
    losses = [first[name] - restricted[name] for name in "31"]
    assert result["forgetting_same_candidates_elbo"] == pytest.approx(100 * np.mean(losses))
    first = lines[0]["accuracy_per_category"]
    losses = [first[name] - accuracies[name] for name in "31"]
    assert result["forgetting"] == pytest.approx(100 * np.mean(losses))


def test_run_evaluates_on_held_out_images(tmp_path, make_run_config, mnist5k):
    source, reads = recorded_source(hold_out(mnist5k, 0.25))
    run_config = make_run_config(THREE, validation_fraction=0.25, evaluate_on="validation")
    result = run_quietly(tmp_path / "run", run_config, source)
    assert {split for split, _ in reads} == {"train", "validation"}, "test images are not read"
    state = load_state(tmp_path / "run")
    accuracies = {}
    for name in THREE:
        predictions, _ = lifelong.recognize(state, mnist5k.read("train", name)[300:])
        assert len(predictions) == 100
        accuracies[name] = np.mean(predictions == name)
    assert result["accuracy_per_category"] == pytest.approx(accuracies)
    # The state equals one that learned the first 300 images.
    rng, expected = jax.random.key(0), lifelong.init(run_config.config, (28, 28), rng=jax.random.key(0))
    for name in THREE:
        expected, _ = lifelong.learn(expected, {name: mnist5k.read("train", name)[:300]}, rng=rng)
    assert_trees_equal(state.params, expected.params)


def test_run_weights_accuracy_by_images(tmp_path, make_run_config, mnist5k):
    train = [mnist5k.read("train", name) for name in "34"]
    # Three images labeled as fours are threes, which no learner recognizes as fours.
    fours = [mnist5k.read("test", name)[-count:] for name, count in (("4", 6), ("3", 3))]
    test = [mnist5k.read("test", "3")[:91], np.concatenate(fours)]
    source = from_arrays(
        "mnist5k",
        train_images=np.concatenate(train),
        train_labels=np.repeat(["3", "4"], [len(images) for images in train]),
        test_images=np.concatenate(test),
        test_labels=np.repeat(["3", "4"], [91, 9]),
    )
    result = run_quietly(tmp_path / "run", make_run_config("34"), source)
    per_category = result["accuracy_per_category"]
    assert per_category["3"] != per_category["4"]
    assert result["accuracy"] == pytest.approx(0.91 * per_category["3"] + 0.09 * per_category["4"])
    # Figures can be drawn of categories with fewer images than a row of the figure holds.
    run_quietly(tmp_path / "drawn", make_run_config("34"), source, draw=True, write_report=None, tensorboard=None)
    assert (tmp_path / "drawn" / "figures" / "reconstructions.png").stat().st_size > 0
