import socket
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tensorflow_datasets.core.download.download_manager import DownloadManager

from lifelong_cvae.data import SourceOptions, from_arrays, open_source, tfds_prepare
from lifelong_cvae.data.tfds_prepare import server_responds
from lifelong_cvae.runs import runner
from lifelong_cvae.runs.config import RunConfig
from tests.conftest import one_line
from tests.data.file_contents import idx_bytes, write_file
from tests.data.sources import open_error, sorted_contents

# Original files of MNIST and Fashion-MNIST.
SHARED = Path(__file__).parents[3] / "shared" / "data"
FASHION = SHARED / "fashion_mnist"


def write_mnist_files(folder, start):
    """Writes four files with the names of MNIST's; gray values increase from `start`. Returns their arrays."""
    folder.mkdir(parents=True)
    arrays = {}
    for split, stem, count in (("train", "train", 9), ("test", "t10k", 5)):
        images = np.arange(start, start + count, dtype=np.uint8)[:, None, None] + np.zeros((28, 28), np.uint8)
        labels = np.arange(count) % 3
        write_file(folder, f"{stem}-images-idx3-ubyte.gz", idx_bytes(images.ravel().tolist(), *images.shape))
        write_file(folder, f"{stem}-labels-idx1-ubyte.gz", idx_bytes(labels.tolist(), count))
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels
    return arrays


@pytest.fixture
def unchecked_checksums(monkeypatch):
    """Accepts files that differ from the published ones."""
    monkeypatch.setattr(DownloadManager, "_register_or_validate_checksums", lambda *_, **__: None)


@pytest.mark.usefixtures("unchecked_checksums")
def test_prepare_separates_data_sets_with_equal_file_names(tmp_path):
    files = {
        "mnist": write_mnist_files(tmp_path / "files", 0),
        "fashion_mnist": write_mnist_files(tmp_path / "files" / "fashion_mnist", 100),
    }
    options = SourceOptions(tfds_data_dir=str(tmp_path / "data"), tfds_manual_dir=str(tmp_path / "files"))
    for name, arrays in files.items():
        source, expected = open_source(f"tfds:{name}", options), from_arrays(name, **arrays)
        assert source.image_shape == (28, 28, 1)
        for split in ("train", "test"):
            for category, label in zip(source.categories, expected.categories, strict=True):
                images = source.read(split, category)
                assert sorted_contents(images) == sorted_contents(expected.read(split, label))
    assert open_source("tfds:mnist", options).categories == ("0", "1", "2")
    assert source.categories == ("T-shirt/top", "Trouser", "Pullover")
    assert "tensorflow" not in sys.modules
    # A prepared data set does not need the files.
    reopened = open_source("tfds:mnist", SourceOptions(tfds_data_dir=str(tmp_path / "data")))
    assert reopened.counts["train"] == {"0": 3, "1": 3, "2": 3}


@pytest.mark.usefixtures("unchecked_checksums")
def test_prepare_reads_emnist_from_archive(tmp_path):
    arrays = write_mnist_files(tmp_path / "files", 50)
    with zipfile.ZipFile(tmp_path / "gzip.zip", "w") as archive:
        for file in (tmp_path / "files").iterdir():
            archive.write(file, f"gzip/emnist-letters-{file.name.replace('t10k', 'test')}")
    options = SourceOptions(tfds_data_dir=str(tmp_path / "data"), tfds_manual_dir=str(tmp_path))
    source, expected = open_source("tfds:emnist/letters", options), from_arrays("emnist", **arrays)
    assert source.categories == expected.categories == ("0", "1", "2")
    for split in ("train", "test"):
        for name in source.categories:
            assert sorted_contents(source.read(split, name)) == sorted_contents(expected.read(split, name))


def test_prepare_refuses_files_of_other_checksum(tmp_path):
    write_mnist_files(tmp_path / "files", 0)
    options = SourceOptions(tfds_data_dir=str(tmp_path / "data"), tfds_manual_dir=str(tmp_path / "files"))
    error = open_error("tfds:kmnist", options)
    one_line(error, tmp_path / "files", "kmnist as published", "SHA-256", "t10k-labels-idx1-ubyte.gz")


@pytest.mark.parametrize(("name", "missing"), [("mnist", "train-labels-idx1-ubyte.gz"), ("emnist/letters", "gzip.zip")])
def test_prepare_names_missing_file(tmp_path, name, missing):
    write_mnist_files(tmp_path / "files", 0)
    (tmp_path / "files" / "train-labels-idx1-ubyte.gz").unlink()
    options = SourceOptions(tfds_data_dir=str(tmp_path / "data"), tfds_manual_dir=str(tmp_path / "files"))
    one_line(open_error(f"tfds:{name}", options), name, f"{tmp_path / 'files'} lacks {missing} of")
    assert not (tmp_path / "data").exists()


def test_prepare_names_files_if_server_does_not_respond(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_prepare, "server_responds", lambda url: False)
    error = open_error("tfds:fashion_mnist", SourceOptions(tfds_data_dir=str(tmp_path / "data")))
    one_line(error, "does not respond", "train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
    one_line(error, "of fashion_mnist", "tfds_manual_dir")
    assert not (tmp_path / "data").exists()


def test_server_responds_is_false_for_silent_or_missing_server(monkeypatch):
    monkeypatch.setattr(tfds_prepare, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        assert not server_responds(url)
    assert not server_responds(url)


@pytest.fixture(scope="module")
def fashion_sources(tmp_path_factory):
    """Fashion-MNIST prepared for TensorFlow Datasets after MNIST, whose files have equal names; and its IDX files.

    It needs the original files: `pytest -m external`, a minute.
    """
    if not FASHION.is_dir():
        pytest.skip(f"the four files of Fashion-MNIST: not in {FASHION}")
    options = SourceOptions(tfds_data_dir=str(tmp_path_factory.mktemp("prepared")), tfds_manual_dir=str(SHARED))
    assert open_source("tfds:mnist", options).categories == tuple("0123456789")
    return open_source("tfds:fashion_mnist", options), open_source(f"idx:{FASHION}")


@pytest.mark.external
def test_prepare_keeps_every_image_of_fashion_mnist(fashion_sources):
    prepared, original = fashion_sources
    assert "tensorflow" not in sys.modules
    assert prepared.categories[:2] == ("T-shirt/top", "Trouser")
    for split in ("train", "test"):
        for name, label in zip(prepared.categories, original.categories, strict=True):
            assert sorted_contents(prepared.read(split, name)) == sorted_contents(original.read(split, label))


@pytest.mark.external
def test_run_learns_prepared_fashion_mnist(fashion_sources, small_config, tmp_path):
    source, _ = fashion_sources
    config = small_config.with_settings({"min_steps": 200, "steps_per_call": 100, "batch_size": 64})
    tasks = (("Trouser",), ("Ankle boot",))
    run_config = RunConfig(source.name, tasks, images_per_category=500, config=config)
    options = runner.RunOptions(draw=False, write_report=False, log_fn=lambda line: None)
    result = runner.run(tmp_path / "run", run_config, source, options)
    assert result["accuracy"] > 0.95
