"""The launcher `learn`: files and output of a run, and its resumption."""

import json
import os
import shutil

import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.runs.config import read_run_config
from lifelong_cvae.runs.workdir import load_state
from tests.conftest import SMALL, assert_runs_equal, result_of, snapshot
from tests.experiments.conftest import launch_server

# Programs as users compile them, for all cores.
USUAL = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "false", "XLA_FLAGS": "", "PJRT_NPROC": str(os.cpu_count())}


def test_learn_records_flags_and_settings(learned_run, idx_folder):
    run_config = read_run_config(learned_run)
    assert run_config.tasks == (("3",), ("1",))
    assert run_config.dataset == f"idx:{idx_folder}"
    assert run_config.config == lifelong.Config().with_settings({**SMALL, "mixed_mode": "none"})


def test_learn_writes_a_run(learned_run):
    assert {path.name for path in learned_run.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "result.json",
        "checkpoints",
        "figures",
        "tensorboard",
        "report.html",
        ".lock",
    }
    grids = [f"imagined_{task:03d}.{kind}" for task in (1, 2) for kind in ("npz", "png")]
    figures = ["accuracy.png", "circle.png", *grids, "interpolation.png", "over_tasks.png"]
    assert sorted(path.name for path in (learned_run / "figures").iterdir()) == [
        *figures,
        "reconstructions.png",
        "walk.png",
    ]


def test_learn_prints_accuracy_and_workdir(learned_run, learn_process):
    result = result_of(learned_run)
    assert result["categories"] == ["3", "1"]
    assert learn_process.err == ""
    last_line = learn_process.out.splitlines()[-1]
    assert last_line == (
        f"accuracy {100 * result['accuracy']:.2f} % on the test images of 2 categories "
        f"after {result['seconds_total']:.0f} seconds; see {learned_run}"
    )


def test_learn_resumes_with_recorded_settings_and_more_categories(learned_run, launch, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(learned_run, workdir)
    before = snapshot(workdir)
    ended = launch(
        "learn", f"--workdir={workdir}", "--resume", "--categories=3,1,0", "--nofigures", without=["matplotlib"]
    )
    assert (ended.code, ended.err) == (0, "")
    after = snapshot(workdir)
    assert after["metrics.jsonl"].startswith(before["metrics.jsonl"])
    assert len(after["metrics.jsonl"].splitlines()) == 3
    assert json.loads(after["result.json"])["categories"] == ["3", "1", "0"]
    first, second = (json.loads(files["config.json"]) for files in (before, after))
    assert second.pop("digest") != first.pop("digest")
    assert second == {**first, "tasks": [["3"], ["1"], ["0"]]}
    # Parameters of earlier categories do not change.
    states = [load_state(folder) for folder in (learned_run, workdir)]
    for name in ("3", "1"):
        leaves = [state.params["categories"][name]["decoder"] for state in states]
        assert str(leaves[0]) == str(leaves[1])


@pytest.mark.slow
def test_learn_of_two_categories_and_then_seven_equals_learning_nine(tmp_path):
    """With the features of the preset `default`: only products of so many add in an order that depends on the width."""
    categories, flags = "3,1,4,0,2,5,6,7,9", ["--nofigures", "--noreport", "--set=min_steps=50", "--set=epochs=1"]
    with launch_server(tmp_path, **USUAL) as launch:
        for name, *own in (
            ("extended", "--categories=3,1", *flags),
            ("extended", f"--categories={categories}", "--resume", "--nofigures", "--noreport"),
            ("at_once", f"--categories={categories}", *flags),
        ):
            ended = launch("learn", f"--workdir={tmp_path / name}", *own)
            assert (ended.code, ended.err) == (0, ""), ended
    assert_runs_equal(tmp_path / "extended", tmp_path / "at_once")
