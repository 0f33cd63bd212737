import jax
import pytest

from experiments.benchmarks import roofline
from experiments.benchmarks.config import BenchmarkConfig
from experiments.studies import tables


@pytest.fixture
def few_images(monkeypatch):
    for name, value in (("IMAGES", 32), ("RECOGNIZED", 32), ("CATEGORIES", 2), ("SQUARE", 64), ("COPIED", 64)):
        monkeypatch.setattr(roofline, name, value)


def test_training_work_has_counts_of_xla(small_config, few_images, rng):
    cost = roofline._training_work(small_config, False, rng=rng).xla_cost
    assert cost["flops"] > 0
    assert cost["bytes accessed"] > 0


def test_training_work_has_no_counts_of_a_backend_without_them(small_config, few_images, monkeypatch, rng):
    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", lambda lowered: None)
    assert roofline._training_work(small_config, False, rng=rng).xla_cost == {}


@pytest.mark.slow
def test_roofline_leaves_out_counts_of_xla_where_there_are_none(small_config, few_images, monkeypatch):
    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", lambda lowered: None)
    figures = roofline.roofline(BenchmarkConfig(0, small_config, lambda: None, {}))
    assert figures["XLA_counts_MFLOP_a_step"] is None
    assert figures["XLA_counts_MB_a_step"] is None
    assert figures["counted_MFLOP_a_step"] > 0
    table = tables.benchmark_markdown(figures)
    assert "XLA" not in table
    assert "counted MFLOP a step" in table
    labels = [row["what"] for row in figures["rows"]]
    assert labels == [
        "training, mixed part frozen",
        "its matrix products alone",
        "training, mixed part learning",
        "its matrix products alone",
        "recognizing among 2",
        "imagining",
    ]
    assert all(row["part of the roof"] > 0 for row in figures["rows"])
