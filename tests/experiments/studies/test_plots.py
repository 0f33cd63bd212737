import numpy as np
import pytest

from experiments.studies import plots


@pytest.fixture
def lines(monkeypatch):
    """Replaces drawing, and returns a list of panels: axes, and values by label of a run."""
    panels = []

    def record_line(axes, values, label, color):
        if not panels or axes is not panels[-1][0]:
            panels.append((axes, {}))
        panels[-1][1][label] = values

    monkeypatch.setattr(plots, "_plot_line", record_line)
    monkeypatch.setattr(plots.plotting, "write_figure", lambda figure, file: None)
    return panels


def run_figures(strategy, seed, *history):
    agreements = [{name: 0.5 for name in row} for row in history]
    labels = {"strategy": strategy, "seed": seed}
    return {"labels": labels, "history": history, "agreement_history": agreements}


@pytest.mark.filterwarnings("ignore:No artists with labels")
def test_plot_over_time_measures_after_each_task_and_seed(lines, tmp_path):
    results = [
        run_figures("full", 1, {"a": 1.0}, {"a": 0.5, "b": 1.0}),
        run_figures("full", 2, {"a": 0.8}, {"a": 0.8, "b": 0.6}),
        run_figures("joint", 1, {"a": 1.0, "b": 0.5}),
    ]
    plots.plot_over_time(results, tmp_path / "x.png")
    accuracy, forgetting, agreement = (values for _, values in lines)
    np.testing.assert_allclose(accuracy["full"], [[100, 75], [80, 70]])
    np.testing.assert_allclose(accuracy["joint"], [[75]])
    np.testing.assert_allclose(forgetting["full"], [[0, 50], [0, 0]], atol=1e-9)
    np.testing.assert_allclose(agreement["full"], [[50, 50], [50, 50]])
