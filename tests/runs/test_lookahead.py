"""Runs with lookahead: tasks trained side by side, with the metrics of tasks that are learned one after another."""

from functools import partial

import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.errors import Stopped
from lifelong_cvae.runs.task_loop import side_by_side
from tests.conftest import assert_trees_equal, lines_of, one_line, run_quietly
from tests.runs.conftest import THREE


@pytest.fixture(scope="module")
def looking_ahead(tmp_path_factory, make_run_config, mnist5k):
    run = tmp_path_factory.mktemp("lookahead") / "run"
    run_quietly(run, make_run_config(THREE), mnist5k, lookahead=2)
    return run


def test_run_with_lookahead_has_the_metrics_of_one_task_after_another(looking_ahead, run_of_three):
    for line, expected in zip(lines_of(looking_ahead), lines_of(run_of_three), strict=True):
        assert line["categories"] == expected["categories"]
        assert line["steps"] == expected["steps"]
        assert line["terms"] == pytest.approx(expected["terms"], rel=1e-4)
        assert line["accuracy"] == pytest.approx(expected["accuracy"], abs=0.005)
        assert line["accuracy_elbo"] == pytest.approx(expected["accuracy_elbo"], abs=0.005)


slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize("polls", [slow(1), 4, slow(8)])
def test_run_with_lookahead_resumes_to_the_same_parameters(polls, tmp_path, make_run_config, mnist5k, looking_ahead):
    # Stops after chunks of steps and after whole groups.
    counts = iter(range(10**6))
    with pytest.raises(Stopped):
        run_quietly(
            tmp_path / "run", make_run_config(THREE), mnist5k, lookahead=2, should_stop=lambda: next(counts) >= polls
        )
    run_quietly(tmp_path / "run", make_run_config(THREE), mnist5k, lookahead=2, resume=True)
    resumed, expected = (lifelong.load(run / "checkpoints") for run in (tmp_path / "run", looking_ahead))
    assert_trees_equal(resumed.params, expected.params)


@pytest.mark.parametrize(("polls", "lookahead"), [(4, 1), slow(7, 2)])
def test_run_resumes_with_other_groups(polls, lookahead, tmp_path, make_run_config, mnist5k, looking_ahead):
    # Stopped in the training of a group of two, and between its tasks.
    counts, lines = iter(range(10**6)), []
    with pytest.raises(Stopped):
        run_quietly(
            tmp_path / "run", make_run_config(THREE), mnist5k, lookahead=2, should_stop=lambda: next(counts) >= polls
        )
    assert (tmp_path / "run/within_task/2").is_dir() == (polls == 4)
    options = {"lookahead": lookahead, "log_fn": lines.append}
    run_quietly(tmp_path / "run", make_run_config(THREE), mnist5k, resume=True, **options)
    assert not [line for line in lines if "damaged" in line]
    assert [line["accuracy"] for line in lines_of(tmp_path / "run")] == pytest.approx(
        [line["accuracy"] for line in lines_of(looking_ahead)], abs=0.005
    )


def test_run_rejects_a_lookahead_of_no_task(tmp_path, make_run_config, mnist5k):
    with pytest.raises(lifelong.InputError) as error:
        run_quietly(tmp_path / "run", make_run_config(THREE), mnist5k, lookahead=0)
    one_line(error, "lookahead: expected at least 1, got 0")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("tasks", "most", "expected"),
    [("abc", 1, 1), ("abc", 2, 2), ("abc", 9, 3), ("aba", 3, 2), (("ab", "bc", "d"), 3, 1), ("", 4, 0)],
)
def test_side_by_side_takes_tasks_of_different_categories(tasks, most, expected):
    assert len(side_by_side([tuple(task) for task in tasks], most)) == expected
