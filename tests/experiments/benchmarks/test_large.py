import numpy as np

from experiments.benchmarks import large
from experiments.benchmarks.config import BenchmarkConfig


def test_large_learns_a_folder_of_pictures(small_config):
    figures = large.large(BenchmarkConfig(0, small_config, lambda: None, {}), categories=2, pictures=20, side=16)
    assert (figures["categories"], figures["pictures"], figures["side"]) == (2, 40, 16)
    assert figures["gigabytes"] == 40 * 16 * 16 * 3 / 1e9
    assert 0 < figures["peak_gigabytes"] < 8
    assert 0 <= figures["accuracy"] <= 100
    assert min(figures[f"seconds_{part}"] for part in ("writing", "opening", "run")) > 0


def test_peak_memory_counts_arrays_within_the_context():
    before = large.anonymous_bytes()
    with large.peak_memory() as peak:
        np.ones(20_000_000, np.uint8)
    assert peak.bytes > before - 5_000_000
