from experiments.benchmarks import together
from experiments.benchmarks.config import BenchmarkConfig


def test_a_task_of_several_is_compared_with_as_many_tasks_of_one(small_config, monkeypatch):
    monkeypatch.setattr(together, "COUNTS", (1, 2))
    monkeypatch.setattr(together, "MODES", ("none",))
    found = []
    monkeypatch.setattr(together, "median_seconds", lambda functions: found.extend(functions.values()) or times)
    times = {"1": 3.0, "2": 4.0}
    config = small_config.with_settings({"min_steps": 10})
    (row,) = together.together(BenchmarkConfig(0, config, lambda: None, {}))["rows"]
    assert (row["a step, ms"], row["one by one, ms"], row["one by one / together"]) == (400, 600, 1.5)
    shapes = [next(iter(function()[1].values())).shape for function in found]
    assert shapes == [(10,), (10,)]
