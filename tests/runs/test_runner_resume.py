"""Resumed runs equal uninterrupted ones."""

import dataclasses
import errno
import itertools
import json
import os
import shutil

import filelock
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.checkpoints import orbax_store
from lifelong_cvae.errors import InputError, Stopped
from lifelong_cvae.runs.config import read_run_config
from lifelong_cvae.runs.lock import lock_workdir
from lifelong_cvae.runs.workdir import load_state, open_run_source
from lifelong_cvae.training import train
from lifelong_cvae.training.train import train_chunk
from tests.conftest import (
    assert_runs_equal,
    assert_trees_equal,
    full_disk,
    lines_of,
    one_line,
    run_quietly,
    snapshot,
    without_times,
)
from tests.runs.conftest import FIVE, THREE, recorded_source


@pytest.fixture(scope="module")
def resumption(tmp_path_factory, make_run_config, mnist5k, run_of_three):
    """The run directory of three tasks that was resumed with five, and the (split, category) of its reads."""
    workdir = tmp_path_factory.mktemp("resumed") / "run"
    shutil.copytree(run_of_three, workdir)
    source, reads = recorded_source(mnist5k)
    run_quietly(workdir, make_run_config(FIVE), source, resume=True)
    return workdir, reads


@pytest.fixture
def resumed_run(resumption):
    """The run directory of three tasks that was resumed with five."""
    return resumption[0]


def test_resumed_run_equals_uninterrupted_one(run_of_five, resumed_run):
    assert lifelong.load(resumed_run / "checkpoints").names == FIVE
    assert_runs_equal(resumed_run, run_of_five)


def test_run_keeps_checkpoints_of_the_last_three_tasks(run_of_three, resumed_run):
    assert orbax_store.steps(run_of_three / "checkpoints") == [1, 2, 3]
    assert orbax_store.steps(resumed_run / "checkpoints") == [3, 4, 5]
    assert sorted(path.name for path in (resumed_run / "checkpoints").iterdir()) == ["3", "4", "5"]


def test_run_reads_earlier_categories_for_evaluation_only(resumption):
    _, reads = resumption
    assert [name for split, name in reads if split == "train"] == ["0", "5"]
    assert {split for split, _ in reads} == {"train", "test"}
    assert {name for split, name in reads if split == "test"} == set(FIVE)


def test_resumed_run_logs_finished_tasks(run_copy, make_run_config, mnist5k):
    lines = []
    run_quietly(run_copy, make_run_config(THREE), mnist5k, resume=True, log_fn=lines.append)
    assert [line.split()[0] for line in lines] == ["images", "task", "1", "2", "3"]


def test_run_resumes_after_an_interrupt_within_a_task(run_of_five, tmp_path, make_run_config, mnist5k):
    source, reads = recorded_source(mnist5k)

    def interrupted_read(split, category):
        if (split, category) == ("test", "0"):  # the fourth task has been learned and not been recorded
            raise KeyboardInterrupt
        return source.read(split, category)

    with pytest.raises(KeyboardInterrupt):
        run_quietly(tmp_path / "run", make_run_config(FIVE), dataclasses.replace(mnist5k, read=interrupted_read))
    assert ("train", "0") in reads
    assert len(lines_of(tmp_path / "run")) == 3
    assert not (tmp_path / "run" / "result.json").exists()
    run_quietly(tmp_path / "run", make_run_config(FIVE), mnist5k, resume=True)
    assert_runs_equal(tmp_path / "run", run_of_five)


@pytest.mark.parametrize("extra", ['{"schema": 1, "task": 4, "categories": ["0"]}\n', '{"schema": 1, "ta'])
def test_resumed_run_cuts_lines_without_checkpoint(run_copy, run_of_five, make_run_config, mnist5k, extra):
    with (run_copy / "metrics.jsonl").open("a") as stream:
        stream.write(extra)
    run_quietly(run_copy, make_run_config(FIVE), mnist5k, resume=True)
    assert_runs_equal(run_copy, run_of_five)


def test_run_without_finished_task_restarts(run_of_three, tmp_path, make_run_config, mnist5k):
    workdir = tmp_path / "early"
    workdir.mkdir()
    shutil.copy(run_of_three / "config.json", workdir)
    (workdir / "metrics.jsonl").write_text('{"schema": 1, "task": 1}\n')
    with pytest.raises(InputError) as error:
        load_state(workdir)
    one_line(error, workdir, "expected a checkpoint, got none")
    run_quietly(workdir, make_run_config(THREE), mnist5k, resume=True)
    assert_runs_equal(workdir, run_of_three)


def test_resuming_a_finished_run_changes_times_only(run_of_five, tmp_path, make_run_config, mnist5k):
    workdir = shutil.copytree(run_of_five, tmp_path / "again")
    before = snapshot(workdir)
    returned = run_quietly(workdir, make_run_config(FIVE), mnist5k, resume=True)
    after = snapshot(workdir)
    results = [json.loads(files.pop("result.json")) for files in (before, after)]
    assert without_times(results[0]) == without_times(results[1])
    assert results[0]["seconds_learning"] == results[1]["seconds_learning"]
    assert {"schema": 1, **returned} == results[1]
    assert sorted(before) == sorted(after)
    assert [name for name in before if before[name] != after[name]] == []


def test_resuming_a_finished_run_learns_nothing(resumed_run, tmp_path, make_run_config, mnist5k):
    """The run has more tasks than kept checkpoints."""
    workdir = shutil.copytree(resumed_run, tmp_path / "again")
    source, reads = recorded_source(mnist5k)
    run_quietly(workdir, make_run_config(FIVE), source, resume=True)
    assert [name for split, name in reads if split == "train"] == []
    assert (workdir / "metrics.jsonl").read_bytes() == (resumed_run / "metrics.jsonl").read_bytes()
    assert_runs_equal(workdir, resumed_run)


@pytest.mark.parametrize("polls", [1, 4, 6])
def test_run_saves_and_stops_if_asked(tmp_path, run_of_three, make_run_config, mnist5k, polls):
    # `should_stop` is polled four times per task: after each of three chunks and at the end.
    workdir, numbers = tmp_path / "run", iter(range(1, 100))
    with pytest.raises(Stopped, match=f"resume with python -m experiments.learn --workdir={workdir} --resume"):
        run_quietly(workdir, make_run_config(THREE), mnist5k, should_stop=lambda: next(numbers) == polls)
    assert (workdir / "within_task").exists() == (polls % 4 != 0)
    run_quietly(workdir, make_run_config(THREE), mnist5k, resume=True)
    assert_runs_equal(workdir, run_of_three)


def test_run_keeps_the_last_checkpoint_if_a_loss_is_not_finite(
    tmp_path, run_of_three, make_run_config, mnist5k, monkeypatch
):
    workdir = tmp_path / "run"

    def train_chunk_with_nan(carry, data, past, **settings):
        carry, terms, finite = train_chunk(carry, data, past, **settings)
        return carry, {name: values.at[3].set(np.nan) for name, values in terms.items()}, finite

    def read(split, category):
        if (split, category) == ("train", "1"):
            monkeypatch.setattr(train, "train_chunk", train_chunk_with_nan)
        return mnist5k.read(split, category)

    with pytest.raises(FloatingPointError, match="loss term real is not finite at step 3 of task 1"):
        run_quietly(workdir, make_run_config(THREE), dataclasses.replace(mnist5k, read=read))
    assert lifelong.load(workdir / "checkpoints").names == ("3",)
    assert len(lines_of(workdir)) == 1
    monkeypatch.undo()
    run_quietly(workdir, make_run_config(THREE), mnist5k, resume=True)
    assert_runs_equal(workdir, run_of_three)


def test_run_resumes_after_a_full_disk(tmp_path, run_of_three, make_run_config, mnist5k):
    workdir = tmp_path / "run"
    with full_disk(20_000), pytest.raises(OSError, match="checkpoint 1 could not be written") as error:
        run_quietly(workdir, make_run_config(THREE), mnist5k)
    one_line(error, workdir / "checkpoints", "nothing was written before")
    run_quietly(workdir, make_run_config(THREE), mnist5k, resume=True)
    assert_runs_equal(workdir, run_of_three)


def test_run_resumes_from_images_that_have_moved(run_copy, run_of_five, make_run_config, mnist5k):
    moved = dataclasses.replace(mnist5k, name="npz:/elsewhere/data.npz")
    run_quietly(run_copy, make_run_config(FIVE, dataset=moved.name), moved, resume=True)
    assert_trees_equal(load_state(run_copy).params, load_state(run_of_five).params)
    assert read_run_config(run_copy).dataset == moved.name


def test_open_run_source_compares_the_images(run_copy, mnist5k, tmp_path, monkeypatch):
    arrays = {}
    for split in ("train", "test"):
        images = [mnist5k.read(split, name) for name in mnist5k.categories]
        arrays[f"{split}_images"] = np.concatenate(images)
        arrays[f"{split}_labels"] = np.repeat(np.arange(10), [len(part) for part in images])
    np.savez(tmp_path / "same.npz", **arrays)
    _, source = open_run_source(run_copy, f"npz:{tmp_path}/same.npz")
    assert source.fingerprint == mnist5k.fingerprint
    arrays["test_images"][0] ^= 1
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(InputError, match="expected the recorded images of mnist5k, got other images"):
        open_run_source(run_copy, f"npz:{tmp_path}/other.npz")
    with pytest.raises(InputError, match=r"no such file.*; if the images have moved, name their place by --dataset"):
        open_run_source(run_copy, f"npz:{tmp_path}/none.npz")


@pytest.mark.parametrize("call", ["os.replace", "os.fsync", "os.rename"])
def test_run_resumes_after_a_failing_file_call(tmp_path, run_of_three, make_run_config, mnist5k, monkeypatch, call):
    """The slow tests of `tests/failing_files` fail every call of a process."""
    workdir, module, name = tmp_path / "run", *call.split(".")
    original, calls = getattr(os, name), itertools.count(1)

    def fail_once(*arguments, **options):
        if next(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        return original(*arguments, **options)

    monkeypatch.setattr(f"{module}.{name}", fail_once)
    with pytest.raises(OSError, match="Input/output error") as error:
        run_quietly(workdir, make_run_config(THREE), mnist5k)
    one_line(error)
    run_quietly(workdir, make_run_config(THREE), mnist5k, resume=True)
    assert_runs_equal(workdir, run_of_three)


def test_run_warns_of_failing_deletions(tmp_path, run_of_five, make_run_config, mnist5k, monkeypatch, caplog):
    def fail(*arguments, **options):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shutil, "rmtree", fail)
    run_quietly(tmp_path / "run", make_run_config(FIVE), mnist5k, checkpoint_every=0)
    assert_runs_equal(tmp_path / "run", run_of_five)
    assert any("could not be deleted" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("kind", ["system", "disk"])
def test_lock_workdir_warns_where_there_are_no_locks(tmp_path, monkeypatch, caplog, kind):
    if kind == "system":
        monkeypatch.setattr(filelock, "FileLock", filelock.SoftFileLock)
    else:

        def refuse(self, *_, **__):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with lock_workdir(tmp_path):
        pass
    assert "no file locks here: do not let two processes write there at once" in caplog.text


def test_resume_refuses_another_value_of_white(run_copy, make_run_config, mnist5k):
    before = snapshot(run_copy)
    with pytest.raises(InputError, match="expected the recorded max_value=None, got 16; start a new run"):
        run_quietly(run_copy, make_run_config(THREE), dataclasses.replace(mnist5k, max_value=16), resume=True)
    assert snapshot(run_copy) == before
