import itertools
import json
from dataclasses import replace

import pytest

import lifelong_cvae as lifelong
from experiments.studies import cells, grids
from lifelong_cvae.presets import preset
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.state import parameters_per_category
from tests.conftest import one_line

ORDER = tuple("3104")


@pytest.fixture
def run_config(small_config):
    return RunConfig(dataset="mnist5k", tasks=tuple((name,) for name in ORDER), config=small_config)


@pytest.mark.parametrize("mode", ["frozen", "none"])
def test_fit_size_is_the_largest_that_fits(small_config, rng, mode):
    config = grids.fit_size(small_config.with_settings({"mixed_mode": mode}), (28, 28), 20_000)

    def parameters(config):
        return parameters_per_category(lifelong.init(config, (28, 28), rng=rng))

    width = config.network.category_widths[0] + 1
    rank = round(grids.RANK_OF_WIDTH[mode] * width)
    wider = config.with_settings({"category_widths": (width,), "output_rank": rank})
    assert parameters(config) <= 20_000 < parameters(wider)


@pytest.mark.parametrize("study", [grids.size_study, lambda *p: grids.few_images_study(*p[:2])])
def test_few_images_studies_limit_categories_after_the_third(run_config, mnist5k, study, monkeypatch):
    monkeypatch.setattr(grids, "SIZES", (50_000, 100_000))
    grid = study(run_config, "frozen", (28, 28, 1))
    assert len({cell.name for cell in grid}) == len(grid)
    for cell in grid:
        counts = cell.run_config.subsample(mnist5k).counts["train"]
        few = cell.labels["images a new category"]
        assert [counts[name] for name in ORDER] == [400, 400, 400, 400 if few == "all" else min(few, 400)]


def test_strategies_study_gives_joint_all_categories_at_once(run_config):
    (frozen,) = grids.strategies_study(run_config, "frozen")
    assert frozen.run_config == run_config
    assert frozen.labels == {"strategy": "frozen", "categories a task": 1}
    (joint,) = grids.strategies_study(run_config, "joint")
    assert joint.run_config.tasks == (ORDER,)
    assert joint.labels["categories a task"] == "all"


def test_circle_study_changes_one_setting_per_cell(run_config):
    grid = {cell.labels["changed"]: cell.run_config.config.learning for cell in grids.circle_study(run_config, "full")}
    base = run_config.config.learning
    for label, learning in grid.items():
        if label.endswith("turns"):
            assert learning == replace(base, cycles=int(label.split()[0]))
        else:
            assert learning == replace(base, **{f"{label.removeprefix('without ')}_weight": 0.0})
    assert len(grid) == 10


def test_memory_study_changes_the_mixed_part_and_the_images(run_config, mnist5k):
    for images, counts in ((100, {100}), ("all", {400})):
        grid = grids.memory_study(run_config, "default", images)
        assert [cell.run_config.config.learning.mixed_mode for cell in grid] == ["frozen", "playback"]
        for cell in grid:
            assert cell.labels["images a category"] == images
            assert {cell.run_config.subsample(mnist5k).counts["train"][name] for name in ORDER} == counts


def test_strategies_differ_in_the_settings_of_their_names():
    static = [preset(name) for name in ("joint", "finetune", "playback", "circulatory")]
    assert {config.network for config in static} == {static[0].network}
    assert static[0].network.growth == "one_hot"
    joint, finetune, playback, circulatory = (config.learning for config in static)
    assert joint.mixed_mode == finetune.mixed_mode == "free"
    assert playback.replay_weights == {"playback": 1.0}
    assert playback.cycles == 0 < circulatory.cycles
    assert set(circulatory.replay_weights) == {"playback", "generate", "recognize", "circulate"}
    growing = {name: preset(name) for name in ("free", "frozen", "full", "none")}
    modes = {"free": "free", "frozen": "frozen", "full": "playback", "none": "none"}
    for name, mode in modes.items():
        measured_learning = replace(
            lifelong.Config().learning, epochs=20, learning_rate=1.5e-3, full_rate_steps=1, adam_b2=0.999
        )
        assert replace(growing[name].learning, mixed_mode="frozen") == measured_learning
        assert growing[name].learning.mixed_mode == mode
    assert len({growing[name].network for name in ("free", "frozen", "full")}) == 1


def test_preset_none_has_as_many_parameters_per_category_as_full(rng):
    counts = [parameters_per_category(lifelong.init(preset(name), (28, 28), rng=rng)) for name in ("none", "full")]
    assert counts[0] == pytest.approx(counts[1], rel=0.01)


@pytest.fixture
def cells_run(monkeypatch):
    """Replaces `run_cell` by constant figures, and returns the list that takes its cells."""
    run = []

    def run_cell(cell, *_, samples):
        run.append(cell)
        history = [{"0": 1.0}, {"0": 0.5, "1": 1.0}][-len(cell.run_config.tasks) :]
        return {
            "accuracy": 0.25 * cell.run_config.seed,
            "seconds": 1.0,
            "history": history,
            "agreement_history": history,
            "imagined": {"frechet_distance": 2.0},
        }

    monkeypatch.setattr(cells, "run_cell", run_cell)
    monkeypatch.setattr(cells, "run_floor", lambda *_, samples: {"imagined": {"frechet_distance": 1.0}})
    monkeypatch.setattr(grids, "load_or_train", lambda *_: None)
    return run


def run_comparison(folder, **changes):
    arguments = {
        "settings": {"epochs": 7},
        "seeds": (1, 2),
        "validation_fraction": 0.0,
        "evaluate_on": "test",
        "samples": 20,
        "classifiers_dir": folder,
        "log_fn": lambda _: None,
    }
    return grids.compare(folder, "strategies", "mnist5k", **{**arguments, **changes})


def test_compare_runs_every_strategy_in_every_order(cells_run, tmp_path):
    text = run_comparison(tmp_path)
    assert len(cells_run) == 2 * len(grids.STRATEGIES)
    by_seed = {seed: {c.run_config.tasks for c in cells_run if c.run_config.seed == seed} for seed in (1, 2)}
    for orders in by_seed.values():
        joint, single = sorted(orders, key=len)
        assert tuple(itertools.chain(*single)) == joint[0]
    assert by_seed[1] != by_seed[2]
    assert all(cell.run_config.config.learning.epochs == 7 for cell in cells_run)
    assert (tmp_path / "comparison.md").read_text() == text
    assert "| full | 1 | 37.50 ± 17.68 |" in text
    assert "| real images |" in text
    rows = json.loads((tmp_path / "comparison.json").read_text())["rows"]
    assert [row["labels"]["strategy"] for row in rows] == [*grids.STRATEGIES, "real images"]
    assert (tmp_path / "over_time.png").stat().st_size > 1000


def test_compare_packs_figures_and_resumes(cells_run, tmp_path):
    run_comparison(tmp_path, strategies=["full"], seeds=(1,), draw=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cells.json", "comparison.json", "comparison.md"]
    run_comparison(tmp_path, strategies=["full", "playback"], seeds=(1,), draw=False)
    assert [cell.labels["strategy"] for cell in cells_run] == ["full", "playback"]
    packed = json.loads((tmp_path / "cells.json").read_text())
    assert [cell["labels"]["strategy"] for cell in packed["cells"]] == ["full", "playback"]
    assert packed["floor"]["imagined"] == {"frechet_distance": 1.0}


def test_compare_runs_given_strategies_with_two_categories_per_task(cells_run, tmp_path):
    run_comparison(tmp_path, strategies=["full", "playback"], categories_per_task=2, seeds=(1,), draw=False)
    assert [cell.labels["strategy"] for cell in cells_run] == ["full", "playback"]
    assert {len(cell.run_config.tasks) for cell in cells_run} == {5}
    assert not (tmp_path / "over_time.png").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": ()}, ["seeds: expected at least one, got none"]),
        ({"strategies": ["best"]}, ["unknown preset", "'best'"]),
        ({"settings": {"epoch": 1}}, ["unknown setting: expected one of", "got 'epoch'"]),
        ({"evaluate_on": "validation"}, ["validation_fraction"]),
    ],
)
def test_compare_refuses_bad_input_before_writing(cells_run, tmp_path, changes, words):
    folder = tmp_path / "new"
    with pytest.raises(lifelong.InputError) as error:
        run_comparison(folder, **changes)
    one_line(error, *words)
    assert not folder.exists()
