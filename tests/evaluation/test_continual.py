"""Metrics of continual recognition against values computed by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong_cvae.evaluation import continual

NAMES = ("cat", "dog", "T-shirt/top")
LOG_POSTERIORS = {
    # predictions: cat, dog, cat, T-shirt/top
    "cat": np.array([[-1.0, -2, -3], [-5, -1, -2], [-0.1, -0.2, -0.3], [-9, -8, -7]]),
    # predictions: T-shirt/top, dog
    "dog": np.array([[-3.0, -2, -1], [-900, -800, -1000]]),
    # predictions: T-shirt/top three times
    "T-shirt/top": np.array([[-3.0, -2, -1], [-3, -np.inf, -1], [-3, -3.1, 5]]),
}
ACCURACIES = {"cat": 0.5, "dog": 0.5, "T-shirt/top": 1.0}
# Accuracies after each of four tasks: b is never better than when it was learned, c improves.
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


# Accuracies


def test_accuracy_per_category_by_hand():
    assert continual.accuracy_per_category(LOG_POSTERIORS, NAMES) == ACCURACIES


def test_accuracy_per_category_restricts_predictions_to_candidates():
    # Without T-shirt/top: cat, dog, cat, dog for cat; dog, dog for dog. A single candidate is always predicted.
    candidates = {"cat": ["cat", "dog"], "dog": ["dog", "cat"], "T-shirt/top": ["T-shirt/top"]}
    expected = {"cat": 0.5, "dog": 1.0, "T-shirt/top": 1.0}
    assert continual.accuracy_per_category(LOG_POSTERIORS, NAMES, candidates=candidates) == expected


def test_accuracy_per_category_is_zero_without_the_true_candidate():
    candidates = {"cat": ["dog", "T-shirt/top"], "dog": ["cat"], "T-shirt/top": ["dog", "cat"]}
    expected = {"cat": 0.0, "dog": 0.0, "T-shirt/top": 0.0}
    assert continual.accuracy_per_category(LOG_POSTERIORS, NAMES, candidates=candidates) == expected


def test_accuracy_per_category_returns_plain_floats():
    assert {type(value) for value in continual.accuracy_per_category(LOG_POSTERIORS, NAMES).values()} == {float}


def test_accuracy_per_category_ignores_a_constant_per_image():
    # log p(x) is such a constant.
    shifted = {name: values + np.arange(len(values))[:, None] * 100.0 for name, values in LOG_POSTERIORS.items()}
    assert continual.accuracy_per_category(shifted, NAMES) == ACCURACIES


@given(st.permutations(range(3)))
def test_accuracy_per_category_ignores_the_order_of_columns(order):
    permuted = {name: values[:, order] for name, values in LOG_POSTERIORS.items()}
    assert continual.accuracy_per_category(permuted, [NAMES[index] for index in order]) == ACCURACIES


@given(st.permutations(range(3)))
def test_accuracy_per_category_ignores_the_order_of_candidates(order):
    candidates = {name: [NAMES[index] for index in order] for name in NAMES}
    assert continual.accuracy_per_category(LOG_POSTERIORS, NAMES, candidates=candidates) == ACCURACIES


def test_pooled_accuracy_by_hand():
    # (0.5 * 10 + 1.0 * 30) / 40
    assert continual.pooled_accuracy({"a": 0.5, "b": 1.0}, {"a": 10, "b": 30}) == 0.875


def test_pooled_accuracy_is_not_the_mean_over_categories():
    assert continual.pooled_accuracy({"a": 0.0, "b": 1.0}, {"a": 99, "b": 1}) == pytest.approx(0.01)


def test_pooled_accuracy_ignores_counts_of_other_categories():
    assert continual.pooled_accuracy({"a": 0.25}, {"a": 4, "b": 1000}) == 0.25


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=8))
def test_pooled_accuracy_is_the_mean_over_single_predictions(counts):
    counts = [(correct, wrong) for correct, wrong in counts if correct + wrong] or [(1, 0)]
    accuracies = {str(i): correct / (correct + wrong) for i, (correct, wrong) in enumerate(counts)}
    images = {str(i): correct + wrong for i, (correct, wrong) in enumerate(counts)}
    predictions = [value for correct, wrong in counts for value in [1] * correct + [0] * wrong]
    assert continual.pooled_accuracy(accuracies, images) == pytest.approx(np.mean(predictions))


def test_known_after_task_by_hand():
    expected = {"b": ["b"], "a": ["b", "a", "d"], "d": ["b", "a", "d"], "c": ["b", "a", "d", "c"]}
    assert continual.known_after_task([["b"], ["a", "d"], ["c"]]) == expected


def test_known_after_task_serves_as_candidates():
    # cat has itself only, dog has cat and dog, T-shirt/top has all three.
    candidates = continual.known_after_task([["cat"], ["dog"], ["T-shirt/top"]])
    accuracies = continual.accuracy_per_category(LOG_POSTERIORS, NAMES, candidates=candidates)
    assert accuracies == {"cat": 1.0, "dog": 1.0, "T-shirt/top": 1.0}


def test_recognition_accuracies_pool_images_instead_of_categories():
    # Correct predictions: 2 of 4 and 3 of 3.
    two_categories = {name: LOG_POSTERIORS[name] for name in ("cat", "T-shirt/top")}
    metrics = continual.recognition_accuracies(two_categories, NAMES)
    assert metrics["accuracy"] == pytest.approx((2 + 3) / (4 + 3))
    assert metrics["accuracy_per_category"] == {"cat": 0.5, "T-shirt/top": 1.0}


def test_with_suffix_keeps_values_and_order():
    suffixed = continual.with_suffix({"b": 1, "a": {"c": 2}}, continual.ELBO_SUFFIX)
    assert list(suffixed.items()) == [("b_elbo", 1), ("a_elbo", {"c": 2})]


# Averages


def test_average_accuracy_by_hand():
    assert continual.average_accuracy(HISTORY) == (0.5 + 0.25 + 0.5 + 1.0) / 4
    assert continual.average_accuracy(HISTORY[:2]) == (0.75 + 0.5) / 2


def test_average_incremental_accuracy_by_hand():
    # Means of the rows: 1, 1.25 / 2, 1.375 / 3, 2.25 / 4.
    expected = (1 + 1.25 / 2 + 1.375 / 3 + 2.25 / 4) / 4
    assert continual.average_incremental_accuracy(HISTORY) == pytest.approx(expected)


def test_average_incremental_accuracy_weights_tasks_equally():
    # (1 + (1 + 0 + 0 + 0) / 4) / 2; a mean over all entries would be 2 / 5.
    history = [{"a": 1.0}, {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}]
    assert continual.average_incremental_accuracy(history) == 0.625


@given(histories())
def test_average_incremental_accuracy_of_one_task_is_the_average_accuracy(history):
    assert continual.average_incremental_accuracy(history[-1:]) == continual.average_accuracy(history)


# Forgetting


def test_forgetting_by_hand():
    # a: 1 - 0.5, b: 0.5 - 0.25, c: 0.25 - 0.5; d was learned last: (0.5 + 0.25 - 0.25) / 3
    assert continual.forgetting(HISTORY) == pytest.approx(100 * 0.5 / 3)


def test_forgetting_after_each_task_by_hand():
    # a: 1 - 0.75; then a: 1 - 0.875, b: 0.5 - 0.25
    assert continual.forgetting(HISTORY[:2]) == 25.0
    assert continual.forgetting(HISTORY[:3]) == 18.75


def test_forgetting_with_final_accuracies_by_hand():
    # a: 1 - 1, b: 0.5 - 0.5, c: 0.25 - 0.125; d is not needed.
    assert continual.forgetting(HISTORY, {"a": 1.0, "b": 0.5, "c": 0.125}) == pytest.approx(100 * 0.125 / 3)


def test_forgetting_with_final_accuracies_takes_the_maximum_from_the_history():
    final = {"a": 0.5, "b": 0.25, "c": 0.5, "d": 0.0}
    assert continual.forgetting(HISTORY, final) == continual.forgetting(HISTORY)


def test_forgetting_is_negative_for_improvement():
    assert continual.forgetting([{"a": 0.25}, {"a": 1.0, "b": 1.0}]) == -75.0


def test_forgetting_of_one_task_is_zero():
    assert continual.forgetting([{"a": 0.1, "b": 0.2}]) == 0.0
    assert continual.forgetting([{"a": 0.1}], {"a": 0.0}) == 0.0


def test_forgetting_with_several_categories_per_task():
    # a: 1 - 0, b: 0.5 - 0.25; the two categories of the last task do not count.
    history = [{"a": 1.0, "b": 0.5}, {"a": 0.0, "b": 0.25, "c": 0.0, "d": 0.0}]
    assert continual.forgetting(history) == 62.5


def test_forgetting_starts_from_the_best_accuracy_not_the_first():
    assert continual.forgetting([{"a": 0.25}, {"a": 0.75, "b": 1.0}, {"a": 0.5, "b": 1.0, "c": 1.0}]) == 12.5


def test_forgetting_ignores_a_dropped_category():
    assert continual.forgetting([{"a": 1.0}, {"a": 1.0, "b": 0.5}, {"b": 0.25, "c": 1.0}]) == 25.0


@given(histories())
def test_forgetting_is_at_least_minus_backward_transfer(history):
    assert continual.forgetting(history) >= -continual.backward_transfer(history) - 1e-9


@given(histories())
def test_forgetting_of_two_tasks_is_minus_backward_transfer(history):
    ends = [history[0], history[-1]]
    assert continual.forgetting(ends) == pytest.approx(-continual.backward_transfer(ends))


# Transfer


def test_backward_transfer_by_hand():
    # a: 0.5 - 1, b: 0.25 - 0.5, c: 0.5 - 0.25; d was learned last: (-0.5 - 0.25 + 0.25) / 3
    assert continual.backward_transfer(HISTORY) == pytest.approx(-100 * 0.5 / 3)


def test_backward_transfer_starts_from_the_first_accuracy_not_the_best():
    # a: 0.5 - 0.25, b: 0.75 - 1. Forgetting also includes the fall from 0.75.
    history = [{"a": 0.25}, {"a": 0.75, "b": 1.0}, {"a": 0.5, "b": 0.75, "c": 1.0}]
    assert continual.backward_transfer(history) == 0
    assert continual.forgetting(history) == 25


def test_backward_transfer_with_several_categories_per_task():
    # a: 0 - 1, b: 0.75 - 0.5; c and d were learned last.
    history = [{"a": 1.0, "b": 0.5}, {"a": 0.0, "b": 0.75, "c": 1.0, "d": 0.0}]
    assert continual.backward_transfer(history) == -37.5


@given(histories())
def test_backward_transfer_and_forgetting_of_one_task_are_zero(history):
    assert continual.backward_transfer(history[-1:]) == 0
    assert continual.forgetting(history[-1:]) == 0


@given(histories())
def test_backward_transfer_of_the_first_task_is_the_change_of_average_accuracy(history):
    first = [{name: row[name] for name in history[0]} for row in history]
    change = continual.average_accuracy(first) - continual.average_accuracy(first[:1])
    assert continual.backward_transfer(first) == pytest.approx(100 * change)


def test_intransigence_by_hand():
    # When learned: a 1, b 0.5, c 0.25, d 1. (0.5 - 1 + 1 - 0.5 + 1 - 0.25 + 0.75 - 1) / 4
    reference = [{"d": 0.75, "c": 1.0, "b": 1.0, "a": 0.5}]
    assert continual.intransigence(HISTORY, reference) == 12.5


def test_intransigence_reads_the_reference_when_it_first_knows_a_category():
    # a: 0.5 - 1, b: 1 - 0.5, c: 0 - 0.25, d: 1 - 1
    reference = [{"b": 1.0}, {"b": 0.0, "a": 0.5}, {"b": 0.0, "a": 0.0, "c": 0.0, "d": 1.0}]
    assert continual.intransigence(HISTORY, reference) == 100 * (-0.5 + 0.5 - 0.25 + 0) / 4


@given(histories())
def test_intransigence_is_antisymmetric(history):
    other = [{name: 1 - value for name, value in row.items()} for row in history]
    assert continual.intransigence(history, history) == 0
    assert continual.intransigence(history, other) == pytest.approx(-continual.intransigence(other, history))


def test_summary_by_hand():
    # a: 0.5, then 1, finally 0.75; b: 0.5, then 0.25.
    history = [{"a": 0.5}, {"a": 1.0, "b": 0.5}, {"a": 0.75, "b": 0.25, "c": 0.875}]
    expected = {
        "average_accuracy": (0.75 + 0.25 + 0.875) / 3,
        "average_incremental_accuracy": (0.5 + 1.5 / 2 + 1.875 / 3) / 3,
        "forgetting": 100 * (0.25 + 0.25) / 2,
        "backward_transfer": 100 * (0.25 - 0.25) / 2,
    }
    assert continual.summary(history) == pytest.approx(expected)


@given(histories())
def test_summary_returns_plain_floats(history):
    assert {type(value) for value in continual.summary(history).values()} == {float}
