"""Runs that are refused: one-line errors, and nothing is written."""

import dataclasses
import sys

import numpy as np
import pytest

from lifelong_cvae.data import SourceOptions, from_arrays
from lifelong_cvae.errors import InputError, MissingExtraError
from lifelong_cvae.files import keep_lines
from lifelong_cvae.runs.lock import lock_workdir
from lifelong_cvae.runs.workdir import load_state
from tests.conftest import one_line, run_quietly, snapshot
from tests.runs.conftest import FIVE, THREE


def with_changed_pixel(source):
    """Returns the embedded digits with one pixel changed by one gray level."""
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
        (THREE, {"seed": 1}, ["recorded seed=0, got 1"]),
        (FIVE, {"seed": 1}, ["recorded seed=0, got 1"]),
        (THREE, {"validation_fraction": 0.25}, ["recorded validation_fraction=0.0, got 0.25"]),
        (THREE, {"evaluate_on": "validation", "validation_fraction": 0.25}, ["validation_fraction=0.0, got 0.25"]),
        (THREE, {"options": SourceOptions(image_size=32)}, ["recorded image_size=None, got 32"]),
        (("1", "3", "4"), {}, ["recorded tasks 3; 1; 4", "got 1; 3; 4"]),
        (("3", "1", "0", "4"), {}, ["recorded tasks 3; 1; 4", "got 3; 1; 0; 4"]),
        (("3", "1"), {}, ["recorded tasks 3; 1; 4", "got 3; 1"]),
        ((("3", "1"), "4"), {}, ["recorded tasks 3; 1; 4", "got 3, 1; 4"]),
        (("0", "3", "1", "4"), {}, ["recorded tasks 3; 1; 4", "got 0; 3; 1; 4"]),
    ],
)
def test_resume_refuses_another_configuration(run_copy, make_run_config, mnist5k, names, changes, words):
    before = snapshot(run_copy)
    with pytest.raises(InputError) as error:
        run_quietly(run_copy, make_run_config(names, **changes), mnist5k, resume=True)
    one_line(error, run_copy, *words)
    assert snapshot(run_copy) == before


def test_resume_refuses_another_setting_in_a_short_line(run_copy, make_run_config, mnist5k, config_with_features):
    before = snapshot(run_copy)
    run_config = make_run_config(THREE, config=config_with_features.with_settings({"epochs": 7}))
    with pytest.raises(InputError) as error:
        run_quietly(run_copy, run_config, mnist5k, resume=True)
    one_line(error, run_copy, "recorded epochs=1, got 7")
    assert len(str(error.value)) < 300 + len(str(run_copy))
    assert snapshot(run_copy) == before


def test_resume_refuses_changed_images(run_copy, make_run_config, mnist5k):
    before = snapshot(run_copy)
    with pytest.raises(InputError) as error:
        run_quietly(run_copy, make_run_config(FIVE), with_changed_pixel(mnist5k), resume=True)
    one_line(error, run_copy, "expected the recorded images of mnist5k, got other images")
    assert snapshot(run_copy) == before


def test_resume_refuses_missing_lines_of_metrics(run_copy, make_run_config, mnist5k):
    keep_lines(run_copy / "metrics.jsonl", 2)
    before = snapshot(run_copy)
    with pytest.raises(InputError) as error:
        run_quietly(run_copy, make_run_config(FIVE), mnist5k, resume=True)
    one_line(error, run_copy / "metrics.jsonl", "3 lines", "got 2")
    assert snapshot(run_copy) == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"seed": 0', '"seed": 1'),
        ('"epochs": 1', '"epochs": 2'),
        ('"mnist5k"', '"mnist5K"'),
        ('"digest": "', '"digest": "0'),
    ],
)
def test_resume_refuses_an_edited_config_file(run_copy, make_run_config, mnist5k, before, after):
    file = run_copy / "config.json"
    text = file.read_text("utf-8")
    assert before in text
    file.write_text(text.replace(before, after, 1), "utf-8")
    files = snapshot(run_copy)
    with pytest.raises(InputError) as error:
        run_quietly(run_copy, make_run_config(FIVE), mnist5k, resume=True)
    one_line(error, file, "expected the file as it was written")
    with pytest.raises(InputError, match="expected the file as it was written"):
        load_state(run_copy)
    assert snapshot(run_copy) == files


def test_resume_refuses_a_folder_without_run(tmp_path, make_run_config, mnist5k):
    for workdir in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError) as error:
            run_quietly(workdir, make_run_config(THREE), mnist5k, resume=True)
        one_line(error, workdir / "config.json", "no such file")
        with pytest.raises(InputError):
            load_state(workdir)
    assert list(tmp_path.iterdir()) == []


def test_run_refuses_a_locked_folder(run_copy, tmp_path, make_run_config, mnist5k):
    (tmp_path / "new").mkdir()
    for workdir, resume in ((run_copy, True), (tmp_path / "new", False)):
        with lock_workdir(workdir):
            before = snapshot(workdir)
            with pytest.raises(InputError) as error:
                run_quietly(workdir, make_run_config(THREE), mnist5k, resume=resume)
            one_line(error, workdir, "is writing there")
            assert snapshot(workdir) == before


@pytest.mark.parametrize("content", ["run", "file", "notes.txt", ".hidden"])
def test_run_refuses_a_path_that_is_not_empty(run_copy, tmp_path, make_run_config, mnist5k, content):
    workdir = run_copy
    if content == "file":
        workdir = tmp_path / "file"
        workdir.write_text("x")
    elif content != "run":
        workdir = tmp_path / "folder"
        workdir.mkdir()
        (workdir / content).write_text("x")
    before = snapshot(tmp_path)
    with pytest.raises(InputError) as error:
        run_quietly(workdir, make_run_config(THREE), mnist5k)
    one_line(error, workdir, "expected a new or empty directory, or --resume")
    assert snapshot(tmp_path) == before


def test_run_refuses_to_draw_without_matplotlib(run_copy, tmp_path, make_run_config, mnist5k, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    before = snapshot(tmp_path)
    for workdir, resume in [(tmp_path / "new", False), (run_copy, True)]:
        with pytest.raises(MissingExtraError) as error:
            run_quietly(workdir, make_run_config(FIVE), mnist5k, draw=True, resume=resume)
        one_line(error, "figures")
    assert not (tmp_path / "new").exists()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("names", [("3", "none"), ("none",)])
def test_run_refuses_unknown_categories(tmp_path, make_run_config, mnist5k, names):
    with pytest.raises(InputError) as error:
        run_quietly(tmp_path / "run", make_run_config(names), mnist5k)
    one_line(error, "unknown category", "got 'none'")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [0, 1])
def test_run_refuses_categories_with_fewer_than_two_images(tmp_path, make_run_config, mnist5k, count):
    counts = {**mnist5k.counts, "train": {**mnist5k.counts["train"], "1": count}}
    with pytest.raises(InputError) as error:
        run_quietly(tmp_path / "run", make_run_config(THREE), dataclasses.replace(mnist5k, counts=counts))
    one_line(error, "category '1'", "at least 2", f"got {count}")
    assert list(tmp_path.iterdir()) == []


def test_run_writes_inside_its_folder_for_any_category_name(tmp_path, make_run_config, mnist5k):
    names = ("../../escaped", "/tmp/escaped", "..", "x" * 300)
    digits = {name: mnist5k.read("train", digit)[:60] for name, digit in zip(names, "0123", strict=True)}
    images, labels = np.concatenate([*digits.values()]), np.repeat([*digits], 60)
    source = from_arrays("hostile", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    workdir = tmp_path / "deep" / "run"
    run_quietly(workdir, make_run_config([names]), source, draw=True)
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run"]
    assert "escaped" not in " ".join(str(path) for path in workdir.rglob("*"))
    assert load_state(workdir).names == names
