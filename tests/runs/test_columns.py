"""Columns for pandas and scikit-learn, compared with the library and with the files of a run."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

import lifelong_cvae as lifelong
from lifelong_cvae.errors import InputError
from lifelong_cvae.files import with_digest, write_json
from lifelong_cvae.recognition import ridge_classifier
from lifelong_cvae.runs import columns
from lifelong_cvae.runs.workdir import load_state
from tests.conftest import lines_of, one_line


def test_prediction_columns_equal_the_library(playback_run, digits):
    state = load_state(playback_run)
    images = np.concatenate([digits["1"][:5], digits["8"][:4]])
    frame = pd.DataFrame(columns.prediction_columns(state, images))
    names, probabilities = lifelong.recognize(state, images)
    evidence = np.asarray(lifelong.evidence(state, images))
    assert list(frame.columns) == ["index", "category", "probability", "log_evidence", "unknown"]
    assert frame["index"].tolist() == list(range(9))
    assert frame["category"].tolist() == names.tolist()
    np.testing.assert_allclose(frame["probability"], probabilities.max(axis=1), rtol=1e-6)
    indices = [state.names.index(name) for name in names]
    np.testing.assert_allclose(frame["log_evidence"], evidence[np.arange(9), indices], rtol=1e-6)
    recognizer = lifelong.make_recognizer(state)
    scores = ridge_classifier.scores(recognizer.classifier, images)
    expected = lifelong.unknown(recognizer, evidence, names, scores=scores)
    assert frame["unknown"].tolist() == expected.tolist()
    assert frame["unknown"].dtype == bool


def test_prediction_columns_take_a_recognizer_and_a_rejection_rate(learner, digits):
    predictions = columns.prediction_columns(learner, digits["7"][:20], recognizer="elbo", reject=0)
    assert not predictions["unknown"].any()
    with pytest.raises(InputError) as error:
        columns.prediction_columns(learner, digits["7"][:2], recognizer="oracle")
    one_line(error, "'oracle'")


def test_prediction_columns_suit_scikit_learn(learner, digits):
    true = np.repeat(learner.names, 30)
    images = np.concatenate([digits[name][-30:] for name in learner.names])
    predictions = columns.prediction_columns(learner, images)
    report = metrics.classification_report(true, predictions["category"], output_dict=True)
    assert report["accuracy"] == np.mean(predictions["category"] == true)
    assert set(learner.names) < set(report)


def test_prediction_columns_are_numpy_arrays(learner, digits):
    predictions = columns.prediction_columns(learner, digits["2"][:3])
    assert all(type(values) is np.ndarray for values in predictions.values())


def test_history_columns_have_a_row_per_task(playback_run):
    frame, lines = pd.DataFrame(columns.history_columns(playback_run)), lines_of(playback_run)
    assert frame["task"].tolist() == [1, 2]
    assert frame["categories"].tolist() == ["3", "1,0"]
    for key in ("accuracy", "seconds", "steps"):
        assert frame[key].tolist() == [line[key] for line in lines]
    assert frame["terms.real"].tolist() == [line["terms"]["real"] for line in lines]
    # The first task has nothing to play back.
    assert np.isnan(frame["terms.playback"][0])
    assert frame["terms.playback"][1] == lines[1]["terms"]["playback"]


def test_history_columns_have_every_number(playback_run):
    for row, line in enumerate(lines_of(playback_run)):
        for name, value in line.items():
            if not isinstance(value, dict | list):
                assert columns.history_columns(playback_run)[name][row] == value


def test_history_columns_ignore_a_partial_last_line(playback_run, tmp_path):
    copy = shutil.copytree(playback_run, tmp_path / "copy")
    with (copy / "metrics.jsonl").open("a") as stream:
        stream.write('{"task": 3, "accu')
    assert columns.history_columns(copy) == columns.history_columns(playback_run)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "expected the metrics of at least one finished task, got none"),
        ("[1]\n", "expected a JSON object in each line, got list"),
        ("no JSON\n", "expected JSON"),
    ],
)
def test_history_columns_refuse_files_without_lines(tmp_path, content, words):
    (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(InputError) as error:
        columns.history_columns(tmp_path)
    one_line(error, tmp_path / "metrics.jsonl", words)


def test_accuracy_columns_have_a_row_per_accuracy(playback_run):
    frame = pd.DataFrame(columns.accuracy_columns(playback_run))
    assert set(frame["recognizer"]) == {"closed_form", "elbo"}
    for line in lines_of(playback_run):
        for key, name in [("accuracy_per_category", "closed_form"), ("accuracy_per_category_elbo", "elbo")]:
            rows = frame[(frame["task"] == line["task"]) & (frame["recognizer"] == name)]
            assert dict(zip(rows["category"], rows["accuracy"], strict=True)) == line[key]


def test_accuracy_columns_of_the_elbo_recognizer_have_no_duplicates(playback_run, tmp_path):
    copy = shutil.copytree(playback_run, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["config"]["recognition"]["recognizer"] = "elbo"
    values = {key: value for key, value in config.items() if key not in ("schema", "digest")}
    write_json(copy / "config.json", with_digest(values))
    accuracies = columns.accuracy_columns(copy)
    assert accuracies["recognizer"] == ["elbo"] * (1 + 3)
