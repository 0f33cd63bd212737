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


@pytest.mark.parametrize("start", [evaluate, compare])
def test_without_scikit_learn_one_line_names_the_extra_before_anything_is_done(start, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError) as error:
        start(tmp_path)
    one_line(error, "scikit-learn", 'the extra "evaluation"')
    assert not list(tmp_path.iterdir())
