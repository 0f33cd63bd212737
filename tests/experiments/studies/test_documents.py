import json
from pathlib import Path

import pytest

from experiments.studies import documents, store
from lifelong_cvae.errors import InputError
from tests.conftest import one_line

ROOT = Path(__file__).parents[3]
DOCUMENT = """# Title

Before.

<!-- table: a/b recognition -->
old
<!-- end of table -->

Between.

<!-- table: a/b generation -->
<!-- end of table -->
"""


def cell_figures(strategy, seed, accuracy):
    return {
        "schema": 1,
        "labels": {"strategy": strategy, "seed": seed},
        "accuracy": accuracy,
        "imagined": {"frechet_distance": 3.0},
        "versions": {"jax": "0.10.2"},
        "device": "a device",
        "date": f"2026-01-0{seed}",
    }


@pytest.fixture(params=["files of runs", "packed"])
def root(request, tmp_path):
    """Returns a folder with the study a/b."""
    folder = tmp_path / "a/b"
    folder.mkdir(parents=True)
    for name, values in {"full": (0.5, 0.7), "joint": (0.9, 0.9)}.items():
        for seed, accuracy in enumerate(values, start=1):
            file = folder / f"strategy={name},seed={seed}.json"
            file.write_text(json.dumps(cell_figures(name, seed, accuracy)))
    (folder / "comparison.json").write_text("{}")
    if request.param == "packed":
        store.pack(folder)
    return tmp_path


def test_render_tables_replaces_text_between_marks_only(root):
    text = documents.render_tables(DOCUMENT, root)
    outside = [part.split("-->")[-1].strip() for part in text.split("<!-- table")]
    assert outside[0] == "# Title\n\nBefore."
    assert "Between." in text
    assert "old" not in text
    # Strategies in the order of the presets, averaged over seeds.
    assert text.index("| joint | 90.00 | 2 |") < text.index("| full | 60.00 ± 14.14 | 2 |")
    assert "| full | 3.0 | 2 |" in text
    assert "Measured 2026-01-01, 2026-01-02; seeds 1, 2; a device; jax 0.10.2." in text
    assert documents.render_tables(text, root) == text


def test_study_table_adds_real_images_and_published_figures(root):
    folder = root / "a/b"
    (folder / "floor.json").write_text('{"schema": 1, "imagined": {"frechet_distance": 1.5}}')
    row = {"labels": {"strategy": "peer", "source": "a paper"}, "mean": {"accuracy": 0.25}}
    (folder / "published.json").write_text(json.dumps({"schema": 1, "rows": [row]}))
    recognition, generation = (documents.study_table([folder], kind) for kind in ("recognition", "generation"))
    assert "| full | measured here | 60.00 ± 14.14 | 2 |" in recognition
    assert "| peer | a paper | 25.00 |  |" in recognition
    assert "real images" not in recognition
    assert "| real images | measured here | 1.5 | 1 |" in generation
    assert "peer" not in generation


def test_render_tables_joins_several_folders(root):
    other = root / "a/c"
    other.mkdir()
    (other / "strategy=full,seed=3.json").write_text(json.dumps(cell_figures("full", 3, 0.25)))
    mark = "<!-- table: a/b a/c recognition -->\n<!-- end of table -->\n"
    text = documents.render_tables(mark, root)
    assert "| folder | strategy | accuracy, % | runs |\n" in text
    assert "| b | joint | 90.00 | 2 |\n| b | full | 60.00 ± 14.14 | 2 |\n| c | full | 25.00 | 1 |\n" in text
    assert "seeds 1, 2, 3;" in text
    assert documents.render_tables(text, root) == text


def test_update_document_check_writes_nothing(root):
    file = root / "document.md"
    file.write_text(DOCUMENT)
    assert documents.update_document(file, root, check=True)
    assert file.read_text() == DOCUMENT
    assert documents.update_document(file, root)
    assert file.read_text() == documents.render_tables(DOCUMENT, root)
    assert not documents.update_document(file, root)


def test_study_table_refuses_empty_folder_and_unknown_kind(root):
    with pytest.raises(InputError) as error:
        documents.study_table([root / "a"], "recognition")
    one_line(error, root / "a", "expected a folder that `compare` wrote, got one without figures")
    with pytest.raises(InputError) as error:
        documents.study_table([root / "a/b"], "beauty")
    one_line(error, "expected one of recognition, generation", "got 'beauty'")


@pytest.mark.parametrize("name", ["RESULTS.md", "BENCHMARKS.md", "results/TABLES.md"])
def test_documents_of_this_repository_are_up_to_date(name):
    assert not documents.update_document(ROOT / name, ROOT, check=True), (
        f"run python -m experiments.results --document={name}"
    )


def test_render_tables_formats_benchmarks(tmp_path):
    values = {
        "schema": 1,
        "what": "growth",
        "seed": 4,
        "options": {"preset": "default"},
        "rows": [{"categories": 10, "seconds a step": 0.0012345}, {"categories": 1000, "images": 12345.6}],
        "slope_of_memory": 2.0,
        "date": "2026-01-05",
        "device": "a device",
        "versions": {"jax": "0.10.2"},
    }
    (tmp_path / "growth.json").write_text(json.dumps(values))
    mark = "<!-- benchmark: growth.json -->\nold\n<!-- end of table -->\n"
    text = documents.render_tables(mark, tmp_path)
    assert "| categories | seconds a step | images |\n| --- | --- | --- |\n" in text
    assert "| 10 | 0.001234 |  |\n| 1,000 |  | 12,346 |\n" in text
    assert "| slope of memory | 2 |" in text
    assert "Measured 2026-01-05; seeds 4; a device; jax 0.10.2." in text
    assert "schema" not in text
    assert documents.render_tables(text, tmp_path) == text
