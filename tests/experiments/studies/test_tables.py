"""Means and deviations over seeds by hand, and the Markdown they become."""

import math

import pytest

from experiments.studies import tables


def result(seed, strategy="none", **figures):
    return {"labels": {"strategy": strategy, "seed": seed}, **figures}


def table(results, kind="recognition"):
    """The cells of each line."""
    lines = tables.markdown(tables.aggregate_rows(results), kind).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


class TestRows:
    def test_mean_and_sample_deviation_by_hand(self):
        (row,) = tables.aggregate_rows([result(seed, accuracy=value) for seed, value in enumerate((0.5, 0.75, 0.25))])
        assert row["labels"] == {"strategy": "none"}
        assert row["runs"] == 3
        assert row["mean"] == {"accuracy": 0.5}
        # sqrt((0^2 + 0.25^2 + 0.25^2) / (3 - 1)), not over 3
        assert row["deviation"] == {"accuracy": pytest.approx(0.25)}

    def test_one_run_has_no_deviation(self):
        (row,) = tables.aggregate_rows([result(0, accuracy=0.5)])
        assert row["mean"] == {"accuracy": 0.5}
        assert row["deviation"] == {}

    def test_runs_are_one_row_where_all_labels_but_the_seed_agree(self):
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

    def test_dots_go_into_dicts(self):
        figures = {"over_time": {"forgetting": 3.0}, "density": {"elbo": -90.0, "other": 1.0}}
        (row,) = tables.aggregate_rows([result(0, imagined={"density": 0.5}, **figures)])
        assert row["mean"] == {"over_time.forgetting": 3.0, "imagined.density": 0.5, "density.elbo": -90.0}

    @pytest.mark.parametrize("broken", [{}, {"novelty": {}}, {"novelty": {"not_learned": None}}])
    def test_a_figure_that_one_run_of_a_row_lacks_is_missing_from_the_row(self, broken):
        whole = {"accuracy": 0.25, "novelty": {"not_learned": 0.5}}
        (row,) = tables.aggregate_rows([result(0, **whole), result(1, **{"accuracy": 0.75, **broken})])
        assert row["mean"] == {"accuracy": 0.5}
        assert row["deviation"] == {"accuracy": pytest.approx(math.sqrt(2 * 0.25**2))}

    def test_a_figure_of_zero_is_not_missing(self):
        (row,) = tables.aggregate_rows([result(seed, accuracy=0.0) for seed in range(2)])
        assert (row["mean"], row["deviation"]) == ({"accuracy": 0.0}, {"accuracy": 0.0})


class TestIntransigence:
    # When learned: a 0.75, b 0.5. The reference, of one task: a 1, b 0.75 or, with the other seed, 0.5, 0.5.
    HISTORY = ({"a": 0.75}, {"a": 0.25, "b": 0.5})
    JOINT = ({"a": 1.0, "b": 0.75},)
    OTHER_JOINT = ({"a": 0.5, "b": 0.5},)

    def test_is_to_the_joint_learner_of_the_same_seed(self):
        rows = tables.aggregate_rows(
            [
                result(0, history=self.HISTORY),
                result(1, history=self.HISTORY),
                result(1, "joint", history=self.OTHER_JOINT),
                result(0, "joint", history=self.JOINT),
            ]
        )
        none, joint = rows
        # Seed 0: ((1 - 0.75) + (0.75 - 0.5)) / 2 = 25 points; seed 1: ((0.5 - 0.75) + 0) / 2 = -12.5.
        assert none["mean"]["intransigence"] == pytest.approx(6.25)
        assert none["deviation"]["intransigence"] == pytest.approx(math.sqrt(2 * 18.75**2))
        assert joint["mean"]["intransigence"] == 0

    def test_one_seed_without_a_reference_leaves_the_row_without(self):
        results = [result(seed, history=self.HISTORY) for seed in (0, 1)]
        alone, joint = tables.aggregate_rows([*results, result(0, "joint", history=self.JOINT)])
        assert "intransigence" not in alone["mean"]
        assert joint["mean"]["intransigence"] == 0

    def test_there_is_none_without_a_joint_learner_or_a_history(self):
        (row,) = tables.aggregate_rows([result(0, history=self.HISTORY)])
        assert row["mean"] == {}
        rows = tables.aggregate_rows([result(0, "joint", history=self.JOINT), result(0, "real images")])
        assert ["intransigence" in row["mean"] for row in rows] == [True, False]


class TestMarkdown:
    def test_by_hand(self):
        runs = [
            result(0, accuracy=0.5, parameters=1000, novelty={"not_learned": 0.25}),
            result(1, accuracy=0.7, parameters=1000, novelty={"not_learned": 0.75}),
            result(0, "full", accuracy=0.8125, parameters=1234.5678, novelty={"not_learned": 1.0}),
        ]
        # Sample deviations: of 50 and 70, sqrt(200) = 14.14; of 0.25 and 0.75, sqrt(0.125) = 0.354.
        assert tables.markdown(tables.aggregate_rows(runs), "recognition") == (
            "| strategy | accuracy, % | novelty, AUROC | parameters | runs |\n"
            "| --- | --- | --- | --- | --- |\n"
            "| none | 60.00 ± 14.14 | 0.500 ± 0.354 | 1000 | 2 |\n"
            "| full | 81.25 | 1.000 | 1235 | 1 |\n"
        )

    def test_a_missing_figure_leaves_its_cell_empty_and_one_that_all_miss_its_column_out(self):
        found = table([result(0, accuracy=0.5, parameters=12), result(0, "full", parameters=7)])
        assert found[0] == ["strategy", "accuracy, %", "parameters", "runs"]
        assert found[2:] == [["none", "50.00", "12", "1"], ["full", "", "7", "1"]]

    def test_a_row_without_any_figure_of_the_kind_is_left_out_with_its_labels(self):
        runs = [result(0, accuracy=0.5), {"labels": {"of": "floor"}, "imagined": {"coverage": 0.5}}]
        assert table(runs)[0] == ["strategy", "accuracy, %", "runs"]
        assert table(runs)[2:] == [["none", "50.00", "1"]]
        assert table(runs, "generation")[0] == ["of", "coverage", "runs"]
        assert table(runs, "generation")[2:] == [["floor", "0.500", "1"]]

    def test_a_label_that_only_some_rows_have_leaves_cells_empty(self):
        runs = [
            {"labels": {"strategy": "none", "turns": 3, "seed": 0}, "accuracy": 0.5},
            {"labels": {"strategy": "full"}, "accuracy": 0.25},
        ]
        found = table(runs)
        assert found[0] == ["strategy", "turns", "accuracy, %", "runs"]
        assert found[2:] == [["none", "3", "50.00", "1"], ["full", "", "25.00", "1"]]

    def test_points_are_not_scaled_and_a_negative_mean_has_a_positive_deviation(self):
        runs = [result(seed, over_time={"backward_transfer": points}) for seed, points in enumerate((-3, -7))]
        # sqrt(2^2 + 2^2)
        assert table(runs)[2][1] == "-5.00 ± 2.83"

    @pytest.mark.parametrize("kind", tables.COLUMNS)
    def test_every_column_has_its_own_figure(self, kind):
        headings, values = [], []
        results = [result(0)]
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
        found = table(results, kind)
        assert found[0] == ["strategy", *headings, "runs"]
        assert [float(cell) for cell in found[2][1:-1]] == values
