import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong_cvae.data import from_experiences, make_tasks
from lifelong_cvae.errors import InputError
from tests.conftest import one_line

NAMES = ("a", "b", "c", "d", "e")
# Images and labels of an experience.
X = np.arange(6 * 2 * 3, dtype=np.uint8).reshape(6, 2, 3)
Y = np.asarray([4, 7, 4, 7, 7, 1])
category_names = st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=12, unique=True)


def test_make_tasks_keeps_order_by_default():
    assert make_tasks(NAMES) == (("a",), ("b",), ("c",), ("d",), ("e",))


def test_make_tasks_takes_order_of_categories():
    assert make_tasks(NAMES, categories=["d", "a", "c"]) == (("d",), ("a",), ("c",))


@pytest.mark.parametrize(
    ("per_task", "expected"),
    [
        (1, (("a",), ("b",), ("c",), ("d",), ("e",))),
        (2, (("a", "b"), ("c", "d"), ("e",))),
        (3, (("a", "b", "c"), ("d", "e"))),
        (5, (NAMES,)),
        (99, (NAMES,)),
    ],
)
def test_make_tasks_groups_categories(per_task, expected):
    assert make_tasks(NAMES, categories_per_task=per_task) == expected


def test_make_tasks_repeats_order_of_seed():
    assert make_tasks(NAMES, order_seed=3) == make_tasks(list(NAMES), order_seed=3)


def test_make_tasks_reaches_all_orders_by_seed():
    orders = {make_tasks(("a", "b", "c"), order_seed=seed) for seed in range(200)}
    assert len(orders) == 6


def test_make_tasks_shuffles_selected_categories():
    orders = {make_tasks(NAMES, categories=["b", "d"], order_seed=seed) for seed in range(20)}
    assert orders == {(("b",), ("d",)), (("d",), ("b",))}


@given(category_names, st.none() | st.integers(0, 2**63), st.integers(1, 15))
def test_make_tasks_includes_each_category_once(available, seed, per_task):
    tasks = make_tasks(available, order_seed=seed, categories_per_task=per_task)
    names = [name for task in tasks for name in task]
    assert sorted(names) == sorted(available)
    assert all(len(task) == per_task for task in tasks[:-1])
    assert 1 <= len(tasks[-1]) <= per_task
    if seed is None:
        assert names == available


@given(category_names, st.integers(0, 2**31), st.integers(1, 15))
def test_make_tasks_order_does_not_depend_on_task_size(available, seed, per_task):
    single = make_tasks(available, order_seed=seed)
    grouped = make_tasks(available, order_seed=seed, categories_per_task=per_task)
    assert [name for (name,) in single] == [name for task in grouped for name in task]


def test_make_tasks_refuses_unknown_category():
    with pytest.raises(InputError, match="unknown category: expected one of a, b, c, d, e, got 'x'"):
        make_tasks(NAMES, categories=["a", "x"])


def test_make_tasks_refuses_repeated_category():
    with pytest.raises(InputError, match="categories: expected each one once, got 'b' 2 times"):
        make_tasks(NAMES, categories=["b", "a", "b"])


@pytest.mark.parametrize(("available", "categories"), [(NAMES, []), ([], None)])
def test_make_tasks_refuses_no_category(available, categories):
    with pytest.raises(InputError, match="categories: expected at least one, got none"):
        make_tasks(available, categories=categories)


@pytest.mark.parametrize("count", [0, -1])
def test_make_tasks_refuses_tasks_without_categories(count):
    with pytest.raises(InputError, match=f"categories_per_task: expected at least 1, got {count}"):
        make_tasks(NAMES, categories_per_task=count)


def test_make_tasks_refuses_negative_seed():
    with pytest.raises(InputError, match="order_seed: expected at least 0, got -1"):
        make_tasks(NAMES, order_seed=-1)


def test_from_experiences_yields_categories_in_label_order():
    (task,) = from_experiences([(X, Y, 0)])
    assert list(task) == ["1", "4", "7"]
    for name, images in task.items():
        np.testing.assert_array_equal(images, X[[str(label) == name for label in Y]])


def test_from_experiences_yields_one_task_per_task_label():
    tasks = list(from_experiences([(X, Y, [5, 2, 5, 2, 5, 2])]))
    assert [list(task) for task in tasks] == [["1", "7"], ["4", "7"]]
    np.testing.assert_array_equal(tasks[0]["7"], X[[1, 3]])
    np.testing.assert_array_equal(tasks[1]["7"], X[[4]])


def test_from_experiences_keeps_order_of_experiences():
    names = np.asarray(["b", "b", "a", "a", "a", "a"])
    tasks = list(from_experiences([(X, names, 9), (X[:1], ["c"], 3), (X, names, 9)]))
    assert [list(task) for task in tasks] == [["a", "b"], ["c"], ["a", "b"]]


def test_from_experiences_moves_first_channels_last():
    x = np.random.default_rng(0).random((6, 3, 4, 5), np.float32)
    (task,) = from_experiences([(x, Y, 0)], channels_first=True)
    assert task["7"].shape == (3, 4, 5, 3)
    np.testing.assert_array_equal(task["7"][0, 1, 2], x[1, :, 1, 2])


def test_from_experiences_reads_one_experience_at_a_time():
    numbers = []

    def experiences():
        for number in range(3):
            numbers.append(number)
            yield X, Y, number

    tasks = from_experiences(experiences())
    assert numbers == []
    next(tasks)
    assert numbers == [0]


@pytest.mark.parametrize(
    ("experience", "words"),
    [
        (0, ["(x, y, task)"]),
        ((X, Y), ["(x, y, task)"]),
        ((X, Y[:5], 0), ["of one length", "(6, 2, 3)", "(5,)"]),
        ((X, Y, [0, 1]), ["of one length", "(2,)"]),
        ((X, Y / 3, 0), ["y: expected", "float64"]),
        ((X, Y[:, None, None], 0), ["y: expected", "(6, 1, 1)"]),
        ((X, Y, 0.5), ["task [n]", "float64"]),
        ((X, Y, np.zeros((6, 1), int)), ["task [n]", "(6, 1)"]),
        ((3, Y, 0), ["of one length"]),
    ],
)
def test_from_experiences_refuses_other_experiences(experience, words):
    tasks = from_experiences([(X, Y, 0), experience])
    next(tasks)
    with pytest.raises(InputError) as error:
        next(tasks)
    one_line(error, "experience 2: ", "expected ", ", got ", *words)


def test_from_experiences_refuses_three_axes_with_channels_first():
    with pytest.raises(InputError) as error:
        next(from_experiences([(X, Y, 0)], channels_first=True))
    one_line(error, "expected x [n, c, h, w], got (6, 2, 3)")
