import pytest

from experiments.benchmarks import memory
from experiments.benchmarks.config import BenchmarkConfig


@pytest.mark.slow
def test_over_categories_measures_memory_after_each_category(small_config, monkeypatch):
    monkeypatch.setattr(memory, "CATEGORIES", 4)
    monkeypatch.setattr(memory, "COMPARED_FROM", 2)
    figures = memory.over_categories(BenchmarkConfig(0, small_config, lambda: None, {}))
    megabytes = figures["megabytes"]
    assert len(megabytes) == 4
    assert min(megabytes) > 0
    assert figures["grown"] == megabytes[3] - megabytes[1]
    assert figures["allowed"] == 3 * figures["parameters"] + 30
