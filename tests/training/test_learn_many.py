"""`learn_many`: tasks that are trained side by side end as those that are learned one after another."""

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from tests.conftest import SMALL_FEATURES, assert_trees_equal, one_line

# Ten steps for each 100 images: tasks of other sizes have schedules of other lengths.
QUICK = {**SMALL_FEATURES, "batch_size": 20, "epochs": 2, "min_steps": 10, "steps_per_call": 5}


@pytest.fixture(scope="module", params=[pytest.param("none", marks=pytest.mark.slow), "frozen"])
def before(request, small_config, digits, rng):
    """A state whose mixed part does not learn."""
    config = small_config.with_settings({**QUICK, "mixed_mode": request.param})
    state = lifelong.init(config, (28, 28), rng=rng)
    return lifelong.learn(state, {"3": digits["4"][:60]}, rng=rng)[0]


@pytest.fixture(scope="module")
def tasks(digits):
    return [{"0": digits["0"][:100]}, {"1": digits["1"][:210], "2": digits["2"][:90]}, {"4": digits["4"][:120]}]


@pytest.fixture(scope="module")
def together(before, tasks, rng):
    return list(lifelong.learn_many(before, tasks, rng=rng))


@pytest.fixture(scope="module")
def alone(before, tasks, rng):
    return list(lifelong.learn_stream(before, tasks, rng=rng))


def assert_states_close(state, expected):
    def check(path, value, other):
        # Tables of losses and thresholds are functions of scores, which amplify rounding.
        tolerance = 1e-3 if {"calibration", "thresholds"} & {getattr(key, "key", None) for key in path} else 1e-5
        np.testing.assert_allclose(value, other, rtol=tolerance, atol=1e-5, err_msg=str(path))

    jax.tree_util.tree_map_with_path(check, state.params, expected.params)


def test_learn_many_gives_the_states_of_learning_one_after_another(together, alone):
    for (state, _), (expected, _) in zip(together, alone, strict=True):
        assert state.names == expected.names
        assert state.visits == expected.visits
        assert state.base_categories_left == expected.base_categories_left
        assert_states_close(state, expected)


def test_learn_many_reports_each_task(together, alone):
    assert [report.steps for _, report in together] == [10, 20, 15]
    for (_, report), (_, expected) in zip(together, alone, strict=True):
        assert report.names == expected.names
        assert report.steps == expected.steps
        assert report.terms == pytest.approx(expected.terms, rel=1e-5)
        assert report.seconds > 0


def test_learn_many_keeps_earlier_categories_bit_for_bit(before, together):
    state = together[-1][0]
    assert_trees_equal(state.params["mixed"], before.params["mixed"])
    assert_trees_equal(state.params["categories"]["3"], before.params["categories"]["3"])


def test_learn_many_continues_known_categories(before, digits, rng):
    tasks = [{"3": digits["4"][60:120]}, {"0": digits["0"][:40]}]
    for state, _ in lifelong.learn_many(before, tasks, rng=rng):
        assert state.visit("3") == 2
    expected = [state for state, _ in lifelong.learn_stream(before, tasks, rng=rng)][-1]
    assert_states_close(state, expected)


def test_learn_many_resumes_to_the_same_parameters(before, tasks, together, rng):
    stopped = []

    def stop(progress, total):
        assert total == 20
        if progress.steps == 15:
            stopped.append(progress)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(lifelong.learn_many(before, tasks, rng=rng, progress=stop))
    resumed = list(lifelong.learn_many(before, tasks, rng=rng, resume_from=stopped[0]))
    for (state, report), (expected, expected_report) in zip(resumed, together, strict=True):
        assert_trees_equal(state.params, expected.params)
        assert report.terms == expected_report.terms


def test_learn_many_of_no_task_yields_nothing(before, rng):
    assert list(lifelong.learn_many(before, [], rng=rng)) == []


@pytest.mark.parametrize("settings", [{"mixed_mode": "playback"}, {"mixed_mode": "frozen", "base_categories": 2}])
def test_learn_many_rejects_a_mixed_part_that_learns(small_config, digits, rng, settings):
    state = lifelong.init(small_config.with_settings(settings), (28, 28), rng=rng)
    with pytest.raises(lifelong.InputError) as error:
        list(lifelong.learn_many(state, [{"0": digits["0"]}, {"1": digits["1"]}], rng=rng))
    one_line(error, "expected a mixed part that does not learn", f"got mixed_mode={settings['mixed_mode']}")


def test_learn_many_rejects_a_category_in_two_tasks(before, digits, rng):
    with pytest.raises(lifelong.InputError) as error:
        list(lifelong.learn_many(before, [{"0": digits["0"]}, {"0": digits["1"]}], rng=rng))
    one_line(error, "expected each category once, got '0' twice")


@pytest.mark.slow
def test_learn_many_is_as_accurate_as_learning_one_after_another(mnist5k, rng):
    images = {name: mnist5k.read("train", name) for name in mnist5k.categories}
    state, _ = lifelong.learn(lifelong.init(lifelong.Config(), (28, 28, 1), rng=rng), {"0": images.pop("0")}, rng=rng)
    tasks = [{name: rows} for name, rows in images.items()]
    ends = [list(learn(state, tasks, rng=rng))[-1][0] for learn in (lifelong.learn_many, lifelong.learn_stream)]
    test = np.concatenate([mnist5k.read("test", name) for name in mnist5k.categories])
    first, second = (lifelong.recognize(end, test)[0] for end in ends)
    labels = np.repeat(mnist5k.categories, [mnist5k.counts["test"][name] for name in mnist5k.categories])
    assert (first == labels).mean() == pytest.approx((second == labels).mean(), abs=1e-3)
