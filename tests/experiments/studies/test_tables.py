"""Means and deviations over seeds computed by hand, and their Markdown tables."""

import math

import pytest

from experiments.studies import tables


def run_figures(seed, strategy="none", **figures):
    return {"labels": {"strategy": strategy, "seed": seed}, **figures}


def table_cells(results, kind="recognition"):
    """Returns the cells of each line of a table."""
    lines = tables.markdown(tables.aggregate_rows(results), kind).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


class TestAggregateRows:
    def test_mean_and_sample_deviation(self):
        (row,) = tables.aggregate_rows(
            [run_figures(seed, accuracy=value) for seed, value in enumerate((0.5, 0.75, 0.25))]
        )
        assert row["labels"] == {"strategy": "none"}
        assert row["runs"] == 3
        assert row["mean"] == {"accuracy": 0.5}
        # sqrt((0^2 + 0.25^2 + 0.25^2) / (3 - 1)), not over 3
        assert row["deviation"] == {"accuracy": pytest.approx(0.25)}

    def test_one_run_has_no_deviation(self):
        (row,) = tables.aggregate_rows([run_figures(0, accuracy=0.5)])
        assert row["mean"] == {"accuracy": 0.5}
        assert row["deviation"] == {}

    def test_one_row_per_combination_of_labels_except_seed(self):
        labels = [("none", 10, 0), ("full", 10, 0), ("none", 10, 1), ("none", "all", 0)]
        rows = tables.aggregate_rows(
            [
                {"labels": {"strategy": strategy, "images": images, "seed": seed}, "accuracy": 0.5 + seed}
                for strategy, images, seed in labels
            ]
        )
        assert [(row["labels"]["strategy"], row["labels"]["images"]) for row in rows] == [
            ("none", 10),
            ("full", 10),
            ("none", "all"),
        ]
        assert [row["runs"] for row in rows] == [2, 1, 1]
        assert [row["mean"]["accuracy"] for row in rows] == [1.0, 0.5, 0.5]

    def test_dots_separate_keys_of_nested_dicts(self):
        figures = {"over_time": {"forgetting": 3.0}, "density": {"elbo": -90.0, "other": 1.0}}
        (row,) = tables.aggregate_rows([run_figures(0, imagined={"density": 0.5}, **figures)])
        assert row["mean"] == {"over_time.forgetting": 3.0, "imagined.density": 0.5, "density.elbo": -90.0}

    @pytest.mark.parametrize("broken", [{}, {"novelty": {}}, {"novelty": {"not_learned": None}}])
    def test_figure_that_one_run_lacks_is_left_out(self, broken):
        complete = {"accuracy": 0.25, "novelty": {"not_learned": 0.5}}
        (row,) = tables.aggregate_rows([run_figures(0, **complete), run_figures(1, **{"accuracy": 0.75, **broken})])
        assert row["mean"] == {"accuracy": 0.5}
        assert row["deviation"] == {"accuracy": pytest.approx(math.sqrt(2 * 0.25**2))}

    def test_zero_is_a_figure(self):
        (row,) = tables.aggregate_rows([run_figures(seed, accuracy=0.0) for seed in range(2)])
        assert (row["mean"], row["deviation"]) == ({"accuracy": 0.0}, {"accuracy": 0.0})


class TestIntransigence:
    # Accuracy after its own task: a 0.75, b 0.5. Reference in one task: a 1, b 0.75; with the other seed 0.5, 0.5.
    HISTORY = ({"a": 0.75}, {"a": 0.25, "b": 0.5})
    JOINT = ({"a": 1.0, "b": 0.75},)
    OTHER_JOINT = ({"a": 0.5, "b": 0.5},)

    def test_reference_is_joint_with_the_same_seed(self):
        rows = tables.aggregate_rows(
            [
                run_figures(0, history=self.HISTORY),
                run_figures(1, history=self.HISTORY),
                run_figures(1, "joint", history=self.OTHER_JOINT),
                run_figures(0, "joint", history=self.JOINT),
            ]
        )
        none, joint = rows
        # Seed 0: ((1 - 0.75) + (0.75 - 0.5)) / 2 = 25 points; seed 1: ((0.5 - 0.75) + 0) / 2 = -12.5.
        assert none["mean"]["intransigence"] == pytest.approx(6.25)
        assert none["deviation"]["intransigence"] == pytest.approx(math.sqrt(2 * 18.75**2))
        assert joint["mean"]["intransigence"] == 0

    def test_left_out_if_one_seed_has_no_reference(self):
        results = [run_figures(seed, history=self.HISTORY) for seed in (0, 1)]
        none, joint = tables.aggregate_rows([*results, run_figures(0, "joint", history=self.JOINT)])
        assert "intransigence" not in none["mean"]
        assert joint["mean"]["intransigence"] == 0

    def test_left_out_without_joint_or_history(self):
        (row,) = tables.aggregate_rows([run_figures(0, history=self.HISTORY)])
        assert row["mean"] == {}
        rows = tables.aggregate_rows([run_figures(0, "joint", history=self.JOINT), run_figures(0, "real images")])
        assert ["intransigence" in row["mean"] for row in rows] == [True, False]


class TestMarkdown:
    def test_whole_table(self):
        runs = [
            run_figures(0, accuracy=0.5, parameters=1000, novelty={"not_learned": 0.25}),
            run_figures(1, accuracy=0.7, parameters=1000, novelty={"not_learned": 0.75}),
            run_figures(0, "full", accuracy=0.8125, parameters=1234.5678, novelty={"not_learned": 1.0}),
        ]
        # Sample deviations: of 50 and 70, sqrt(200) = 14.14; of 0.25 and 0.75, sqrt(0.125) = 0.354.
        assert tables.markdown(tables.aggregate_rows(runs), "recognition") == (
            "| strategy | accuracy, % | unknown categories, AUROC | parameters | runs |\n"
            "| --- | --- | --- | --- | --- |\n"
            "| none | 60.00 ± 14.14 | 0.500 ± 0.354 | 1000 | 2 |\n"
            "| full | 81.25 | 1.000 | 1235 | 1 |\n"
        )

    def test_missing_figure_is_an_empty_cell_or_no_column(self):
        cells = table_cells([run_figures(0, accuracy=0.5, parameters=12), run_figures(0, "full", parameters=7)])
        assert cells[0] == ["strategy", "accuracy, %", "parameters", "runs"]
        assert cells[2:] == [["none", "50.00", "12", "1"], ["full", "", "7", "1"]]

    def test_row_without_figures_of_the_kind_is_left_out(self):
        runs = [run_figures(0, accuracy=0.5), {"labels": {"of": "floor"}, "imagined": {"coverage": 0.5}}]
        assert table_cells(runs)[0] == ["strategy", "accuracy, %", "runs"]
        assert table_cells(runs)[2:] == [["none", "50.00", "1"]]
        assert table_cells(runs, "generation")[0] == ["of", "coverage", "runs"]
        assert table_cells(runs, "generation")[2:] == [["floor", "0.500", "1"]]

    def test_missing_label_is_an_empty_cell(self):
        runs = [
            {"labels": {"strategy": "none", "turns": 3, "seed": 0}, "accuracy": 0.5},
            {"labels": {"strategy": "full"}, "accuracy": 0.25},
        ]
        cells = table_cells(runs)
        assert cells[0] == ["strategy", "turns", "accuracy, %", "runs"]
        assert cells[2:] == [["none", "3", "50.00", "1"], ["full", "", "25.00", "1"]]

    def test_points_are_not_scaled(self):
        runs = [run_figures(seed, over_time={"backward_transfer": points}) for seed, points in enumerate((-3, -7))]
        # sqrt(2^2 + 2^2)
        assert table_cells(runs)[2][1] == "-5.00 ± 2.83"

    @pytest.mark.parametrize("kind", tables.COLUMNS)
    def test_every_column_shows_its_figure(self, kind):
        headings, values = [], []
        results = [run_figures(0)]
        for index, column in enumerate(tables.COLUMNS[kind], start=1):
            if column.key == "intransigence":
                continue
            figures = results[0]
            *folders, key = column.key.split(".")
            for folder in folders:
                figures = figures.setdefault(folder, {})
            figures[key] = index / column.factor
            headings.append(column.heading)
            values.append(float(index))
        cells = table_cells(results, kind)
        assert cells[0] == ["strategy", *headings, "runs"]
        assert [float(cell) for cell in cells[2][1:-1]] == values
