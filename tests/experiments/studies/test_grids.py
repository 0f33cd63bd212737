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
def plan(small_config):
    return RunConfig(dataset="mnist5k", tasks=tuple((name,) for name in ORDER), config=small_config)


@pytest.mark.parametrize("mode", ["frozen", "none"])
def test_sizes_are_the_largest_that_fit(small_config, rng, mode):
    config = grids.fit_size(small_config.with_settings({"mixed_mode": mode}), (28, 28), 20_000)

    def parameters(config):
        return parameters_per_category(lifelong.init(config, (28, 28), rng=rng))

    width = config.network.category_widths[0] + 1
    rank = round(grids.RANK_OF_WIDTH[mode] * width)
    wider = config.with_settings({"category_widths": (width,), "output_rank": rank})
    assert parameters(config) <= 20_000 < parameters(wider)


@pytest.mark.parametrize("study", [grids.size_study, lambda *p: grids.few_images_study(*p[:2])])
def test_few_images_are_those_of_categories_after_the_third(run_config, mnist5k, study, monkeypatch):
    monkeypatch.setattr(grids, "SIZES", (50_000, 100_000))
    grid = study(run_config, "frozen", (28, 28, 1))
    assert len({cell.name for cell in grid}) == len(grid)
    for cell in grid:
        counts = cell.run_config.subsample(mnist5k).counts["train"]
        few = cell.labels["images a new category"]
        assert [counts[name] for name in ORDER] == [400, 400, 400, 400 if few == "all" else min(few, 400)]


def test_strategies_are_presets_and_joint_meets_all_categories_at_once(run_config):
    (alone,) = grids.strategies_study(run_config, "frozen")
    assert alone.run_config == run_config
    assert alone.labels == {"strategy": "frozen", "categories a task": 1}
    (joint,) = grids.strategies_study(run_config, "joint")
    assert joint.run_config.tasks == (ORDER,)
    assert joint.labels["categories a task"] == "all"


def test_the_circle_study_changes_one_thing_at_a_time(run_config):
    grid = {cell.labels["changed"]: cell.run_config.config.learning for cell in grids.circle_study(run_config, "full")}
    base = run_config.config.learning
    for label, learning in grid.items():
        if label.endswith("turns"):
            assert learning == replace(base, cycles=int(label.split()[0]))
        else:
            assert learning == replace(base, **{f"{label.removeprefix('without ')}_weight": 0.0})
    assert len(grid) == 10


def test_strategies_differ_in_what_they_are_named_for():
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
        as_measured = replace(lifelong.Config().learning, learning_rate=1.5e-3)
        assert replace(growing[name].learning, mixed_mode="frozen") == as_measured
        assert growing[name].learning.mixed_mode == mode
    assert len({growing[name].network for name in ("free", "frozen", "full")}) == 1


def test_without_a_mixed_part_a_category_has_as_many_parameters(rng):
    counts = [parameters_per_category(lifelong.init(preset(name), (28, 28), rng=rng)) for name in ("none", "full")]
    assert counts[0] == pytest.approx(counts[1], rel=0.01)


@pytest.fixture
def fake(monkeypatch):
    """Cells that are not learned: what they were."""
    ran = []

    def run_cell(cell, *_, samples):
        ran.append(cell)
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
    return ran


def compared(folder, **changes):
    arguments = {
        "settings": {"epochs": 7},
        "seeds": (1, 2),
        "validation_fraction": 0.0,
        "evaluate_on": "test",
        "samples": 20,
        "judges": folder,
        "log_fn": lambda _: None,
    }
    return grids.compare(folder, "strategies", "mnist5k", **{**arguments, **changes})


def test_a_comparison_runs_every_strategy_in_every_order_and_tabulates(fake, tmp_path):
    text = compared(tmp_path)
    assert len(fake) == 2 * len(grids.STRATEGIES)
    by_seed = {seed: {c.run_config.tasks for c in fake if c.run_config.seed == seed} for seed in (1, 2)}
    for orders in by_seed.values():
        joint, single = sorted(orders, key=len)
        assert tuple(itertools.chain(*single)) == joint[0]
    assert by_seed[1] != by_seed[2]
    assert all(cell.run_config.config.learning.epochs == 7 for cell in fake)
    assert (tmp_path / "comparison.md").read_text() == text
    assert "| full | 1 | 37.50 ± 17.68 |" in text
    assert "| real images |" in text
    rows = json.loads((tmp_path / "comparison.json").read_text())["rows"]
    assert [row["labels"]["strategy"] for row in rows] == [*grids.STRATEGIES, "real images"]
    assert (tmp_path / "over_time.png").stat().st_size > 1000


def test_chosen_strategies_two_categories_a_task(fake, tmp_path):
    compared(tmp_path, strategies=["full", "playback"], categories_per_task=2, seeds=(1,), draw=False)
    assert [cell.labels["strategy"] for cell in fake] == ["full", "playback"]
    assert {len(cell.run_config.tasks) for cell in fake} == {5}
    assert not (tmp_path / "over_time.png").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": ()}, ["seeds", "at least one"]),
        ({"strategies": ["best"]}, ["unknown preset 'best'"]),
        ({"settings": {"epoch": 1}}, ["unknown setting 'epoch'"]),
        ({"evaluate_on": "validation"}, ["validation_fraction"]),
    ],
)
def test_bad_input_is_told_in_one_line_before_anything_is_written(fake, tmp_path, changes, words):
    folder = tmp_path / "new"
    with pytest.raises(lifelong.InputError) as error:
        compared(folder, **changes)
    one_line(error, *words)
    assert not folder.exists()
