"""Checkpoints and runs written by earlier versions, read by this one (`tests/museum/write.py` wrote them)."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.special import softmax

import lifelong_cvae as lifelong
from lifelong_cvae.data import hold_out, open_source
from lifelong_cvae.ridge import leave_one_out
from lifelong_cvae.runs import columns
from lifelong_cvae.runs.config import read_run_config
from lifelong_cvae.runs.workdir import load_state
from tests.conftest import one_line, run_quietly

ROOT = Path(__file__).parents[2]
MUSEUM = ROOT / "tests/museum"
SCHEMAS = sorted(folder.name for folder in MUSEUM.iterdir() if folder.name.startswith("schema_"))
# Their closed form had features that are not computed any more.
OLD_FEATURES = ("schema_4", "schema_5")
KINDS = ("neurons", "own_gram", "one_hot")


@pytest.fixture(params=SCHEMAS)
def exhibits(request, tmp_path, monkeypatch):
    """A copy of the exhibits of a schema, with the repository's root as the current folder."""
    monkeypatch.chdir(ROOT)
    return Path(shutil.copytree(MUSEUM / request.param, tmp_path / request.param))


def assert_answers_equal(state, folder, prefix, *, rtol=1e-4):
    """The state answers as the version that wrote it did; until schema 5 but for the closed form."""
    test = np.load(MUSEUM / "digits.npz")["test_images"]
    evidence = lifelong.evidence(state, test)
    if folder.name in OLD_FEATURES:
        by_elbo = lifelong.recognize(lifelong.make_recognizer(state, "elbo"), test)[1]
        np.testing.assert_allclose(by_elbo, softmax(np.float64(evidence), axis=1), rtol=1e-3, atol=1e-5)
        for kind in (None, "closed_form", "combined"):
            with pytest.raises(lifelong.InputError) as error:
                lifelong.make_recognizer(state, kind)
            one_line(error, "features of this version", "use recognizer elbo", "learn from the images again")
    imagined = lifelong.imagine(state, state.names, 2, rng=jax.random.key(5))
    now = {
        "evidence": evidence,
        **({} if folder.name in OLD_FEATURES else {"probabilities": lifelong.recognize(state, test)[1]}),
        **{f"imagined/{name}": images for name, images in imagined.items()},
    }
    with np.load(folder / "expected.npz") as expected:
        names = {name for name in expected.files if name.startswith(f"{prefix}/")}
        assert names - {f"{prefix}/probabilities"} == {f"{prefix}/{name}" for name in now} - {f"{prefix}/probabilities"}
        for name, values in now.items():
            np.testing.assert_allclose(values, expected[f"{prefix}/{name}"], rtol=rtol, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_load_reads_every_schema(exhibits, kind):
    assert_answers_equal(lifelong.load(exhibits / kind), exhibits, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_drop_and_learn_work_with_states_of_every_schema(exhibits, kind):
    state = lifelong.load(exhibits / kind)
    test = np.load(MUSEUM / "digits.npz")["test_images"]
    dropped = lifelong.drop(state, "3")
    np.testing.assert_allclose(lifelong.evidence(dropped, test)[:, 0], lifelong.evidence(state, test)[:, 1], rtol=1e-5)
    grown, _ = lifelong.learn(dropped, {"4": test[40:]}, rng=jax.random.key(0))
    assert grown.names == ("1", "4")


def test_load_state_reads_runs_of_every_schema(exhibits):
    assert_answers_equal(load_state(exhibits / "run"), exhibits, "run")
    assert columns.history_columns(exhibits / "run")["task"] == [1, 2]
    assert set(columns.accuracy_columns(exhibits / "run")["recognizer"]) == {"combined", "elbo"}


def test_run_resumes_a_task_with_the_same_result_or_refuses_old_features(exhibits, monkeypatch):
    workdir = exhibits / "stopped"
    assert list((workdir / "within_task/2").iterdir())
    config = read_run_config(workdir)
    source = hold_out(open_source(config.dataset, config.options), config.validation_fraction)
    if exhibits.name in OLD_FEATURES:
        with pytest.raises(lifelong.InputError) as error:
            run_quietly(workdir, config, source, resume=True)
        one_line(error, "features of this version", "use recognizer elbo")
        return
    # Their version calibrated by a regression without all held-out images.
    monkeypatch.setattr(leave_one_out, "MAX_LEVERAGE", 0.0)
    run_quietly(workdir, config, source, resume=True)
    # The rest of the task is learned here, where most of XLA's optimizations are off: sums round differently.
    assert_answers_equal(load_state(workdir), exhibits, "stopped", rtol=2e-3)
