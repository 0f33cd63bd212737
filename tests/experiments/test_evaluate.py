"""The launcher `evaluate`."""

import json
import shutil

import jax
import numpy as np
import pytest

from lifelong_cvae.data import open_source
from lifelong_cvae.evaluation.reference_classifier import ClassifierNetwork, ReferenceClassifier, _write, file_name
from tests.conftest import result_of


@pytest.mark.slow
def test_evaluate_uses_the_stored_reference_classifier(launch, learned_run, idx_folder, tmp_path):
    workdir = shutil.copytree(learned_run, tmp_path / "run")
    source = open_source(f"idx:{idx_folder}")
    untrained = ClassifierNetwork(3).init(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    _write(ReferenceClassifier(untrained, source.categories, (28, 28, 1)), tmp_path / file_name(source))
    ended = launch(
        "evaluate", f"--workdir={workdir}", f"--judges={tmp_path}", "--samples=10", f"--unknown=idx:{idx_folder}"
    )
    assert (ended.code, ended.err) == (0, "")
    assert "Fréchet distance" in ended.out
    values = json.loads((workdir / "evaluation.json").read_text("utf-8"))
    assert values["schema"] == 1
    assert values["recognition"]["accuracy"] == result_of(workdir)["accuracy"]
    assert values["recognition"]["recogniser"] == values["recognition"]["recognizer"] == "elbo"
    assert values["density"]["importance_bound"] > values["density"]["elbo"]
    assert set(values["generation"]["samples"].values()) == {5}
    assert set(values["novelty"]) == {"left_out", "not_learned", "other"}
    # The other data set is the same one, and two of its three categories are known.
    expected = (2 * 0.5 + values["novelty"]["not_learned"]) / 3
    assert values["novelty"]["other"] == pytest.approx(expected, abs=0.01)
