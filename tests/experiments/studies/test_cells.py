import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from experiments.studies import cells, store
from lifelong_cvae.data import SourceOptions
from lifelong_cvae.evaluation import continual, metrics
from lifelong_cvae.evaluation.reference_classifier import ReferenceClassifier
from lifelong_cvae.runs.config import RunConfig
from tests.conftest import one_line


@pytest.fixture
def run_config(small_config):
    return RunConfig(dataset="mnist5k", tasks=(("0",), ("1",), ("2",), ("3",)), config=small_config)


@pytest.fixture
def run_names(monkeypatch):
    """Replaces `run_cell` by constant figures, and returns the list that takes the names of its cells."""
    names = []

    def run_cell(cell, *_, samples):
        names.append(cell.name)
        return {"accuracy": 0.5, "seconds": 120.0}

    monkeypatch.setattr(cells, "run_cell", run_cell)
    return names


def run(grid, folder, source, *, samples=20, log_fn=lambda _: None):
    return cells.run_cells(grid, folder, source, lambda: None, samples=samples, log_fn=log_fn)


def test_run_cells_skips_finished_cells(run_config, tmp_path, run_names, mnist5k):
    grid = [cells.Cell(run_config, {"strategy": name, "images": "all"}) for name in ("none", "a/b")]
    first = run(grid[:1], tmp_path, mnist5k)
    lines = []
    both = run(grid, tmp_path, mnist5k, log_fn=lines.append)
    assert run_names == ["strategy=none,images=all", "strategy=a_b,images=all"]
    assert both[0] == first[0]
    assert json.loads((tmp_path / "strategy=none,images=all.json").read_text())["accuracy"] == 0.5
    assert lines[0] == "1/2  strategy=none,images=all: 50.00 %, 120 s; about 2 minutes left"
    assert lines[1:] == ["2/2  strategy=a_b,images=all: running", "2/2  strategy=a_b,images=all: 50.00 %, 120 s"]


def test_run_cells_reads_packed_figures(run_config, tmp_path, run_names, mnist5k):
    grid = [cells.Cell(run_config, {"strategy": name}) for name in ("none", "full")]
    first = run(grid[:1], tmp_path, mnist5k)
    store.pack(tmp_path)
    both = run(grid, tmp_path, mnist5k)
    assert run_names == ["strategy=none", "strategy=full"]
    assert both[0] == first[0]
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["cells.json", "strategy=full.json"]


def test_run_cells_calls_classifier_only_to_run(run_config, tmp_path, run_names, mnist5k):
    grid = [cells.Cell(run_config, {"a": 1})]
    run(grid, tmp_path, mnist5k)
    cells.run_cells(grid, tmp_path, mnist5k, None, samples=20, log_fn=lambda _: None)
    assert run_names == ["a=1"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("change", ["settings", "samples", "data"])
def test_run_cells_refuses_figures_of_another_run(run_config, tmp_path, run_names, mnist5k, change, packed):
    run([cells.Cell(run_config, {"a": 1})], tmp_path, mnist5k)
    if packed:
        store.pack(tmp_path)
    config = run_config.config.with_settings({"epochs": 3}) if change == "settings" else run_config.config
    cell = cells.Cell(RunConfig(dataset="mnist5k", tasks=run_config.tasks, config=config), {"a": 1})
    source = dataclasses.replace(mnist5k, fingerprint="x") if change == "data" else mnist5k
    with pytest.raises(lifelong.InputError) as error:
        run([cell], tmp_path, source, samples=21 if change == "samples" else 20)
    key = {"settings": "plan", "samples": "samples", "data": "data"}[change]
    one_line(error, tmp_path, "run a=1: expected figures of the same", key)
    assert run_names == ["a=1"]


def test_run_cells_recognizes_old_names(run_config, tmp_path, run_names, mnist5k):
    cell = cells.Cell(run_config, {"changed": "without recognize", "seed": 1})
    run([cell], tmp_path, mnist5k)
    file = tmp_path / "changed=without_recognize,seed=1.json"
    recorded = json.loads(file.read_text())
    recorded["labels"]["changed"] = "without recognise"
    network, recognition = (recorded["plan"]["config"][section] for section in ("network", "recognition"))
    network["rank"] = network.pop("output_rank")
    network["growth"] = network.pop("conditioning")
    recognition["recogniser"] = recognition.pop("recognizer")
    file.with_name("changed=without_recognise,seed=1.json").write_text(json.dumps(recorded))
    file.unlink()
    (figures,) = run([cell], tmp_path, mnist5k)
    assert run_names == [cell.name]
    assert figures["labels"] == cell.labels
    network["rank"] += 1
    file.write_text(json.dumps(recorded))
    with pytest.raises(lifelong.InputError, match="plan"):
        run([cell], tmp_path, mnist5k)


def test_identity_ignores_location_of_data(run_config, tmp_path, run_names, mnist5k):
    run([cells.Cell(run_config, {"a": 1})], tmp_path, mnist5k)
    options = SourceOptions(tfds_data_dir="/elsewhere")
    moved = RunConfig(dataset="tfds:elsewhere", tasks=run_config.tasks, options=options, config=run_config.config)
    run([cells.Cell(moved, {"a": 1})], tmp_path, mnist5k)
    assert run_names == ["a=1"]
    written = (tmp_path / "a=1.json").read_text()
    assert "mnist5k" not in written
    assert "tfds" not in written


@pytest.mark.slow
def test_run_cell_learns_and_measures(small_config, mnist5k, stranger, monkeypatch):
    states = []
    learn = cells.learn

    def record_learn(*arguments, **rng):
        states.append(learn(*arguments, **rng))
        return states[-1]

    monkeypatch.setattr(cells, "learn", record_learn)
    monkeypatch.setattr(cells, "AGREEMENT_SAMPLES", 80)
    monkeypatch.setattr(ReferenceClassifier, "fitting_capacity", lambda *_, rng: 0.25)
    monkeypatch.setattr(metrics, "density", lambda *_, rng: {"elbo": 1.0})
    run_config = RunConfig(dataset="mnist5k", tasks=(("0",), ("1",)), config=small_config, seed=3)
    figures = cells.run_cell(cells.Cell(run_config, {"a": 1}), mnist5k, stranger, samples=80)
    assert [state.names for state, _ in states] == [("0",), ("0", "1")]
    for (state, _), accuracies in zip(states, figures["history"], strict=True):
        answers = {name: lifelong.recognize(state, mnist5k.read("test", name))[0] for name in state.names}
        assert accuracies == pytest.approx({n: (names == n).mean() for n, names in answers.items()}, abs=0.011)
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


def test_floor_is_measured_once(mnist5k, tmp_path, monkeypatch):
    calls = itertools.count(1)
    monkeypatch.setattr(cells, "run_floor", lambda *_, samples: {"imagined": {"precision": next(calls)}})
    for _ in range(3):
        figures = cells.floor(tmp_path, mnist5k, lambda: None, "test", samples=10)
        assert figures["imagined"] == {"precision": 1}
        store.pack(tmp_path)
    with pytest.raises(lifelong.InputError, match="samples"):
        cells.floor(tmp_path, mnist5k, lambda: None, "test", samples=11)
