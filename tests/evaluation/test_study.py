import json

import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import comparison, growth
from lifelong_cvae.evaluation import study
from lifelong_cvae.plan import Plan


@pytest.fixture
def plan(small_config):
    return Plan(dataset="mnist5k", tasks=(("0",), ("1",), ("2",), ("3",)), config=small_config)


def figures(accuracy, **labels):
    return {
        "labels": labels,
        "accuracy": accuracy,
        "frechet_distance": 10 * accuracy,
        "agreement": accuracy,
        "importance_bound": 100.0,
        "parameters_per_category": 7,
    }


def test_the_table_has_means_and_sample_deviations_over_orders():
    rows = [("none", 0.5, 1), ("frozen", 0.8, 1), ("none", 0.7, 2)]
    results = [figures(value, **{"mixed part": mode, "order seed": seed}) for mode, value, seed in rows]
    lines = study.table(results).splitlines()
    assert lines[0].startswith("| mixed part | accuracy, % |")
    assert len(lines) == 4
    # The sample standard deviation of 50 and 70 is 14.14.
    assert lines[2] == "| none | 60.00 ± 14.14 | 6.0 ± 1.4 | 60.0 ± 14.1 | 100 | 7 | 2 |"
    assert lines[3] == "| frozen | 80.00 | 8.0 | 80.0 | 100 | 7 | 1 |"


def test_a_cell_that_is_there_is_not_run_again(plan, tmp_path, monkeypatch):
    ran = []

    def run_cell(cell, *_, samples):
        ran.append(cell.name)
        return figures(0.5, **cell.labels)

    monkeypatch.setattr(study, "run_cell", run_cell)
    cells = [study.Cell(plan, {"mixed part": mode, "images": "all"}) for mode in ("none", "a/b")]
    first = study.run_cells(cells[:1], tmp_path, None, None, samples=1, say=ran.append)
    both = study.run_cells(cells, tmp_path, None, None, samples=1, say=lambda _: None)
    name = "mixed_part=none_images=all"
    assert ran == [name, f"1/1  {name}  50.00 %", "mixed_part=a_b_images=all"]
    assert both[0] == first[0]
    assert json.loads((tmp_path / f"{name}.json").read_text())["accuracy"] == 0.5


@pytest.mark.parametrize("mode", ["frozen", "none"])
def test_sizes_are_the_largest_that_fit(small_config, rng, mode):
    config = comparison.sized(small_config.with_settings({"mixed_mode": mode}), (28, 28), 20_000)

    def parameters(config):
        return growth.parameters_per_category(lifelong.init(config, (28, 28), rng=rng))

    width = config.network.category_widths[0] + 1
    rank = round(comparison.RANK_OF_WIDTH[mode] * width)
    wider = config.with_settings({"category_widths": (width,), "rank": rank})
    assert parameters(config) <= 20_000 < parameters(wider)


def test_the_size_study_varies_size_mixed_part_and_number_of_images(plan, mnist5k):
    cells = comparison.size_study(plan, (28, 28, 1))
    assert len({cell.name for cell in cells}) == len(cells) == 4 * len(comparison.SIZES)
    few = [cell.plan for cell in cells if cell.labels["images"] == 100]
    assert len(few) == len(cells) // 2
    for chosen in few:
        counts = chosen.narrowed(mnist5k).counts["train"]
        assert [counts[name] for name in "0123"] == [400, 400, 400, 100]


def test_a_cell_is_learned_and_measured(plan, mnist5k, monkeypatch):
    monkeypatch.setattr(
        study.measures, "generated", lambda *_, samples, rng: {"frechet_distance": 1.0, "agreement": 0.5}
    )
    cell = study.Cell(plan, {"a": 1})
    values = study.run_cell(cell, mnist5k, None, samples=2)
    assert 0.3 < values["accuracy"] <= 1
    assert values["importance_bound"] > values["elbo"]
    assert values["labels"] == {"a": 1}
