"""Streams: which categories arrive when."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong_cvae.data import from_experiences, make_tasks
from lifelong_cvae.errors import InputError
from tests.conftest import one_line

NAMES = ("a", "b", "c", "d", "e")
names = st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=12, unique=True)


class TestOrder:
    def test_is_the_sources_by_default(self):
        assert make_tasks(NAMES) == (("a",), ("b",), ("c",), ("d",), ("e",))

    def test_is_the_one_that_is_named(self):
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
    def test_several_arrive_at_once(self, per_task, expected):
        assert make_tasks(NAMES, categories_per_task=per_task) == expected

    def test_a_seed_gives_the_same_order_every_time(self):
        assert make_tasks(NAMES, order_seed=3) == make_tasks(list(NAMES), order_seed=3)

    def test_seeds_give_every_order(self):
        orders = {make_tasks(("a", "b", "c"), order_seed=seed) for seed in range(200)}
        assert len(orders) == 6

    def test_a_seed_shuffles_what_was_chosen(self):
        orders = {make_tasks(NAMES, categories=["b", "d"], order_seed=seed) for seed in range(20)}
        assert orders == {(("b",), ("d",)), (("d",), ("b",))}

    @given(names, st.none() | st.integers(0, 2**63), st.integers(1, 15))
    def test_every_category_arrives_once_in_tasks_of_the_size_asked_for(self, available, seed, per_task):
        stream = make_tasks(available, order_seed=seed, categories_per_task=per_task)
        arrived = [name for task in stream for name in task]
        assert sorted(arrived) == sorted(available)
        assert all(len(task) == per_task for task in stream[:-1])
        assert 1 <= len(stream[-1]) <= per_task
        if seed is None:
            assert arrived == available

    @given(names, st.integers(0, 2**31), st.integers(1, 15))
    def test_the_size_of_tasks_does_not_change_the_order(self, available, seed, per_task):
        single = make_tasks(available, order_seed=seed)
        grouped = make_tasks(available, order_seed=seed, categories_per_task=per_task)
        assert [name for (name,) in single] == [name for task in grouped for name in task]


class TestRefused:
    def test_an_unknown_category_names_the_known_ones(self):
        with pytest.raises(InputError, match="unknown category 'x': one of a, b, c, d, e is expected"):
            make_tasks(NAMES, categories=["a", "x"])

    def test_a_category_named_twice(self):
        with pytest.raises(InputError, match="category 'b' is named twice"):
            make_tasks(NAMES, categories=["b", "a", "b"])

    @pytest.mark.parametrize(("available", "categories"), [(NAMES, []), ([], None)])
    def test_no_category(self, available, categories):
        with pytest.raises(InputError, match="no category: at least one is expected"):
            make_tasks(available, categories=categories)

    @pytest.mark.parametrize("wrong", [0, -1])
    def test_tasks_without_categories(self, wrong):
        with pytest.raises(InputError, match=f"categories_per_task={wrong}: at least 1 is expected"):
            make_tasks(NAMES, categories_per_task=wrong)

    def test_a_negative_seed(self):
        with pytest.raises(InputError, match="order_seed=-1: at least 0 is expected"):
            make_tasks(NAMES, order_seed=-1)


class TestExperiences:
    x = np.arange(6 * 2 * 3, dtype=np.uint8).reshape(6, 2, 3)
    y = np.asarray([4, 7, 4, 7, 7, 1])

    def test_one_is_a_task_with_its_categories_in_label_order(self):
        (task,) = from_experiences([(self.x, self.y, 0)])
        assert list(task) == ["1", "4", "7"]
        for name, images in task.items():
            np.testing.assert_array_equal(images, self.x[self.y == int(name)])

    def test_of_several_labels_is_as_many_tasks(self):
        tasks = list(from_experiences([(self.x, self.y, [5, 2, 5, 2, 5, 2])]))
        assert [list(task) for task in tasks] == [["1", "7"], ["4", "7"]]
        np.testing.assert_array_equal(tasks[0]["7"], self.x[[1, 3]])
        np.testing.assert_array_equal(tasks[1]["7"], self.x[[4]])

    def test_arrive_in_their_order_whatever_their_labels(self):
        names = np.asarray(["b", "b", "a", "a", "a", "a"])
        tasks = list(from_experiences([(self.x, names, 9), (self.x[:1], ["c"], 3), (self.x, names, 9)]))
        assert [list(task) for task in tasks] == [["a", "b"], ["c"], ["a", "b"]]

    def test_channels_may_come_first(self):
        x = np.random.default_rng(0).random((6, 3, 4, 5), np.float32)
        (task,) = from_experiences([(x, self.y, 0)], channels_first=True)
        assert task["7"].shape == (3, 4, 5, 3)
        np.testing.assert_array_equal(task["7"][0, 1, 2], x[1, :, 1, 2])

    def test_are_read_when_their_turn_has_come(self):
        read = []

        def experiences():
            for number in range(3):
                read.append(number)
                yield self.x, self.y, number

        stream = from_experiences(experiences())
        assert read == []
        next(stream)
        assert read == [0]

    @pytest.mark.parametrize(
        ("experience", "words"),
        [
            (0, ["(x, y, task)"]),
            ((x, y), ["(x, y, task)"]),
            ((x, y[:5], 0), ["of one length", "(6, 2, 3)", "(5,)"]),
            ((x, y, [0, 1]), ["of one length", "(2,)"]),
            ((x, y / 2, 0), ["y [n]", "float64"]),
            ((x, y[:, None], 0), ["y [n]", "(6, 1)"]),
            ((x, y, 0.5), ["task [n]", "float64"]),
            ((x, y, np.zeros((6, 1), int)), ["task [n]", "(6, 1)"]),
            ((3, y, 0), ["of one length"]),
        ],
    )
    def test_that_are_none_are_told_in_one_line(self, experience, words):
        good = (self.x, self.y, 0)
        stream = from_experiences([good, experience])
        next(stream)
        with pytest.raises(InputError) as error:
            next(stream)
        one_line(error, "experience 2", "expected", *words)

    def test_need_four_axes_where_channels_come_first(self):
        with pytest.raises(InputError) as error:
            next(from_experiences([(self.x, self.y, 0)], channels_first=True))
        one_line(error, "[n, c, h, w]", "(6, 2, 3)")
