"""Columns that pandas and scikit-learn read, beside the files that they come from."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

import lifelong_cvae as lifelong
from lifelong_cvae.errors import InputError
from lifelong_cvae.files import with_digest, write_json
from lifelong_cvae.runs import columns
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.runs.workdir import load_state
from tests.conftest import SMALL_FEATURES, lines_of, one_line, run_quietly


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, small_config, mnist5k):
    """A run of three digits, the last two at once; memory is played back after the first task."""
    config = small_config.with_settings({**SMALL_FEATURES, "mixed_mode": "playback"})
    folder = tmp_path_factory.mktemp("tidy") / "run"
    run_config = RunConfig("mnist5k", (("3",), ("1", "0")), images_per_category=40, config=config)
    run_quietly(folder, run_config, mnist5k)
    return folder


class TestAnswers:
    def test_are_what_the_library_says_of_each_image(self, workdir, digits):
        state = load_state(workdir)
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
        assert frame["unknown"].tolist() == lifelong.unknown(state, evidence, names).tolist()
        assert frame["unknown"].dtype == bool

    def test_of_another_recogniser_and_without_rejection(self, learner, digits):
        answers = columns.prediction_columns(learner, digits["7"][:20], recognizer="elbo", reject=0)
        assert not answers["unknown"].any()
        with pytest.raises(InputError) as error:
            columns.prediction_columns(learner, digits["7"][:2], recognizer="oracle")
        one_line(error, "'oracle'")

    def test_are_measured_by_scikit_learn(self, learner, digits):
        true = np.repeat(learner.names, 30)
        images = np.concatenate([digits[name][-30:] for name in learner.names])
        answers = columns.prediction_columns(learner, images)
        report = metrics.classification_report(true, answers["category"], output_dict=True)
        assert report["accuracy"] == np.mean(answers["category"] == true)
        assert set(learner.names) < set(report)

    def test_are_plain_arrays(self, learner, digits):
        assert all(
            type(values) is np.ndarray for values in columns.prediction_columns(learner, digits["2"][:3]).values()
        )


class TestHistory:
    def test_has_a_row_for_each_task(self, workdir):
        frame, lines = pd.DataFrame(columns.history_columns(workdir)), lines_of(workdir)
        assert frame["task"].tolist() == [1, 2]
        assert frame["categories"].tolist() == ["3", "1,0"]
        for column, key in [("accuracy", "accuracy"), ("seconds", "seconds"), ("steps", "steps")]:
            assert frame[column].tolist() == [line[key] for line in lines]
        assert frame["terms.real"].tolist() == [line["terms"]["real"] for line in lines]
        # There was nothing to play back in the first task.
        assert np.isnan(frame["terms.playback"][0])
        assert frame["terms.playback"][1] == lines[1]["terms"]["playback"]

    def test_every_number_of_a_line_is_there(self, workdir):
        for row, line in enumerate(lines_of(workdir)):
            for name, value in line.items():
                if not isinstance(value, dict | list):
                    assert columns.history_columns(workdir)[name][row] == value

    def test_half_a_line_at_the_end_is_left_out(self, workdir, tmp_path):
        copy = shutil.copytree(workdir, tmp_path / "copy")
        with (copy / "metrics.jsonl").open("a") as stream:
            stream.write('{"task": 3, "accu')
        assert columns.history_columns(copy) == columns.history_columns(workdir)

    @pytest.mark.parametrize("content", ["", "[1]\n", "no JSON\n"])
    def test_a_folder_without_lines_is_told_in_one_line(self, tmp_path, content):
        (tmp_path / "metrics.jsonl").write_text(content)
        with pytest.raises(InputError) as error:
            columns.history_columns(tmp_path)
        one_line(error, tmp_path / "metrics.jsonl", "expected" if content != "no JSON\n" else "expected JSON")


class TestAccuracies:
    def test_have_a_row_for_each_figure(self, workdir):
        frame = pd.DataFrame(columns.accuracy_columns(workdir))
        assert set(frame["recognizer"]) == {"closed_form", "elbo"}
        for line in lines_of(workdir):
            for key, name in [
                ("accuracy_per_category", "closed_form"),
                ("accuracy_per_category_elbo", "elbo"),
            ]:
                rows = frame[(frame["task"] == line["task"]) & (frame["recognizer"] == name)]
                assert dict(zip(rows["category"], rows["accuracy"], strict=True)) == line[key]

    def test_of_a_run_that_recognises_by_the_elbo_have_each_figure_once(self, workdir, tmp_path):
        copy = shutil.copytree(workdir, tmp_path / "copy")
        config = json.loads((copy / "config.json").read_text())
        config["config"]["recognition"]["recognizer"] = "elbo"
        values = {key: value for key, value in config.items() if key not in ("schema", "digest")}
        write_json(copy / "config.json", with_digest(values))
        accuracies = columns.accuracy_columns(copy)
        assert accuracies["recognizer"] == ["elbo"] * (1 + 3)
