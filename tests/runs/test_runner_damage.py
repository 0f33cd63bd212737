"""Damaged checkpoints are moved aside, and their tasks are learned again with the same results."""

import json

import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import checkpoints
from lifelong_cvae.errors import InputError, Stopped
from lifelong_cvae.runs.workdir import load_state
from tests.conftest import assert_runs_equal, one_line, run_quietly
from tests.runs.conftest import FIVE, THREE, flip_bit, recorded_source


def test_run_resumes_from_the_newest_undamaged_checkpoint(run_copy, run_of_five, make_run_config, mnist5k):
    flip_bit(run_copy / "checkpoints" / "3")
    with pytest.raises(InputError) as error:
        load_state(run_copy)
    one_line(error, "checkpoint 3", f"with python -m experiments.learn --workdir={run_copy} --resume")
    lines = []
    source, reads = recorded_source(mnist5k)
    run_quietly(run_copy, make_run_config(FIVE), source, resume=True, log_fn=lines.append)
    assert [line for line in lines if "checkpoint 3" in line and f"moved to {run_copy}/damaged" in line]
    assert [name for split, name in reads if split == "train"] == ["4", "0", "5"]
    assert (run_copy / "damaged" / "checkpoints_3").is_dir()
    assert_runs_equal(run_copy, run_of_five)
    assert lifelong.load(run_copy / "checkpoints").names == FIVE


def test_run_restarts_if_all_checkpoints_are_damaged(run_copy, run_of_three, make_run_config, mnist5k):
    for task in (1, 2, 3):
        flip_bit(run_copy / "checkpoints" / str(task))
    lines = []
    run_quietly(run_copy, make_run_config(THREE), mnist5k, resume=True, log_fn=lines.append)
    assert sum("moved to" in line for line in lines) == 3
    assert_runs_equal(run_copy, run_of_three)


def test_run_restarts_a_task_if_its_progress_is_damaged(tmp_path, run_of_three, make_run_config, mnist5k):
    workdir, calls = tmp_path / "run", iter(range(100))
    with pytest.raises(Stopped):
        run_quietly(workdir, make_run_config(THREE), mnist5k, should_stop=lambda: next(calls) == 4)
    (saved,) = (workdir / "within_task" / "2").iterdir()
    meta = json.loads((saved / "meta" / "metadata").read_text())
    assert (saved.name, meta["names"], set(meta["terms"])) == ("10", ["1"], {"real"})
    teacher = lifelong.load(workdir / "checkpoints")
    assert meta["teacher"] == checkpoints.digest(teacher)
    assert {name.split(".")[0] for name in meta["checksums"][0]} == {"carry/params", "carry/opt_state", "carry/step"}
    flip_bit(saved)
    lines = []
    run_quietly(workdir, make_run_config(THREE), mnist5k, resume=True, log_fn=lines.append)
    assert [line for line in lines if "within_task/2" in line and "moved to" in line]
    assert_runs_equal(workdir, run_of_three)
