import json

import pytest

import lifelong_cvae as lifelong
from experiments.benchmarks import registry
from experiments.benchmarks.config import BenchmarkConfig


@pytest.fixture
def setting(small_config):
    return BenchmarkConfig(3, small_config, lambda: None, {"preset": "default"})


def test_figures_are_written_with_what_measured_them(tmp_path, monkeypatch, setting):
    monkeypatch.setitem(registry.BENCHMARKS, "playback", lambda setting: {"ratio": 1.5})
    values = registry.benchmark("playback", tmp_path / "b.json", setting)
    written = json.loads((tmp_path / "b.json").read_text("utf-8"))
    assert written == {"schema": 1, **values}
    assert (written["ratio"], written["seed"], written["options"]) == (1.5, 3, {"preset": "default"})
    assert {"what", "versions", "device", "date"} <= set(written)


def test_a_folder_that_there_is_not_is_told(tmp_path, setting):
    with pytest.raises(lifelong.InputError, match="no such folder"):
        registry.benchmark("playback", tmp_path / "none" / "b.json", setting)
