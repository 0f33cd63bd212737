import json

import pytest

from experiments.studies import store

LABELS = [{"strategy": "full", "seed": 1}, {"strategy": "full", "seed": 2}]


@pytest.fixture
def study_folder(tmp_path):
    """Returns a folder with two runs, the floor and published figures in files of their own."""
    for labels in LABELS:
        store.write_figures(tmp_path / f"{store.run_name(labels)}.json", {"labels": labels, "accuracy": 1 / 3})
    store.write_figures(tmp_path / "floor.json", {"imagined": {"coverage": 0.1}})
    published = {"schema": 1, "rows": [{"labels": {"strategy": "peer"}, "mean": {"accuracy": 0.25}}]}
    (tmp_path / "published.json").write_text(json.dumps(published))
    (tmp_path / "comparison.json").write_text("{}")
    return tmp_path


def test_pack_keeps_figures(study_folder):
    before = store.read_figures(study_folder)
    assert [cell["labels"] for cell in before.cells] == LABELS
    assert before.floor["imagined"] == {"coverage": 0.1}
    assert before.published == [{"labels": {"strategy": "peer"}, "mean": {"accuracy": 0.25}}]
    for _ in range(2):
        store.pack(study_folder)
        assert store.read_figures(study_folder) == before
        assert sorted(file.name for file in study_folder.iterdir()) == ["cells.json", "comparison.json"]


def test_pack_adds_new_runs(study_folder):
    store.pack(study_folder)
    labels = {"strategy": "full", "seed": 3}
    store.write_figures(study_folder / f"{store.run_name(labels)}.json", {"labels": labels})
    store.pack(study_folder)
    assert [cell["labels"] for cell in store.read_figures(study_folder).cells] == [*LABELS, labels]


def test_pack_completes_an_interrupted_pack(study_folder):
    run_files = {file: file.read_text() for file in study_folder.glob("*=*.json")}
    store.pack(study_folder)
    packed = (study_folder / "cells.json").read_text()
    for file, text in run_files.items():
        file.write_text(text)
    store.pack(study_folder)
    assert (study_folder / "cells.json").read_text() == packed
    assert not list(study_folder.glob("*=*.json"))


def test_pack_keeps_recorded_labels(tmp_path):
    labels = {"changed": "without recognise", "seed": 1}
    store.write_figures(tmp_path / f"{store.run_name(labels)}.json", {"labels": labels})
    store.pack(tmp_path)
    assert json.loads((tmp_path / "cells.json").read_text())["cells"][0]["labels"] == labels
    assert store.read_figures(tmp_path).cells[0]["labels"] == {"changed": "without recognize", "seed": 1}


def test_read_figures_of_a_new_folder(tmp_path):
    assert store.read_figures(tmp_path / "new") == ([], None, [])


def test_read_figures_ignores_unfinished_files(study_folder):
    before = store.read_figures(study_folder)
    (study_folder / ".strategy=full,seed=3.tmp.json").write_text("{")
    assert store.read_figures(study_folder) == before
