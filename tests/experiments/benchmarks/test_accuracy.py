import numpy as np
import pytest

from experiments.benchmarks import accuracy
from experiments.benchmarks.config import BenchmarkConfig
from lifelong_cvae.data import from_arrays


@pytest.mark.slow
def test_time_to_accuracy_runs_with_an_empty_and_a_filled_cache(small_config, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(accuracy, "REPEATS", 1)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    labels = np.repeat([0, 1], 20)
    source = from_arrays("noise", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    rows = accuracy.time_to_accuracy(BenchmarkConfig(0, small_config, lambda: source, {}))["rows"]
    assert [row["compiled"] for row in rows] == ["nothing", "compiled before"]
    columns = ["compiled", "seconds", "imports", "first steps", "learning", "recognizing", "accuracy"]
    assert all(list(row) == columns for row in rows)
    assert rows[0]["accuracy"] == rows[1]["accuracy"]
