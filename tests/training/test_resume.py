"""Resuming: an interrupted task continues from its progress with bitwise the same result."""

import logging

import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import checkpoints, deprecated
from lifelong_cvae.checkpoints.task import load_task, save_task
from tests.conftest import assert_trees_equal


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_learn_resumes_from_saved_progress_bitwise(three_digits, digits, rng, tmp_path, chunk):
    images = {"8": digits["8"], "7": digits["7"]}
    uninterrupted, report = lifelong.learn(three_digits, images, rng=rng)

    def save_and_interrupt(progress, _):
        if progress.steps == 10 * chunk:
            save_task(tmp_path / "task", progress, checkpoints.digest(three_digits))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lifelong.learn(three_digits, images, rng=rng, progress=save_and_interrupt)
    progress = load_task(tmp_path / "task", three_digits, ("8", "7"), on_damage=pytest.fail)
    assert progress.steps == 10 * chunk
    for _ in range(2):  # the progress stays usable
        resumed, resumed_report = lifelong.learn(three_digits, images, rng=rng, resume_from=progress)
        assert_trees_equal(resumed.params, uninterrupted.params)
        assert resumed_report.terms == report.terms
    with pytest.raises(lifelong.InputError, match="resume_from: expected images of its task 8, 7, got images of 8"):
        lifelong.learn(three_digits, {"8": digits["8"]}, rng=rng, resume_from=progress)


def test_learn_accepts_deprecated_argument_and_logs_once(three_digits, digits, rng, caplog):
    deprecated.warn.cache_clear()
    with caplog.at_level(logging.WARNING, "lifelong_cvae"):
        for _ in range(2):
            with pytest.raises(lifelong.InputError, match="expected at least one category"):
                lifelong.learn(three_digits, {}, rng=rng, midway=None)
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("learn(midway=) is deprecated")
    assert line.endswith("use learn(resume_from=)")


def test_load_task_ignores_progress_of_other_state_or_task(three_digits, digits, rng, tmp_path):
    def save(progress, _):
        save_task(tmp_path / str(progress.steps), progress, checkpoints.digest(three_digits))

    lifelong.learn(three_digits, {"8": digits["8"]}, rng=rng, progress=save)
    assert load_task(tmp_path / "10", three_digits, ("8",), on_damage=pytest.fail).steps == 10
    assert load_task(tmp_path / "10", three_digits, ("9",), on_damage=pytest.fail) is None
    other = lifelong.drop(three_digits, three_digits.names[0])
    assert load_task(tmp_path / "10", other, ("8",), on_damage=pytest.fail) is None
    assert load_task(tmp_path / "none", three_digits, ("8",), on_damage=pytest.fail) is None
