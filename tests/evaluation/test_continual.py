"""Measures of continual recognition against values worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong_cvae.evaluation import continual

NAMES = ("cat", "dog", "T-shirt/top")
LOG_POSTERIORS = {
    # answers: cat, dog, cat, T-shirt/top
    "cat": np.array([[-1.0, -2, -3], [-5, -1, -2], [-0.1, -0.2, -0.3], [-9, -8, -7]]),
    # answers: T-shirt/top, dog
    "dog": np.array([[-3.0, -2, -1], [-900, -800, -1000]]),
    # answers: T-shirt/top three times
    "T-shirt/top": np.array([[-3.0, -2, -1], [-3, -np.inf, -1], [-3, -3.1, 5]]),
}
# Accuracies after each of four tasks: b is never better than when it was learned, c gets better.
HISTORY = [
    {"a": 1.0},
    {"a": 0.75, "b": 0.5},
    {"a": 0.875, "b": 0.25, "c": 0.25},
    {"a": 0.5, "b": 0.25, "c": 0.5, "d": 1.0},
]


@st.composite
def histories(draw):
    """Accuracies over tasks of one to three categories each."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    known = [str(i) for i in range(sum(sizes))]
    fractions = st.floats(0, 1, allow_subnormal=False)
    return [{name: draw(fractions) for name in known[:count]} for count in np.cumsum(sizes)]


class TestAccuracy:
    def test_by_hand(self):
        assert continual.accuracy_per_category(LOG_POSTERIORS, NAMES) == {"cat": 0.5, "dog": 0.5, "T-shirt/top": 1.0}

    def test_with_candidates_by_hand(self):
        # Without T-shirt/top: cat, dog, cat, dog for cat; dog, dog for dog. Alone, T-shirt/top always wins.
        candidates = {"cat": ["cat", "dog"], "dog": ["dog", "cat"], "T-shirt/top": ["T-shirt/top"]}
        expected = {"cat": 0.5, "dog": 1.0, "T-shirt/top": 1.0}
        assert continual.accuracy_per_category(LOG_POSTERIORS, NAMES, candidates=candidates) == expected

    def test_candidates_without_the_truth_are_never_right(self):
        candidates = {"cat": ["dog", "T-shirt/top"], "dog": ["cat"], "T-shirt/top": ["dog", "cat"]}
        expected = {"cat": 0.0, "dog": 0.0, "T-shirt/top": 0.0}
        assert continual.accuracy_per_category(LOG_POSTERIORS, NAMES, candidates=candidates) == expected

    def test_values_are_plain_floats(self):
        assert {type(value) for value in continual.accuracy_per_category(LOG_POSTERIORS, NAMES).values()} == {float}

    def test_log_evidence_serves_as_well(self):
        # A constant per image, such as log p(x), changes no answer.
        shifted = {name: values + np.arange(len(values))[:, None] * 100.0 for name, values in LOG_POSTERIORS.items()}
        expected = {"cat": 0.5, "dog": 0.5, "T-shirt/top": 1.0}
        assert continual.accuracy_per_category(shifted, NAMES) == expected

    @given(st.permutations(range(3)))
    def test_the_order_of_the_columns_does_not_matter(self, order):
        permuted = {name: values[:, order] for name, values in LOG_POSTERIORS.items()}
        found = continual.accuracy_per_category(permuted, [NAMES[index] for index in order])
        assert found == {"cat": 0.5, "dog": 0.5, "T-shirt/top": 1.0}

    @given(st.permutations(range(3)))
    def test_the_order_of_the_candidates_does_not_matter(self, order):
        allowed = [NAMES[index] for index in order]
        found = continual.accuracy_per_category(LOG_POSTERIORS, NAMES, candidates=dict.fromkeys(NAMES, allowed))
        assert found == {"cat": 0.5, "dog": 0.5, "T-shirt/top": 1.0}


class TestPooledAccuracy:
    def test_by_hand(self):
        # (0.5 * 10 + 1.0 * 30) / 40
        assert continual.pooled_accuracy({"a": 0.5, "b": 1.0}, {"a": 10, "b": 30}) == 0.875

    def test_is_not_the_mean_over_categories(self):
        assert continual.pooled_accuracy({"a": 0.0, "b": 1.0}, {"a": 99, "b": 1}) == pytest.approx(0.01)

    def test_counts_of_categories_not_asked_about_are_left_out(self):
        assert continual.pooled_accuracy({"a": 0.25}, {"a": 4, "b": 1000}) == 0.25

    @given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=8))
    def test_is_the_fraction_of_right_answers_counted_one_by_one(self, right_and_wrong):
        right_and_wrong = [(right, wrong) for right, wrong in right_and_wrong if right + wrong] or [(1, 0)]
        accuracies = {str(i): right / (right + wrong) for i, (right, wrong) in enumerate(right_and_wrong)}
        counts = {str(i): right + wrong for i, (right, wrong) in enumerate(right_and_wrong)}
        answers = [answer for right, wrong in right_and_wrong for answer in [1] * right + [0] * wrong]
        assert continual.pooled_accuracy(accuracies, counts) == pytest.approx(np.mean(answers))


class TestForgetting:
    def test_by_hand(self):
        # a: 1 - 0.5, b: 0.5 - 0.25, c: 0.25 - 0.5; d was learned last: (0.5 + 0.25 - 0.25) / 3
        assert continual.forgetting(HISTORY) == pytest.approx(100 * 0.5 / 3)

    def test_after_each_task_by_hand(self):
        # a: 1 - 0.75; then a: 1 - 0.875, b: 0.5 - 0.25
        assert continual.forgetting(HISTORY[:2]) == 25.0
        assert continual.forgetting(HISTORY[:3]) == 18.75

    def test_with_answers_restricted_by_hand(self):
        # a: 1 - 1, b: 0.5 - 0.5, c: 0.25 - 0.125; d is not asked for
        assert continual.forgetting(HISTORY, {"a": 1.0, "b": 0.5, "c": 0.125}) == pytest.approx(100 * 0.125 / 3)

    def test_the_restricted_kind_leaves_the_history_to_tell_the_best(self):
        final = {"a": 0.5, "b": 0.25, "c": 0.5, "d": 0.0}
        assert continual.forgetting(HISTORY, final) == continual.forgetting(HISTORY)

    def test_getting_better_is_negative(self):
        assert continual.forgetting([{"a": 0.25}, {"a": 1.0, "b": 1.0}]) == -75.0

    def test_one_task_forgets_nothing(self):
        assert continual.forgetting([{"a": 0.1, "b": 0.2}]) == 0.0
        assert continual.forgetting([{"a": 0.1}], {"a": 0.0}) == 0.0

    def test_several_categories_per_task(self):
        # a: 1 - 0, b: 0.5 - 0.25; the last task's two are not asked about
        history = [{"a": 1.0, "b": 0.5}, {"a": 0.0, "b": 0.25, "c": 0.0, "d": 0.0}]
        assert continual.forgetting(history) == 62.5

    def test_the_best_counts_and_not_the_first(self):
        assert continual.forgetting([{"a": 0.25}, {"a": 0.75, "b": 1.0}, {"a": 0.5, "b": 1.0, "c": 1.0}]) == 12.5

    def test_a_dropped_category_is_not_asked_about(self):
        assert continual.forgetting([{"a": 1.0}, {"a": 1.0, "b": 0.5}, {"b": 0.25, "c": 1.0}]) == 25.0

    @given(histories())
    def test_is_never_less_than_what_later_tasks_took(self, history):
        assert continual.forgetting(history) >= -continual.backward_transfer(history) - 1e-9

    @given(histories())
    def test_is_what_later_tasks_took_where_there_are_two_tasks(self, history):
        ends = [history[0], history[-1]]
        assert continual.forgetting(ends) == pytest.approx(-continual.backward_transfer(ends))


class TestKnownThen:
    def test_by_hand(self):
        expected = {
            "b": ["b"],
            "a": ["b", "a", "d"],
            "d": ["b", "a", "d"],
            "c": ["b", "a", "d", "c"],
        }
        assert continual.known_after_task([["b"], ["a", "d"], ["c"]]) == expected

    def test_as_candidates_it_restricts_answers_to_those_before(self):
        # cat alone is always right; for dog the choice is cat or dog; T-shirt/top has all three.
        candidates = continual.known_after_task([["cat"], ["dog"], ["T-shirt/top"]])
        found = continual.accuracy_per_category(LOG_POSTERIORS, NAMES, candidates=candidates)
        assert found == {"cat": 1.0, "dog": 1.0, "T-shirt/top": 1.0}


class TestAccuracies:
    def test_pool_the_images_and_not_the_categories(self):
        # Right answers: 2 of 4 and 3 of 3.
        two = {name: LOG_POSTERIORS[name] for name in ("cat", "T-shirt/top")}
        found = continual.recognition_accuracies(two, NAMES)
        assert found["accuracy"] == pytest.approx((2 + 3) / (4 + 3))
        assert found["accuracy_per_category"] == {"cat": 0.5, "T-shirt/top": 1.0}


class TestAverageAccuracy:
    def test_by_hand(self):
        assert continual.average_accuracy(HISTORY) == (0.5 + 0.25 + 0.5 + 1.0) / 4
        assert continual.average_accuracy(HISTORY[:2]) == (0.75 + 0.5) / 2

    def test_incremental_by_hand(self):
        # Means of the rows: 1, 1.25 / 2, 1.375 / 3, 2.25 / 4.
        expected = (1 + 1.25 / 2 + 1.375 / 3 + 2.25 / 4) / 4
        assert continual.average_incremental_accuracy(HISTORY) == pytest.approx(expected)

    def test_tasks_weigh_alike_however_many_categories_they_bring(self):
        # (1 + (1 + 0 + 0 + 0) / 4) / 2, where all entries together would give 2 / 5
        history = [{"a": 1.0}, {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}]
        assert continual.average_incremental_accuracy(history) == 0.625

    @given(histories())
    def test_of_one_task_the_two_are_one(self, history):
        assert continual.average_incremental_accuracy(history[-1:]) == continual.average_accuracy(history)


class TestBackwardTransfer:
    def test_by_hand(self):
        # a: 0.5 - 1, b: 0.25 - 0.5, c: 0.5 - 0.25; d was learned last: (-0.5 - 0.25 + 0.25) / 3
        assert continual.backward_transfer(HISTORY) == pytest.approx(-100 * 0.5 / 3)

    def test_the_first_counts_and_not_the_best(self):
        # a: 0.5 - 0.25, b: 0.75 - 1; forgetting sees a fall from 0.75 too.
        history = [{"a": 0.25}, {"a": 0.75, "b": 1.0}, {"a": 0.5, "b": 0.75, "c": 1.0}]
        assert continual.backward_transfer(history) == 0
        assert continual.forgetting(history) == 25

    def test_several_categories_per_task(self):
        # a: 0 - 1, b: 0.75 - 0.5; c and d came last
        history = [{"a": 1.0, "b": 0.5}, {"a": 0.0, "b": 0.75, "c": 1.0, "d": 0.0}]
        assert continual.backward_transfer(history) == -37.5

    @given(histories())
    def test_of_one_task_there_is_none(self, history):
        assert continual.backward_transfer(history[-1:]) == 0
        assert continual.forgetting(history[-1:]) == 0

    @given(histories())
    def test_over_the_first_task_it_is_the_change_of_average_accuracy(self, history):
        first = [{name: row[name] for name in history[0]} for row in history]
        change = continual.average_accuracy(first) - continual.average_accuracy(first[:1])
        assert continual.backward_transfer(first) == pytest.approx(100 * change)


class TestForwardTransfer:
    TASKS = (("a",), ("b", "c"), ("d",))
    # A learner with an answer for every category from the start.
    FIXED = (
        {"a": 1.0, "b": 0.5, "c": 0.25, "d": 0.0},
        {"a": 0.5, "b": 1.0, "c": 1.0, "d": 0.75},
        {"a": 0.5, "b": 0.5, "c": 0.5, "d": 1.0},
    )

    def test_by_hand(self):
        # Before its task, less what an untrained one gets: b: 0.5 - 0.125, c: 0.25 - 0.5, d: 0.75 - 0.
        untrained = {"a": 1.0, "b": 0.125, "c": 0.5}
        expected = 100 * (0.375 - 0.25 + 0.75) / 3
        assert continual.forward_transfer(self.FIXED, self.TASKS, untrained) == pytest.approx(expected)

    def test_a_learner_that_grows_has_none_by_construction(self):
        tasks = [["a"], ["b"], ["c"], ["d"]]
        assert continual.forward_transfer(HISTORY, tasks, {}) == 0
        # Chance that it could not use counts against it: (0.25 + 0.25 + 0.25) / 3.
        assert continual.forward_transfer(HISTORY, tasks, dict.fromkeys("abcd", 0.25)) == -25

    def test_of_one_task_there_is_none(self):
        assert continual.forward_transfer([{"a": 1.0, "b": 0.5}], [["a", "b"]], {"a": 0.5}) == 0


class TestIntransigence:
    def test_by_hand(self):
        # When learned: a 1, b 0.5, c 0.25, d 1. (0.5 - 1 + 1 - 0.5 + 1 - 0.25 + 0.75 - 1) / 4
        reference = [{"d": 0.75, "c": 1.0, "b": 1.0, "a": 0.5}]
        assert continual.intransigence(HISTORY, reference) == 12.5

    def test_a_reference_also_counts_when_it_first_knows(self):
        # a: 0.5 - 1, b: 1 - 0.5, c: 0 - 0.25, d: 1 - 1
        reference = [{"b": 1.0}, {"b": 0.0, "a": 0.5}, {"b": 0.0, "a": 0.0, "c": 0.0, "d": 1.0}]
        assert continual.intransigence(HISTORY, reference) == 100 * (-0.5 + 0.5 - 0.25 + 0) / 4

    @given(histories())
    def test_to_itself_it_is_zero_and_to_each_other_opposite(self, history):
        other = [{name: 1 - value for name, value in row.items()} for row in history]
        assert continual.intransigence(history, history) == 0
        assert continual.intransigence(history, other) == pytest.approx(-continual.intransigence(other, history))


class TestSummary:
    def test_by_hand(self):
        # a: 0.5, then 1, at last 0.75; b: 0.5, then 0.25.
        history = [{"a": 0.5}, {"a": 1.0, "b": 0.5}, {"a": 0.75, "b": 0.25, "c": 0.875}]
        expected = {
            "average_accuracy": (0.75 + 0.25 + 0.875) / 3,
            "average_incremental_accuracy": (0.5 + 1.5 / 2 + 1.875 / 3) / 3,
            "forgetting": 100 * (0.25 + 0.25) / 2,
            "backward_transfer": 100 * (0.25 - 0.25) / 2,
        }
        assert continual.summary(history) == pytest.approx(expected)

    @given(histories())
    def test_figures_are_plain_floats(self, history):
        assert {type(value) for value in continual.summary(history).values()} == {float}
