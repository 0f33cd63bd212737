"""Runs: the files of the contract, and a resumed run that equals an uninterrupted one."""

import dataclasses
import json
import math
import shutil
import sys

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import checkpoints
from lifelong_cvae.checkpoints import orbax_store
from lifelong_cvae.data import SourceOptions, from_arrays, hold_out, make_tasks
from lifelong_cvae.errors import InputError, MissingExtraError, Stopped
from lifelong_cvae.files import device_description, keep_lines, package_versions
from lifelong_cvae.runs.config import RunConfig, read_run_config
from lifelong_cvae.runs.workdir import load_state, lock_workdir
from lifelong_cvae.training import train
from lifelong_cvae.training.train import train_chunk
from tests.conftest import (
    SMALL_FEATURES,
    assert_runs_equal,
    assert_trees_equal,
    full_disk,
    lines_of,
    one_line,
    result_of,
    run_quietly,
    snapshot,
    without_times,
)

FIVE = ("3", "1", "4", "0", "5")
THREE = FIVE[:3]
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


@pytest.fixture(scope="module")
def small_config(small_config):
    """With both recognizers."""
    return small_config.with_settings(SMALL_FEATURES)


@pytest.fixture(scope="module")
def make_run_config(small_config):
    """Plans over the embedded digits, one category a task unless a tuple says more."""

    def make(names, **changes):
        stream = tuple((name,) if isinstance(name, str) else tuple(name) for name in names)
        return RunConfig(**{"dataset": "mnist5k", "tasks": stream, "config": small_config, **changes})

    return make


@pytest.fixture(scope="module")
def at_once(tmp_path_factory, make_run_config, mnist5k):
    """A run of five tasks that nothing interrupted, every checkpoint kept; and what it said."""
    workdir = tmp_path_factory.mktemp("run") / "at_once"
    said = []
    run_quietly(workdir, make_run_config(FIVE), mnist5k, keep_all=True, log_fn=said.append)
    return workdir, said


@pytest.fixture(scope="module")
def three(tmp_path_factory, make_run_config, mnist5k):
    """A run of the first three of them, without figures."""
    workdir = tmp_path_factory.mktemp("run") / "three"
    run_quietly(workdir, make_run_config(THREE), mnist5k)
    return workdir


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, make_run_config, mnist5k, three):
    """The run of three tasks, gone on with to five; and the images that were read for that."""
    workdir = tmp_path_factory.mktemp("run") / "resumed"
    shutil.copytree(three, workdir)
    source, reads = recording(mnist5k)
    run_quietly(workdir, make_run_config(FIVE), source, resume=True)
    return workdir, reads


@pytest.fixture
def copy(three, tmp_path):
    """A copy of the run of three tasks, to be changed."""
    shutil.copytree(three, tmp_path / "copy")
    return tmp_path / "copy"


def recording(source):
    """The source, and the list of the (split, category) that are read from it."""
    reads = []

    def read(split, category):
        reads.append((split, category))
        return source.read(split, category)

    return dataclasses.replace(source, read=read), reads


def fractions_right(state, source, split="test", recognizer=None):
    """Accuracy of each category by asking for the answers, image by image."""
    right = {}
    asked = lifelong.make_recognizer(state, recognizer)
    for name in state.names:
        answers, _ = lifelong.recognize(asked, source.read(split, name))
        right[name] = sum(answer == name for answer in answers.tolist()) / len(answers)
    return right


# The files


def test_without_drawing_there_are_no_figures(three):
    assert {path.name for path in three.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "result.json",
        "checkpoints",
        ".lock",
    }


def test_the_configuration_holds_the_plan_the_data_and_what_ran_it(at_once, make_run_config, mnist5k):
    values = json.loads((at_once[0] / "config.json").read_text("utf-8"))
    run_config = json.loads(json.dumps(make_run_config(FIVE).to_dict()))
    assert len(values.pop("digest")) == 64
    assert values == {
        "schema": 1,
        **run_config,
        "image_shape": [28, 28, 1],
        "fingerprint": mnist5k.fingerprint,
        "versions": package_versions(),
        "device": device_description(),
    }
    assert read_run_config(at_once[0]) == make_run_config(FIVE)


def test_each_task_gives_a_line_with_the_keys_of_the_contract(at_once, small_config):
    lines = lines_of(at_once[0])
    assert [line["task"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["categories"] for line in lines] == [[name] for name in FIVE]
    chunk = small_config.learning.steps_per_call
    steps = chunk * math.ceil(math.ceil(400 / small_config.learning.batch_size) / chunk)
    for task, line in enumerate(lines, start=1):
        assert set(line) == METRICS
        assert line["schema"] == 1
        assert list(line["accuracy_per_category"]) == list(FIVE[:task])
        assert set(line["terms"]) == {"real"}
        assert line["steps"] == steps
        images = steps * small_config.learning.batch_size
        assert line["images_per_second"] * line["seconds"] == pytest.approx(images)
    # The third category finds everything compiled.
    assert [line["compilations"] for line in lines[2:]] == [0, 0, 0]


def test_the_parameters_of_a_category_are_counted(at_once):
    params = load_state(at_once[0]).params["categories"]
    sizes = {sum(np.size(leaf) for leaf in jax.tree.leaves(params[name])) for name in FIVE}
    counts = {line["parameters_per_category"] for line in lines_of(at_once[0])}
    assert sizes == counts == {result_of(at_once[0])["parameters_per_category"]}


@pytest.mark.parametrize("task", [1, 3, 5])
def test_accuracies_are_those_of_the_checkpoint_of_that_task(at_once, mnist5k, task):
    state = checkpoints.load(at_once[0] / "checkpoints", step=task)
    assert state.names == FIVE[:task]
    line = lines_of(at_once[0])[task - 1]
    right = fractions_right(state, mnist5k)
    assert line["accuracy_per_category"] == pytest.approx(right)
    # 100 test images of each
    assert line["accuracy"] == pytest.approx(sum(right.values()) / len(right))
    by_elbo = fractions_right(state, mnist5k, recognizer="elbo")
    assert line["accuracy_per_category_elbo"] == pytest.approx(by_elbo)
    assert line["accuracy_elbo"] == pytest.approx(sum(by_elbo.values()) / len(by_elbo))


def test_the_result_sums_up_the_lines(at_once):
    lines, result = lines_of(at_once[0]), result_of(at_once[0])
    assert set(result) == RESULT
    assert result["schema"] == 1
    assert result["categories"] == list(FIVE)
    for name in ("accuracy", "accuracy_elbo", "accuracy_per_category", "accuracy_per_category_elbo"):
        assert result[name] == lines[-1][name]
    assert result["recognizer"] == "closed_form"
    losses = []
    for name in FIVE[:-1]:
        seen = [line["accuracy_per_category"][name] for line in lines if name in line["accuracy_per_category"]]
        losses.append(max(seen[:-1]) - seen[-1])
    assert result["forgetting"] == pytest.approx(100 * sum(losses) / len(losses))
    means = [np.mean(list(line["accuracy_per_category"].values())) for line in lines]
    assert result["average_accuracy"] == pytest.approx(means[-1])
    assert result["average_incremental_accuracy"] == pytest.approx(np.mean(means))
    assert result["seconds_learning"] == pytest.approx(math.fsum(line["seconds"] for line in lines))
    assert result["versions"] == package_versions()
    assert result["device"] == device_description()


def test_forgetting_among_the_same_candidates_leaves_out_later_answers(at_once, mnist5k):
    lines, state = lines_of(at_once[0]), load_state(at_once[0])
    losses = []
    for position, name in enumerate(FIVE[:-1]):
        evidence = np.asarray(lifelong.evidence(state, mnist5k.read("test", name)))
        right = np.mean(evidence[:, : position + 1].argmax(axis=1) == position)
        best = max(line["accuracy_per_category_elbo"][name] for line in lines[position:-1])
        losses.append(best - right)
    assert result_of(at_once[0])["forgetting_same_candidates_elbo"] == pytest.approx(100 * np.mean(losses))


def test_what_is_said_is_a_table_with_a_line_per_task(at_once):
    workdir, said = at_once
    heading, *rows = said
    assert "accuracy" in heading
    assert "\n" not in "".join(said)
    for row, line in zip(rows, lines_of(workdir), strict=True):
        name = line["categories"][0]
        of_new = line["accuracy_per_category"][name]
        loss = line["terms"]["real"]
        expected = [
            line["task"],
            name,
            f"{100 * line['accuracy']:.2f}%",
            f"{100 * of_new:.2f}%",
            f"{loss:.1f}",
        ]
        assert row.split()[:5] == [*map(str, expected)]


def test_a_resumed_run_says_the_tasks_that_it_knows_already(copy, make_run_config, mnist5k):
    said = []
    run_quietly(copy, make_run_config(THREE), mnist5k, resume=True, log_fn=said.append)
    assert [line.split()[0] for line in said] == ["task", "1", "2", "3"]


# Checkpoints and memory


def test_the_checkpoints_of_the_last_three_tasks_are_kept(three, resumed):
    assert orbax_store.steps(three / "checkpoints") == [1, 2, 3]
    assert orbax_store.steps(resumed[0] / "checkpoints") == [3, 4, 5]
    assert sorted(path.name for path in (resumed[0] / "checkpoints").iterdir()) == ["3", "4", "5"]


def test_all_checkpoints_are_kept_where_that_is_asked_for(at_once):
    assert orbax_store.steps(at_once[0] / "checkpoints") == [1, 2, 3, 4, 5]


def test_earlier_categories_are_read_to_evaluate_and_never_to_learn(resumed):
    _, reads = resumed
    assert [name for split, name in reads if split == "train"] == ["0", "5"]
    assert {split for split, _ in reads} == {"train", "test"}
    assert {name for split, name in reads if split == "test"} == set(FIVE)


def test_a_state_on_disk_holds_no_training_image(at_once, small_config, mnist5k):
    state = load_state(at_once[0])
    newborn = lifelong.init(small_config, (28, 28), rng=jax.random.key(0))
    sizes = [np.size(leaf) for leaf in jax.tree.leaves(state.params)]
    mixed = sum(np.size(leaf) for leaf in jax.tree.leaves(newborn.params))
    per_category = lines_of(at_once[0])[0]["parameters_per_category"]
    assert sum(sizes) == mixed + len(FIVE) * per_category, "nothing beside the networks' parameters"
    # Nor is any of their rows of 784 values an image.
    images = np.concatenate([mnist5k.read("train", name) for name in FIVE]).reshape(-1, 784) / 255
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    compared = 0
    for leaf in map(np.asarray, jax.tree.leaves(state.params)):
        if leaf.size % 784 == 0:
            for rows in (leaf.reshape(-1, 784), leaf.reshape(784, -1).T):
                likeness = rows @ images.T / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9)
                assert likeness.max() < 0.99
                compared += len(rows)
    assert compared > 0


# Resuming


def test_a_run_that_went_on_equals_one_that_nothing_interrupted(at_once, resumed):
    assert lifelong.load(resumed[0] / "checkpoints").names == FIVE
    assert_runs_equal(resumed[0], at_once[0])


def test_a_run_that_died_within_a_task_goes_on_as_if_nothing_had_been(at_once, tmp_path, make_run_config, mnist5k):
    source, reads = recording(mnist5k)

    def dying(split, category):
        if (split, category) == ("test", "0"):  # the fourth task is learned, not yet recorded
            raise KeyboardInterrupt
        return source.read(split, category)

    with pytest.raises(KeyboardInterrupt):
        run_quietly(tmp_path / "run", make_run_config(FIVE), dataclasses.replace(mnist5k, read=dying))
    assert ("train", "0") in reads
    assert len(lines_of(tmp_path / "run")) == 3
    assert not (tmp_path / "run" / "result.json").exists()
    run_quietly(tmp_path / "run", make_run_config(FIVE), mnist5k, resume=True)
    assert_runs_equal(tmp_path / "run", at_once[0])


@pytest.mark.parametrize("extra", ['{"schema": 1, "task": 4, "categories": ["0"]}\n', '{"schema": 1, "ta'])
def test_a_line_written_before_its_checkpoint_is_cut_back(copy, at_once, make_run_config, mnist5k, extra):
    with (copy / "metrics.jsonl").open("a") as stream:
        stream.write(extra)
    run_quietly(copy, make_run_config(FIVE), mnist5k, resume=True)
    assert_runs_equal(copy, at_once[0])


def test_a_run_that_finished_no_task_starts_from_the_beginning(three, tmp_path, make_run_config, mnist5k):
    workdir = tmp_path / "early"
    workdir.mkdir()
    shutil.copy(three / "config.json", workdir)
    (workdir / "metrics.jsonl").write_text('{"schema": 1, "task": 1}\n')
    with pytest.raises(InputError) as error:
        load_state(workdir)
    one_line(error, workdir, "expected a checkpoint, got none")
    run_quietly(workdir, make_run_config(THREE), mnist5k, resume=True)
    assert_runs_equal(workdir, three)


def test_resuming_a_finished_run_changes_nothing_but_times(at_once, tmp_path, make_run_config, mnist5k):
    workdir = tmp_path / "again"
    shutil.copytree(at_once[0], workdir)
    before = snapshot(workdir)
    returned = run_quietly(workdir, make_run_config(FIVE), mnist5k, resume=True)
    after = snapshot(workdir)
    results = [json.loads(files.pop("result.json")) for files in (before, after)]
    assert without_times(results[0]) == without_times(results[1])
    assert results[0]["seconds_learning"] == results[1]["seconds_learning"]
    assert {"schema": 1, **returned} == results[1]
    assert sorted(before) == sorted(after)
    assert [name for name in before if before[name] != after[name]] == []


def test_a_run_of_more_tasks_than_checkpoints_kept_goes_on_from_the_newest(resumed, tmp_path, make_run_config, mnist5k):
    workdir = tmp_path / "again"
    shutil.copytree(resumed[0], workdir)
    source, reads = recording(mnist5k)
    run_quietly(workdir, make_run_config(FIVE), source, resume=True)
    assert [name for split, name in reads if split == "train"] == [], "there was nothing left to learn"
    assert (workdir / "metrics.jsonl").read_bytes() == (resumed[0] / "metrics.jsonl").read_bytes()
    assert_runs_equal(workdir, resumed[0])


def changed_pixel(source):
    """The embedded digits, put together again with one pixel one shade lighter or not at all."""
    arrays = {}
    for split in ("train", "test"):
        images = [source.read(split, name) for name in source.categories]
        arrays[f"{split}_images"] = np.concatenate(images)
        arrays[f"{split}_labels"] = np.repeat(np.arange(10), [len(x) for x in images])
    assert from_arrays(source.name, **arrays).fingerprint == source.fingerprint, "the same images"
    arrays["test_images"][-1, 14, 14] ^= 1
    return from_arrays(source.name, **arrays)


@pytest.mark.parametrize(
    ("names", "changes", "words"),
    [
        (THREE, {"seed": 1}, ["seed=0", "1"]),
        (FIVE, {"seed": 1}, ["seed=0", "1"]),
        (THREE, {"dataset": "idx:elsewhere"}, ["dataset=mnist5k", "idx:elsewhere"]),
        (THREE, {"validation_fraction": 0.25}, ["validation_fraction=0.0", "0.25"]),
        (THREE, {"evaluate_on": "validation", "validation_fraction": 0.25}, ["validation"]),
        (THREE, {"options": SourceOptions(image_size=32)}, ["image_size=None", "32"]),
        (("1", "3", "4"), {}, ["3; 1; 4"]),
        (("3", "1", "0", "4"), {}, ["3; 1; 4"]),
        (("3", "1"), {}, ["3; 1; 4"]),
        ((("3", "1"), "4"), {}, ["3; 1; 4"]),
        (("0", "3", "1", "4"), {}, ["3; 1; 4"]),
    ],
)
def test_another_plan_is_refused_and_nothing_is_changed(copy, make_run_config, mnist5k, names, changes, words):
    before = snapshot(copy)
    with pytest.raises(InputError) as error:
        run_quietly(copy, make_run_config(names, **changes), mnist5k, resume=True)
    one_line(error, copy, *words)
    assert snapshot(copy) == before


def test_another_setting_is_refused_by_its_name_and_nothing_is_changed(copy, make_run_config, mnist5k, small_config):
    before = snapshot(copy)
    changed = make_run_config(THREE, config=small_config.with_settings({"epochs": 7}))
    with pytest.raises(InputError) as error:
        run_quietly(copy, changed, mnist5k, resume=True)
    one_line(error, copy, "epochs", "1", "7")
    assert snapshot(copy) == before


def test_another_setting_is_refused_in_a_line_that_can_be_read(copy, make_run_config, mnist5k, small_config):
    changed = make_run_config(THREE, config=small_config.with_settings({"epochs": 7}))
    with pytest.raises(InputError) as error:
        run_quietly(copy, changed, mnist5k, resume=True)
    one_line(error, "epochs")
    assert len(str(error.value)) < 300 + len(str(copy))


def test_changed_images_are_refused_and_nothing_is_changed(copy, make_run_config, mnist5k):
    before = snapshot(copy)
    with pytest.raises(InputError) as error:
        run_quietly(copy, make_run_config(FIVE), changed_pixel(mnist5k), resume=True)
    one_line(error, copy, "mnist5k", "changed")
    assert snapshot(copy) == before


def test_lines_that_are_missing_are_refused_and_nothing_is_changed(copy, make_run_config, mnist5k):
    keep_lines(copy / "metrics.jsonl", 2)
    before = snapshot(copy)
    with pytest.raises(InputError) as error:
        run_quietly(copy, make_run_config(FIVE), mnist5k, resume=True)
    one_line(error, copy / "metrics.jsonl", "3 lines", "got 2")
    assert snapshot(copy) == before


def damage(checkpoint_folder):
    """Flips a bit in the middle of the largest file."""
    largest = max((path for path in checkpoint_folder.rglob("*") if path.is_file()), key=size_of)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 4
    largest.write_bytes(content)


def size_of(path):
    return path.stat().st_size


def test_a_damaged_checkpoint_is_moved_aside_and_its_task_learned_anew(copy, at_once, make_run_config, mnist5k):
    damage(copy / "checkpoints" / "3")
    with pytest.raises(InputError) as error:
        load_state(copy)
    one_line(error, "checkpoint 3", f"with python -m experiments.learn --workdir={copy} --resume")
    said = []
    source, reads = recording(mnist5k)
    run_quietly(copy, make_run_config(FIVE), source, resume=True, log_fn=said.append)
    assert [line for line in said if "checkpoint 3" in line and f"moved to {copy}/damaged" in line]
    assert [name for split, name in reads if split == "train"] == ["4", "0", "5"]
    assert (copy / "damaged" / "checkpoints_3").is_dir()
    assert_runs_equal(copy, at_once[0])
    assert lifelong.load(copy / "checkpoints").names == FIVE


def test_where_every_checkpoint_is_damaged_a_run_starts_anew(copy, three, make_run_config, mnist5k):
    for task in (1, 2, 3):
        damage(copy / "checkpoints" / str(task))
    said = []
    run_quietly(copy, make_run_config(THREE), mnist5k, resume=True, log_fn=said.append)
    assert sum("moved to" in line for line in said) == 3
    assert_runs_equal(copy, three)


def test_a_task_that_is_damaged_on_its_way_starts_anew(tmp_path, three, make_run_config, mnist5k):
    workdir, calls = tmp_path / "run", iter(range(100))
    with pytest.raises(Stopped):
        run_quietly(workdir, make_run_config(THREE), mnist5k, should_stop=lambda: next(calls) == 4)
    (saved,) = (workdir / "within_task" / "2").iterdir()
    meta = json.loads((saved / "meta" / "metadata").read_text())
    assert (saved.name, meta["names"], set(meta["terms"])) == ("10", ["1"], {"real"})
    teacher = lifelong.load(workdir / "checkpoints")
    assert meta["teacher"] == checkpoints.digest(teacher)
    assert {name.split(".")[0] for name in meta["checksums"][0]} == {
        "carry/params",
        "carry/opt_state",
        "carry/step",
    }
    damage(saved)
    said = []
    run_quietly(workdir, make_run_config(THREE), mnist5k, resume=True, log_fn=said.append)
    assert [line for line in said if "within_task/2" in line and "moved to" in line]
    assert_runs_equal(workdir, three)


@pytest.mark.parametrize("asks", [1, 4, 6])
def test_a_run_that_is_asked_to_stop_is_saved_and_goes_on_to_the_same_end(
    tmp_path, three, make_run_config, mnist5k, asks
):
    # Three chunks and the end of a task make four questions.
    workdir, calls = tmp_path / "run", iter(range(1, 100))
    with pytest.raises(Stopped, match=f"resume with python -m experiments.learn --workdir={workdir} --resume"):
        run_quietly(workdir, make_run_config(THREE), mnist5k, should_stop=lambda: next(calls) == asks)
    assert (workdir / "within_task").exists() == (asks % 4 != 0)
    run_quietly(workdir, make_run_config(THREE), mnist5k, resume=True)
    assert_runs_equal(workdir, three)


def test_two_processes_do_not_write_into_one_folder(copy, tmp_path, make_run_config, mnist5k):
    (tmp_path / "new").mkdir()
    for workdir, resume in ((copy, True), (tmp_path / "new", False)):
        with lock_workdir(workdir):
            before = snapshot(workdir)
            with pytest.raises(InputError) as error:
                run_quietly(workdir, make_run_config(THREE), mnist5k, resume=resume)
            one_line(error, workdir, "is writing there")
            assert snapshot(workdir) == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"seed": 0', '"seed": 1'),
        ('"epochs": 1', '"epochs": 2'),
        ('"mnist5k"', '"mnist5K"'),
        ('"digest": "', '"digest": "0'),
    ],
)
def test_settings_that_were_edited_are_refused_and_nothing_is_changed(copy, make_run_config, mnist5k, before, after):
    file = copy / "config.json"
    text = file.read_text("utf-8")
    assert before in text
    file.write_text(text.replace(before, after, 1), "utf-8")
    files = snapshot(copy)
    with pytest.raises(InputError) as error:
        run_quietly(copy, make_run_config(FIVE), mnist5k, resume=True)
    one_line(error, file, "expected the file as it was written")
    with pytest.raises(InputError, match="expected the file as it was written"):
        load_state(copy)
    assert snapshot(copy) == files


def test_a_loss_that_is_not_finite_leaves_the_checkpoint_before(tmp_path, three, make_run_config, mnist5k, monkeypatch):
    workdir = tmp_path / "run"

    def broken(carry, data, past, **settings):
        carry, terms = train_chunk(carry, data, past, **settings)
        return carry, {name: values.at[3].set(np.nan) for name, values in terms.items()}

    def breaks(split, category):
        if (split, category) == ("train", "1"):
            monkeypatch.setattr(train, "train_chunk", broken)
        return mnist5k.read(split, category)

    with pytest.raises(FloatingPointError, match="loss term real is not finite at step 3 of task 1"):
        run_quietly(workdir, make_run_config(THREE), dataclasses.replace(mnist5k, read=breaks))
    assert lifelong.load(workdir / "checkpoints").names == ("3",)
    assert len(lines_of(workdir)) == 1
    monkeypatch.undo()
    run_quietly(workdir, make_run_config(THREE), mnist5k, resume=True)
    assert_runs_equal(workdir, three)


def test_a_full_disk_ends_a_run_in_one_line_and_it_goes_on_when_there_is_room(
    tmp_path, three, make_run_config, mnist5k
):
    workdir = tmp_path / "run"
    with full_disk(20_000), pytest.raises(OSError, match="checkpoint 1 could not be written") as error:
        run_quietly(workdir, make_run_config(THREE), mnist5k)
    one_line(error, workdir / "checkpoints", "nothing was written before")
    run_quietly(workdir, make_run_config(THREE), mnist5k, resume=True)
    assert_runs_equal(workdir, three)


def test_names_lead_no_file_out_of_the_folder(tmp_path, make_run_config, mnist5k):
    names = ("../../escaped", "/tmp/escaped", "..", "x" * 300)
    digits = {name: mnist5k.read("train", digit)[:60] for name, digit in zip(names, "0123", strict=True)}
    images, labels = np.concatenate([*digits.values()]), np.repeat([*digits], 60)
    source = from_arrays("hostile", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    workdir = tmp_path / "deep" / "run"
    run_quietly(workdir, make_run_config([names]), source, draw=True)
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run"]
    told = " ".join(str(path) for path in workdir.rglob("*"))
    assert "escaped" not in told
    assert load_state(workdir).names == names


@pytest.mark.parametrize("count", [0, 1])
def test_a_category_of_no_image_or_one_is_refused_before_anything(tmp_path, make_run_config, mnist5k, count):
    counts = {**mnist5k.counts, "train": {**mnist5k.counts["train"], "1": count}}
    with pytest.raises(InputError) as error:
        run_quietly(tmp_path / "run", make_run_config(THREE), dataclasses.replace(mnist5k, counts=counts))
    one_line(error, "category '1'", "at least 2", f"got {count}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["a run", "a file", "an unrelated file", "a hidden file"])
def test_a_folder_that_holds_something_is_refused_and_stays(copy, tmp_path, make_run_config, mnist5k, content):
    workdir = copy
    if content == "a file":
        workdir = tmp_path / "file"
        workdir.write_text("x")
    elif content != "a run":
        workdir = tmp_path / "folder"
        workdir.mkdir()
        (workdir / {"an unrelated file": "notes.txt", "a hidden file": ".hidden"}[content]).write_text("x")
    before = snapshot(tmp_path)
    with pytest.raises(InputError) as error:
        run_quietly(workdir, make_run_config(THREE), mnist5k)
    one_line(error, workdir, "--resume")
    assert snapshot(tmp_path) == before


def test_resuming_where_there_is_no_run_is_refused_and_nothing_is_made(tmp_path, make_run_config, mnist5k):
    for workdir in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError) as error:
            run_quietly(workdir, make_run_config(THREE), mnist5k, resume=True)
        one_line(error, workdir / "config.json", "no such file")
        with pytest.raises(InputError):
            load_state(workdir)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_a_run_that_draws_is_refused_before_anything(
    copy, tmp_path, make_run_config, mnist5k, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    before = snapshot(tmp_path)
    for workdir, resume in [(tmp_path / "new", False), (copy, True)]:
        with pytest.raises(MissingExtraError) as error:
            run_quietly(workdir, make_run_config(FIVE), mnist5k, draw=True, resume=resume)
        one_line(error, "figures")
    assert not (tmp_path / "new").exists()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("names", [("3", "none"), ("none",)])
def test_a_category_that_the_source_lacks_is_refused_before_anything(tmp_path, make_run_config, mnist5k, names):
    with pytest.raises(InputError) as error:
        run_quietly(tmp_path / "run", make_run_config(names), mnist5k)
    one_line(error, "none")
    assert list(tmp_path.iterdir()) == []


# Several categories at once, and images held out


def test_categories_can_arrive_two_at_a_time(tmp_path, make_run_config, mnist5k):
    stream = make_tasks(mnist5k.categories, categories=THREE, categories_per_task=2)
    assert stream == (("3", "1"), ("4",))
    result = run_quietly(tmp_path / "run", make_run_config(stream), mnist5k)
    lines = lines_of(tmp_path / "run")
    assert [line["task"] for line in lines] == [1, 2]
    assert [line["categories"] for line in lines] == [["3", "1"], ["4"]]
    assert [list(line["accuracy_per_category"]) for line in lines] == [["3", "1"], ["3", "1", "4"]]
    state = load_state(tmp_path / "run")
    assert state.names == THREE
    right = fractions_right(state, mnist5k)
    assert result["accuracy_per_category"] == pytest.approx(right)
    # Both of the first task could already be confused with each other when it was learned.
    first = lines[0]["accuracy_per_category_elbo"]
    evidence = {name: np.asarray(lifelong.evidence(state, mnist5k.read("test", name))) for name in "31"}
    alone = {name: np.mean(evidence[name][:, :2].argmax(axis=1) == "31".index(name)) for name in "31"}
    lost = [first[name] - alone[name] for name in "31"]
    assert result["forgetting_same_candidates_elbo"] == pytest.approx(100 * np.mean(lost))
    first = lines[0]["accuracy_per_category"]
    lost = [first[name] - right[name] for name in "31"]
    assert result["forgetting"] == pytest.approx(100 * np.mean(lost))


def test_accuracies_can_be_measured_on_images_held_out_of_the_training_images(tmp_path, make_run_config, mnist5k):
    source, reads = recording(hold_out(mnist5k, 0.25))
    run_config = make_run_config(THREE, validation_fraction=0.25, evaluate_on="validation")
    result = run_quietly(tmp_path / "run", run_config, source)
    assert {split for split, _ in reads} == {"train", "validation"}, "the test images stay untouched"
    state = load_state(tmp_path / "run")
    right = {}
    for name in THREE:
        answers, _ = lifelong.recognize(state, mnist5k.read("train", name)[300:])
        assert len(answers) == 100
        right[name] = np.mean(answers == name)
    assert result["accuracy_per_category"] == pytest.approx(right)
    # What was learned is what the first 300 images teach.
    rng, expected = jax.random.key(0), lifelong.init(run_config.config, (28, 28), rng=jax.random.key(0))
    for name in THREE:
        expected, _ = lifelong.learn(expected, {name: mnist5k.read("train", name)[:300]}, rng=rng)
    assert_trees_equal(state.params, expected.params)


def test_accuracy_counts_images_and_not_categories(tmp_path, make_run_config, mnist5k):
    train = [mnist5k.read("train", name) for name in "34"]
    # Three of the fours are threes in truth, which no learner gets right.
    fours = [mnist5k.read("test", name)[-count:] for name, count in (("4", 6), ("3", 3))]
    test = [mnist5k.read("test", "3")[:91], np.concatenate(fours)]
    source = from_arrays(
        "mnist5k",
        train_images=np.concatenate(train),
        train_labels=np.repeat(["3", "4"], [len(x) for x in train]),
        test_images=np.concatenate(test),
        test_labels=np.repeat(["3", "4"], [91, 9]),
    )
    result = run_quietly(tmp_path / "run", make_run_config("34"), source)
    each = result["accuracy_per_category"]
    assert each["3"] != each["4"]
    assert result["accuracy"] == pytest.approx(0.91 * each["3"] + 0.09 * each["4"])
    # Fewer images of a category than a row of the figure has are drawn, too.
    run_quietly(tmp_path / "drawn", make_run_config("34"), source, draw=True, write_report=None, tensorboard=None)
    assert (tmp_path / "drawn" / "figures" / "reconstructions.png").stat().st_size > 0
