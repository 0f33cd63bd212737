from experiments.benchmarks import together
from experiments.benchmarks.config import BenchmarkConfig


def test_together_compares_a_task_of_several_with_tasks_of_one(small_config, monkeypatch):
    monkeypatch.setattr(together, "COUNTS", (1, 2))
    monkeypatch.setattr(together, "MODES", ("none",))
    seconds = {"1": 3.0, "2": 4.0}
    timed_functions = []

    def fake_median_seconds(functions):
        timed_functions.extend(functions.values())
        return seconds

    monkeypatch.setattr(together, "median_seconds", fake_median_seconds)
    config = small_config.with_settings({"min_steps": 10})
    (row,) = together.together(BenchmarkConfig(0, config, lambda: None, {}))["rows"]
    assert (row["a step, ms"], row["one by one, ms"], row["one by one / together"]) == (400, 600, 1.5)
    shapes = [next(iter(function()[1].values())).shape for function in timed_functions]
    assert shapes == [(10, 1), (10, 2)]
