import json

import pytest

from experiments.benchmarks import registry
from experiments.benchmarks.config import BenchmarkConfig


@pytest.fixture
def benchmark_config(small_config):
    return BenchmarkConfig(3, small_config, lambda: None, {"preset": "default"})


def test_run_benchmark_writes_figures_and_their_origin(tmp_path, monkeypatch, benchmark_config):
    monkeypatch.setitem(registry.BENCHMARKS, "playback", lambda benchmark_config: {"ratio": 1.5})
    file = tmp_path / "runs" / "new" / "b.json"
    values = registry.run_benchmark("playback", file, benchmark_config)
    written = json.loads(file.read_text("utf-8"))
    assert written == {"schema": 1, **values}
    assert (written["ratio"], written["seed"], written["options"]) == (1.5, 3, {"preset": "default"})
    assert {"what", "versions", "device", "date"} <= set(written)


def test_run_benchmark_measures_nothing_if_the_folder_cannot_be_created(tmp_path, monkeypatch, benchmark_config):
    monkeypatch.setitem(registry.BENCHMARKS, "playback", lambda benchmark_config: pytest.fail("was measured"))
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="file"):
        registry.run_benchmark("playback", tmp_path / "file" / "b.json", benchmark_config)
