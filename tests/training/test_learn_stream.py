import pytest

import lifelong_cvae as lifelong
from tests.conftest import assert_trees_equal, one_line
from tests.training.conftest import learned_state


@pytest.fixture(scope="module")
def one_digit(small_config, digits, rng):
    return learned_state(small_config, [{"0": digits["0"][:40]}], rng)


def test_learn_stream_equals_learn_of_each_task(one_digit, digits, rng):
    state, expected_states = one_digit, []
    for task in [{"7": digits["7"][:40]}, {"8": digits["8"][:40], "9": digits["9"][:40]}]:
        state, _ = lifelong.learn(state, task, rng=rng)
        expected_states.append(state)
    stream = [("7", digits["7"][:40]), {"8": digits["8"][:40], "9": digits["9"][:40]}]
    results = list(lifelong.learn_stream(one_digit, iter(stream), rng=rng))
    assert [report.names for _, report in results] == [("7",), ("8", "9")]
    for (state, _), expected in zip(results, expected_states, strict=True):
        assert state.names == expected.names
        assert_trees_equal(state.params, expected.params)


def test_learn_stream_reads_one_task_at_a_time(one_digit, digits, rng):
    names_read = []

    def stream():
        for name in "789":
            names_read.append(name)
            yield name, digits[name][:20]

    next(lifelong.learn_stream(one_digit, stream(), rng=rng))
    assert names_read == ["7"]


@pytest.mark.parametrize("task", [3, ("7",), ("7", "8", "9"), None])
def test_learn_stream_refuses_other_items_in_one_line(one_digit, rng, task):
    with pytest.raises(lifelong.InputError) as error:
        next(lifelong.learn_stream(one_digit, [task], rng=rng))
    one_line(error, f"task: expected a pair (name, images) or a mapping, got {type(task).__name__}")
