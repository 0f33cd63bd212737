import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from experiments.studies import cells
from lifelong_cvae.data import SourceOptions
from lifelong_cvae.evaluation import continual, metrics
from lifelong_cvae.runs.config import RunConfig
from tests.conftest import one_line


@pytest.fixture
def plan(small_config):
    return RunConfig(dataset="mnist5k", tasks=(("0",), ("1",), ("2",), ("3",)), config=small_config)


@pytest.fixture
def fake(monkeypatch):
    """Cells that are not learned: their names, as they are run."""
    ran = []

    def run_cell(cell, *_, samples):
        ran.append(cell.name)
        return {"accuracy": 0.5, "seconds": 120.0}

    monkeypatch.setattr(cells, "run_cell", run_cell)
    return ran


def run(grid, folder, source, said=None, samples=20):
    log_fn = (lambda _: None) if said is None else said.append
    return cells.run_cells(grid, folder, source, lambda: None, samples=samples, log_fn=log_fn)


def test_a_cell_that_is_there_is_not_run_again(run_config, tmp_path, fake, mnist5k):
    grid = [cells.Cell(run_config, {"strategy": name, "images": "all"}) for name in ("none", "a/b")]
    first = run(grid[:1], tmp_path, mnist5k)
    said = []
    both = run(grid, tmp_path, mnist5k, said)
    assert fake == ["strategy=none,images=all", "strategy=a_b,images=all"]
    assert both[0] == first[0]
    assert json.loads((tmp_path / "strategy=none,images=all.json").read_text())["accuracy"] == 0.5
    assert said[0] == "1/2  strategy=none,images=all: 50.00 %, 120 s; about 2 minutes left"
    assert said[1:] == [
        "2/2  strategy=a_b,images=all: running",
        "2/2  strategy=a_b,images=all: 50.00 %, 120 s",
    ]


def test_the_judge_is_asked_for_only_where_something_is_run(run_config, tmp_path, fake, mnist5k):
    grid = [cells.Cell(run_config, {"a": 1})]
    run(grid, tmp_path, mnist5k)
    cells.run_cells(grid, tmp_path, mnist5k, None, samples=20, log_fn=lambda _: None)
    assert fake == ["a=1"]


@pytest.mark.parametrize("change", ["settings", "samples", "data"])
def test_the_file_of_another_run_is_told_in_one_line(run_config, tmp_path, fake, mnist5k, change):
    run([cells.Cell(run_config, {"a": 1})], tmp_path, mnist5k)
    config = run_config.config.with_settings({"epochs": 3}) if change == "settings" else run_config.config
    cell = cells.Cell(RunConfig(dataset="mnist5k", tasks=run_config.tasks, config=config), {"a": 1})
    source = dataclasses.replace(mnist5k, fingerprint="x") if change == "data" else mnist5k
    with pytest.raises(lifelong.InputError) as error:
        run([cell], tmp_path, source, samples=21 if change == "samples" else 20)
    one_line(error, "a=1.json", {"settings": "plan", "samples": "samples", "data": "data"}[change])
    assert fake == ["a=1"]


def test_a_cell_does_not_depend_on_where_its_data_lie(run_config, tmp_path, fake, mnist5k):
    run([cells.Cell(run_config, {"a": 1})], tmp_path, mnist5k)
    opened = SourceOptions(tfds_data_dir="/elsewhere")
    moved = RunConfig(dataset="tfds:elsewhere", tasks=run_config.tasks, options=opened, config=run_config.config)
    run([cells.Cell(moved, {"a": 1})], tmp_path, mnist5k)
    assert fake == ["a=1"]
    written = (tmp_path / "a=1.json").read_text()
    assert "mnist5k" not in written
    assert "tfds" not in written


@pytest.mark.slow
def test_a_cell_is_learned_and_measured(small_config, mnist5k, stranger, monkeypatch):
    states = []

    def learn(*arguments, **rng):
        states.append(learn(*arguments, **rng))
        return states[-1]

    monkeypatch.setattr(cells, "learn", learn)
    monkeypatch.setattr(cells, "AGREEMENT_SAMPLES", 80)
    monkeypatch.setattr(metrics, "fitting_capacity", lambda *_, rng: 0.25)
    monkeypatch.setattr(metrics, "density", lambda *_, rng: {"elbo": 1.0})
    run_config = RunConfig(dataset="mnist5k", tasks=(("0",), ("1",)), config=small_config, seed=3)
    figures = cells.run_cell(cells.Cell(run_config, {"a": 1}), mnist5k, stranger, samples=80)
    assert [state.names for state, _ in states] == [("0",), ("0", "1")]
    for (state, _), ours in zip(states, figures["history"], strict=True):
        answers = {name: lifelong.recognize(state, mnist5k.read("test", name))[0] for name in state.names}
        assert ours == pytest.approx({n: (given == n).mean() for n, given in answers.items()}, abs=0.011)
    assert figures["accuracy"] == pytest.approx(np.mean(list(figures["history"][-1].values())))
    assert figures["over_time"] == continual.summary(figures["history"])
    assert figures["generation_over_time"] == continual.summary(figures["agreement_history"])
    assert figures["forgetting_same_candidates"] == 0
    assert [list(row) for row in figures["agreement_history"]] == [["0"], ["0", "1"]]
    assert figures["density"] == {"elbo": 1.0}
    assert figures["novelty"]["not_learned"] > 0.5
    assert figures["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(states[-1][0].params))
    assert figures["imagined"]["fitting_capacity"] == 0.25
    assert json.loads(json.dumps(figures)) == figures


def test_the_floor_is_measured_once_and_kept(mnist5k, tmp_path, monkeypatch):
    asked = itertools.count(1)
    monkeypatch.setattr(cells, "run_floor", lambda *_, samples: {"imagined": {"precision": next(asked)}})
    for _ in range(2):
        kept = cells.floor(tmp_path, mnist5k, lambda: None, "test", samples=10)
        assert kept["imagined"] == {"precision": 1}
    with pytest.raises(lifelong.InputError, match="samples"):
        cells.floor(tmp_path, mnist5k, lambda: None, "test", samples=11)
