"""Expected calibration error of predictions whose error is known."""

import numpy as np
import pytest

from lifelong_cvae.evaluation import continual


def test_calibration_error_weights_the_gap_of_each_bin_by_its_images():
    probabilities = np.array([0.95, 0.95, 0.95, 0.95, 0.5, 0.5])
    correct = np.array([True, True, True, False, False, True])
    assert continual.expected_calibration_error(probabilities, correct) == pytest.approx(4 / 6 * 0.2 + 2 / 6 * 0)


def test_calibration_error_is_small_if_accuracy_equals_confidence():
    numbers = np.random.default_rng(0)
    probabilities = numbers.uniform(0.1, 1, 100_000)
    correct = numbers.uniform(size=100_000) < probabilities
    assert continual.expected_calibration_error(probabilities, correct) < 0.01
    assert continual.expected_calibration_error(probabilities, np.zeros(100_000)) == pytest.approx(0.55, abs=0.01)


def test_calibration_error_counts_probability_one_in_the_last_bin():
    assert continual.expected_calibration_error(np.ones(3), np.array([True, True, False])) == pytest.approx(1 / 3)


def test_recognition_accuracies_include_the_calibration_error():
    log_posteriors = {"b": np.log([[0.3, 0.7], [0.7, 0.3]]), "a": np.log([[0.7, 0.3]])}
    metrics = continual.recognition_accuracies(log_posteriors, ["a", "b"])
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["calibration_error"] == pytest.approx(0.7 - 2 / 3)
