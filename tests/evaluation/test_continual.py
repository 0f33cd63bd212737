"""Measures of continual recognition against values worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong_cvae.evaluation.continual import accuracy_per_category, forgetting, pooled_accuracy

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


class TestAccuracy:
    def test_by_hand(self):
        assert accuracy_per_category(LOG_POSTERIORS, NAMES) == {"cat": 0.5, "dog": 0.5, "T-shirt/top": 1.0}

    def test_with_candidates_by_hand(self):
        # Without T-shirt/top: cat, dog, cat, dog for cat; dog, dog for dog. Alone, T-shirt/top always wins.
        candidates = {"cat": ["cat", "dog"], "dog": ["dog", "cat"], "T-shirt/top": ["T-shirt/top"]}
        expected = {"cat": 0.5, "dog": 1.0, "T-shirt/top": 1.0}
        assert accuracy_per_category(LOG_POSTERIORS, NAMES, candidates=candidates) == expected

    def test_candidates_without_the_truth_are_never_right(self):
        candidates = {"cat": ["dog", "T-shirt/top"], "dog": ["cat"], "T-shirt/top": ["dog", "cat"]}
        expected = {"cat": 0.0, "dog": 0.0, "T-shirt/top": 0.0}
        assert accuracy_per_category(LOG_POSTERIORS, NAMES, candidates=candidates) == expected

    def test_values_are_plain_floats(self):
        assert {type(value) for value in accuracy_per_category(LOG_POSTERIORS, NAMES).values()} == {float}

    def test_log_evidence_serves_as_well(self):
        # A constant per image, such as log p(x), changes no answer.
        shifted = {
            name: values + np.arange(len(values))[:, None] * 100.0 for name, values in LOG_POSTERIORS.items()
        }
        expected = {"cat": 0.5, "dog": 0.5, "T-shirt/top": 1.0}
        assert accuracy_per_category(shifted, NAMES) == expected

    @given(st.permutations(range(3)))
    def test_the_order_of_the_columns_does_not_matter(self, order):
        permuted = {name: values[:, order] for name, values in LOG_POSTERIORS.items()}
        found = accuracy_per_category(permuted, [NAMES[index] for index in order])
        assert found == {"cat": 0.5, "dog": 0.5, "T-shirt/top": 1.0}

    @given(st.permutations(range(3)))
    def test_the_order_of_the_candidates_does_not_matter(self, order):
        allowed = [NAMES[index] for index in order]
        found = accuracy_per_category(LOG_POSTERIORS, NAMES, candidates=dict.fromkeys(NAMES, allowed))
        assert found == {"cat": 0.5, "dog": 0.5, "T-shirt/top": 1.0}


class TestPooledAccuracy:
    def test_by_hand(self):
        # (0.5 * 10 + 1.0 * 30) / 40
        assert pooled_accuracy({"a": 0.5, "b": 1.0}, {"a": 10, "b": 30}) == 0.875

    def test_is_not_the_mean_over_categories(self):
        assert pooled_accuracy({"a": 0.0, "b": 1.0}, {"a": 99, "b": 1}) == pytest.approx(0.01)

    def test_counts_of_categories_not_asked_about_are_left_out(self):
        assert pooled_accuracy({"a": 0.25}, {"a": 4, "b": 1000}) == 0.25

    @given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=8))
    def test_is_the_fraction_of_right_answers_counted_one_by_one(self, right_and_wrong):
        right_and_wrong = [(right, wrong) for right, wrong in right_and_wrong if right + wrong] or [(1, 0)]
        accuracies = {str(i): right / (right + wrong) for i, (right, wrong) in enumerate(right_and_wrong)}
        counts = {str(i): right + wrong for i, (right, wrong) in enumerate(right_and_wrong)}
        answers = [answer for right, wrong in right_and_wrong for answer in [1] * right + [0] * wrong]
        assert pooled_accuracy(accuracies, counts) == pytest.approx(np.mean(answers))


class TestForgetting:
    def test_by_hand(self):
        # a: 1 - 0.5, b: 0.5 - 0.25, c: 0.25 - 0.5; d was learned last: (0.5 + 0.25 - 0.25) / 3
        assert forgetting(HISTORY) == pytest.approx(100 * 0.5 / 3)

    def test_after_each_task_by_hand(self):
        # a: 1 - 0.75; then a: 1 - 0.875, b: 0.5 - 0.25
        assert forgetting(HISTORY[:2]) == 25.0
        assert forgetting(HISTORY[:3]) == 18.75

    def test_with_answers_restricted_by_hand(self):
        # a: 1 - 1, b: 0.5 - 0.5, c: 0.25 - 0.125; d is not asked for
        assert forgetting(HISTORY, {"a": 1.0, "b": 0.5, "c": 0.125}) == pytest.approx(100 * 0.125 / 3)

    def test_the_restricted_kind_leaves_the_history_to_tell_the_best(self):
        final = {"a": 0.5, "b": 0.25, "c": 0.5, "d": 0.0}
        assert forgetting(HISTORY, final) == forgetting(HISTORY)

    def test_getting_better_is_negative(self):
        assert forgetting([{"a": 0.25}, {"a": 1.0, "b": 1.0}]) == -75.0

    def test_one_task_forgets_nothing(self):
        assert forgetting([{"a": 0.1, "b": 0.2}]) == 0.0
        assert forgetting([{"a": 0.1}], {"a": 0.0}) == 0.0

    def test_several_categories_per_task(self):
        # a: 1 - 0, b: 0.5 - 0.25; the last task's two are not asked about
        history = [{"a": 1.0, "b": 0.5}, {"a": 0.0, "b": 0.25, "c": 0.0, "d": 0.0}]
        assert forgetting(history) == 62.5

    def test_the_best_counts_and_not_the_first(self):
        assert forgetting([{"a": 0.25}, {"a": 0.75, "b": 1.0}, {"a": 0.5, "b": 1.0, "c": 1.0}]) == 12.5

    def test_a_dropped_category_is_not_asked_about(self):
        assert forgetting([{"a": 1.0}, {"a": 1.0, "b": 0.5}, {"b": 0.25, "c": 1.0}]) == 25.0
