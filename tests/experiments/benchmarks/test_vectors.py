"""The benchmark `vectors`, on three Gaussians."""

import numpy as np
import pytest

import lifelong_cvae as lifelong
from experiments.benchmarks import thousand_vectors, vectors
from experiments.benchmarks.config import BenchmarkConfig
from lifelong_cvae.data import from_arrays
from lifelong_cvae.evaluation import vector_classifier
from tests.vectors.test_vectors import CATEGORIES, SETTINGS, gaussians


@pytest.fixture(scope="module")
def source():
    """A source of Gaussians that any method tells apart."""
    arrays = {}
    for split, count, seed in (("train", 60, 2), ("test", 30, 3)):
        arrays[f"{split}_images"] = np.concatenate(list(gaussians(count, seed).values()))
        arrays[f"{split}_labels"] = np.repeat(CATEGORIES, count)
    return from_arrays("gaussians", **arrays)


@pytest.mark.slow
def test_vectors_compares_with_joint_methods(source, monkeypatch):
    for name, value in (("ORDERS", 2), ("KNOWN", 2), ("RANDOM_FEATURES", 20)):
        monkeypatch.setattr(vectors, name, value)
    monkeypatch.setattr(vector_classifier, "STRENGTHS", (10.0,))
    config = lifelong.Config().with_settings({**SETTINGS, "min_steps": "40", "epochs": "1"})
    figures = vectors.vectors(BenchmarkConfig(0, config, lambda: source, {}))
    accuracies = {row["what"]: row["accuracy, %"] for row in figures["rows"]}
    assert len(accuracies) == 6
    assert min(accuracies.values()) > 90
    assert min(figures["taught_by_imagined"], figures["taught_by_real"]) > 90
    assert figures["unknown_maximum_softmax"] <= 1
    assert figures["unknown_ours"] > 0.8
    assert figures["differing_answers"] <= 0.02


@pytest.mark.slow
def test_thousand_vectors_learns_in_one_task_and_one_by_one():
    settings = {**SETTINGS, "min_steps": "40", "epochs": "1", "mixed_mode": "none", "recognizer": "closed_form"}
    saved = []
    config = BenchmarkConfig(0, lifelong.Config().with_settings(settings), lambda: None, {}, saved.append)
    figures = thousand_vectors.thousand_vectors(config, categories=6)
    assert figures["one_task_accuracy"] == figures["stream_accuracy"] == 100
    assert figures["joint_lda_accuracy"] > 90
    assert min(figures["one_task_seconds"], figures["stream_seconds"]) > 0
    assert len(saved) == 2


def test_sample_gaussians_have_low_rank_covariance(monkeypatch):
    monkeypatch.setattr(thousand_vectors, "TRAIN", 5000)
    train, test = thousand_vectors.sample_gaussians(2, 0)
    assert {name: (len(train[name]), len(test[name])) for name in train} == dict.fromkeys(("c0000", "c0001"), (5000, 5))
    variances = np.linalg.eigvalsh(np.cov(train["c0000"], rowvar=False))[::-1]
    assert (
        variances[thousand_vectors.DIRECTIONS]
        < 1.3 * thousand_vectors.NOISE**2
        < variances[thousand_vectors.DIRECTIONS - 1]
    )
