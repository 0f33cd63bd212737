import sys

import pytest

from experiments.studies import grids
from lifelong_cvae.errors import MissingExtraError
from lifelong_cvae.runs.evaluate import evaluate_run
from tests.conftest import one_line


def evaluate(folder):
    evaluate_run(folder / "run", folder, samples=100, cycles=0, seed=0)


def compare(folder):
    splits = {"validation_fraction": 0.0, "evaluate_on": "test"}
    grids.compare(folder, "size", "mnist5k", settings={}, seeds=(1,), samples=100, classifiers_dir=folder, **splits)


@pytest.mark.parametrize("evaluation", [evaluate, compare])
def test_evaluation_without_scikit_learn_names_its_extra_before_any_work(evaluation, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError) as error:
        evaluation(tmp_path)
    one_line(error, "scikit-learn", 'the extra "evaluation"')
    assert not list(tmp_path.iterdir())
