"""Data sets of TensorFlow Datasets, without TensorFlow: read, prepared from files, refused in one line."""

import socket
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download.download_manager import DownloadManager

from lifelong_cvae.data import SourceOptions, from_arrays, open_source, tfds_prepare
from lifelong_cvae.data.tfds_prepare import server_responds
from lifelong_cvae.errors import InputError
from lifelong_cvae.runs import runner
from lifelong_cvae.runs.config import RunConfig
from tests.conftest import one_line
from tests.experiments.conftest import write_idx

NAMES = ["dress", "T-shirt/top", "unseen", "ankle boot"]


def prepared(folder, labels, *, name="tiny", shape=(4, 5, 3), kind="array_record"):
    """A data set whose images are the noise of their number: split to labels."""

    def examples(split):
        for index, label in enumerate(labels[split]):
            yield index, {"image": Image.fromarray(noise(split, index, shape)), "label": label}

    with tfds.core.registered.skip_registration():

        class Tiny(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                image = tfds.features.Image(shape=shape if name == "tiny" else (None, None, 3))
                label = tfds.features.ClassLabel(names=NAMES)
                features = tfds.features.FeaturesDict({"image": image, "label": label})
                return tfds.core.DatasetInfo(builder=self, features=features)

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(split) for split in labels}

            def _generate_examples(self, split):
                yield from examples(split)

        Tiny.name = name
        Tiny(data_dir=folder, file_format=kind).download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    return SourceOptions(tfds_data_dir=str(folder))


def noise(split, index, shape=(4, 5, 3)):
    values = np.random.default_rng([split == "test", index]).integers(0, 256, shape, np.uint8)
    return values[..., 0] if shape[2] == 1 else values


def as_set(images):
    return sorted(image.tobytes() for image in images)


LABELS = {"train": [0, 1, 3, 1, 0, 3, 1, 1], "test": [3, 1, 0, 1]}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("tfds"), LABELS)


class TestPrepared:
    def test_every_image_comes_under_the_name_of_its_class(self, tiny):
        source = open_source("tfds:tiny", tiny)
        assert source.name == "tfds:tiny"
        assert source.categories == ("dress", "T-shirt/top", "ankle boot")
        assert source.image_shape == (4, 5, 3)
        assert source.counts == {
            "train": {"dress": 2, "T-shirt/top": 4, "ankle boot": 2},
            "test": {"dress": 1, "T-shirt/top": 2, "ankle boot": 1},
        }
        for split, labels in LABELS.items():
            for name in source.categories:
                own = [noise(split, i) for i, label in enumerate(labels) if NAMES[label] == name]
                assert as_set(source.read(split, name)) == as_set(own)

    def test_images_are_scaled_and_grey_where_that_is_asked_for(self, tiny):
        options = SourceOptions(image_size=2, grayscale=True, tfds_data_dir=tiny.tfds_data_dir)
        source = open_source("tfds:tiny", options)
        assert source.image_shape == (2, 2, 1)
        assert source.read("train", "dress").shape == (2, 2, 2, 1)
        assert source.fingerprint != open_source("tfds:tiny", tiny).fingerprint

    def test_the_fingerprint_is_one_of_the_contents(self, tiny, tmp_path):
        first = open_source("tfds:tiny", tiny).fingerprint
        assert open_source("tfds:tiny", prepared(tmp_path / "same", LABELS)).fingerprint == first
        swapped = {**LABELS, "test": [1, 3, 0, 1]}
        assert open_source("tfds:tiny", prepared(tmp_path / "other", swapped)).fingerprint != first

    def test_an_unknown_split_is_refused_and_the_known_ones_are_named(self, tiny):
        with pytest.raises(InputError, match="no split 'validation': one of train, test is expected"):
            open_source("tfds:tiny", tiny).read("validation", "dress")

    def test_of_a_set_without_a_test_split_the_last_fifth_of_each_category_is(self, tmp_path):
        options = prepared(tmp_path, {"train": [0] * 11 + [1] * 3})
        source = open_source("tfds:tiny", options)
        assert source.counts == {
            "train": {"dress": 9, "T-shirt/top": 2},
            "test": {"dress": 2, "T-shirt/top": 1},
        }
        together = np.concatenate([source.read(split, "dress") for split in ("train", "test")])
        assert as_set(together) == as_set([noise("train", index) for index in range(11)])

    def test_images_of_different_sizes_need_a_size(self, tmp_path):
        options = prepared(tmp_path, LABELS, name="sizes")
        with pytest.raises(InputError) as error:
            open_source("tfds:sizes", options)
        one_line(error, "tfds:sizes", "different sizes", "image_size")
        scaled = SourceOptions(image_size=3, tfds_data_dir=options.tfds_data_dir)
        assert open_source("tfds:sizes", scaled).image_shape == (3, 3, 3)


class TestRefused:
    @pytest.mark.parametrize("name", ["no/such/set", "kaggle:some/set", "mnist/a=1", "../mnist", "a b"])
    def test_what_is_no_name(self, name, tmp_path):
        with pytest.raises(InputError) as error:
            open_source(f"tfds:{name}", SourceOptions(tfds_data_dir=str(tmp_path)))
        one_line(error, name, "mnist, emnist/letters")

    @pytest.mark.parametrize("name", ["no_such_set", "tiny:2.0.0"])
    def test_a_set_that_is_not_there(self, name, tiny):
        with pytest.raises(InputError) as error:
            open_source(f"tfds:{name}", tiny)
        one_line(error, name, "no set of this name")

    def test_a_configuration_that_is_not_there(self, tmp_path):
        with pytest.raises(InputError) as error:
            open_source("tfds:emnist/runes", SourceOptions(tfds_data_dir=str(tmp_path)))
        one_line(error, "tfds:emnist/runes")

    def test_another_set_that_is_not_prepared_says_how_to(self, tmp_path):
        with pytest.raises(InputError) as error:
            open_source("tfds:cifar10", SourceOptions(tfds_data_dir=str(tmp_path)))
        one_line(error, "tfds:cifar10 is not prepared", tmp_path, "data_source('cifar10'", "array_record")

    @pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
    def test_damaged_records(self, tmp_path, damage):
        options = prepared(tmp_path, LABELS)
        (file,) = tmp_path.glob("tiny/1.0.0/*test*")
        content = bytearray(file.read_bytes())
        content[100] ^= 4 * (damage == "flipped")
        file.unlink()
        if damage != "missing":
            file.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
        with pytest.raises(InputError) as error:
            open_source("tfds:tiny", options)
        one_line(error, tmp_path / "tiny" / "1.0.0", "damaged", "prepared anew")

    def test_damaged_information(self, tmp_path):
        options = prepared(tmp_path, LABELS)
        (tmp_path / "tiny" / "1.0.0" / "dataset_info.json").write_text("{")
        with pytest.raises(InputError) as error:
            open_source("tfds:tiny", options)
        one_line(error, "tfds:tiny", "is expected")

    def test_another_format(self, tmp_path):
        options = prepared(tmp_path, LABELS)
        file = tmp_path / "tiny" / "1.0.0" / "dataset_info.json"
        file.write_text(file.read_text().replace("array_record", "tfrecord"))
        with pytest.raises(InputError) as error:
            open_source("tfds:tiny", options)
        one_line(error, "tfds:tiny", "format", "is expected", "tfrecord")

    def test_a_category_in_one_split_only(self, tmp_path):
        options = prepared(tmp_path, {**LABELS, "test": [0, 1]})
        with pytest.raises(InputError) as error:
            open_source("tfds:tiny", options)
        one_line(error, "'ankle boot'", "both")


def original(folder, start):
    """Four files as those of MNIST, gzipped: split to images and labels."""
    folder.mkdir(parents=True)
    splits = {}
    for split, stem, count in (("train", "train", 9), ("test", "t10k", 5)):
        images = np.arange(start, start + count, dtype=np.uint8)[:, None, None] + np.zeros((28, 28), np.uint8)
        labels = np.arange(count) % 3
        write_idx(folder / f"{stem}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{stem}-labels-idx1-ubyte.gz", labels)
        splits[f"{split}_images"], splits[f"{split}_labels"] = images, labels
    return splits


class TestPreparing:
    def test_two_sets_whose_files_are_called_the_same_stay_apart(self, tmp_path, monkeypatch):
        monkeypatch.setattr(DownloadManager, "_register_or_validate_checksums", lambda *_, **__: None)
        files = {
            "mnist": original(tmp_path / "files", 0),
            "fashion_mnist": original(tmp_path / "files" / "fashion_mnist", 100),
        }
        options = SourceOptions(tfds_data_dir=str(tmp_path / "data"), tfds_manual_dir=str(tmp_path / "files"))
        for name, arrays in files.items():
            source, expected = open_source(f"tfds:{name}", options), from_arrays(name, **arrays)
            assert source.image_shape == (28, 28, 1)
            for split in ("train", "test"):
                for category, other in zip(source.categories, expected.categories, strict=True):
                    assert as_set(source.read(split, category)) == as_set(expected.read(split, other))
        assert open_source("tfds:mnist", options).categories == ("0", "1", "2")
        assert source.categories == ("T-shirt/top", "Trouser", "Pullover")
        assert "tensorflow" not in sys.modules
        # Once it is prepared, the files are not needed.
        again = open_source("tfds:mnist", SourceOptions(tfds_data_dir=str(tmp_path / "data")))
        assert again.counts["train"] == {"0": 3, "1": 3, "2": 3}

    def test_the_sets_of_emnist_come_out_of_one_archive(self, tmp_path, monkeypatch):
        monkeypatch.setattr(DownloadManager, "_register_or_validate_checksums", lambda *_, **__: None)
        arrays = original(tmp_path / "files", 50)
        with zipfile.ZipFile(tmp_path / "gzip.zip", "w") as archive:
            for file in (tmp_path / "files").iterdir():
                kind = file.name.replace("t10k", "test")
                archive.write(file, f"gzip/emnist-letters-{kind}")
        options = SourceOptions(tfds_data_dir=str(tmp_path / "data"), tfds_manual_dir=str(tmp_path))
        source, expected = open_source("tfds:emnist/letters", options), from_arrays("emnist", **arrays)
        assert source.categories == expected.categories == ("0", "1", "2")
        for split in ("train", "test"):
            for name in source.categories:
                assert as_set(source.read(split, name)) == as_set(expected.read(split, name))

    def test_files_of_another_set_are_told_by_their_checksum(self, tmp_path):
        original(tmp_path / "files", 0)
        options = SourceOptions(tfds_data_dir=str(tmp_path / "data"), tfds_manual_dir=str(tmp_path / "files"))
        with pytest.raises(InputError) as error:
            open_source("tfds:kmnist", options)
        one_line(error, tmp_path / "files", "kmnist as published", "SHA-256", "t10k-labels-idx1-ubyte.gz")

    @pytest.mark.parametrize(
        ("name", "missing"),
        [("mnist", "train-labels-idx1-ubyte.gz"), ("emnist/letters", "gzip.zip")],
    )
    def test_a_file_that_is_missing_is_named(self, tmp_path, name, missing):
        original(tmp_path / "files", 0)
        (tmp_path / "files" / "train-labels-idx1-ubyte.gz").unlink()
        options = SourceOptions(tfds_data_dir=str(tmp_path / "data"), tfds_manual_dir=str(tmp_path / "files"))
        with pytest.raises(InputError) as error:
            open_source(f"tfds:{name}", options)
        one_line(error, name, f"{tmp_path / 'files'} lacks {missing} of")
        assert not (tmp_path / "data").exists()

    def test_without_an_answer_the_files_and_their_place_are_named(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tfds_prepare, "server_responds", lambda url: False)
        with pytest.raises(InputError) as error:
            open_source("tfds:fashion_mnist", SourceOptions(tfds_data_dir=str(tmp_path / "data")))
        one_line(error, "does not answer", "train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
        one_line(error, "of fashion_mnist", "tfds_manual_dir")
        assert not (tmp_path / "data").exists()

    def test_a_server_that_refuses_or_is_silent_does_not_answer(self, monkeypatch):
        monkeypatch.setattr(tfds_prepare, "TIMEOUT_SECONDS", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
            assert not server_responds(url)
        assert not server_responds(url)


SHARED = Path(__file__).parents[3] / "shared" / "data"
FASHION = SHARED / "fashion_mnist"
# All of Fashion-MNIST from its original files: `pytest -m external`, a minute.
fashion = pytest.mark.skipif(not FASHION.is_dir(), reason=f"the four files of Fashion-MNIST: not in {FASHION}")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Fashion-MNIST as prepared, after MNIST whose files are called the same; and as the files hold it."""
    folder = str(tmp_path_factory.mktemp("prepared"))
    options = SourceOptions(tfds_data_dir=folder, tfds_manual_dir=str(SHARED))
    assert open_source("tfds:mnist", options).categories == tuple("0123456789")
    return open_source("tfds:fashion_mnist", options), open_source(f"idx:{FASHION}")


@pytest.mark.external
@fashion
def test_fashion_mnist_holds_the_same_images_bit_for_bit_in_an_order_of_its_own(sources):
    prepared, original = sources
    assert "tensorflow" not in sys.modules
    assert prepared.categories[:2] == ("T-shirt/top", "Trouser")
    for split in ("train", "test"):
        for name, label in zip(prepared.categories, original.categories, strict=True):
            assert as_set(prepared.read(split, name)) == as_set(original.read(split, label))


@pytest.mark.external
@fashion
def test_fashion_mnist_is_learned(sources, small_config, tmp_path):
    source, _ = sources
    config = small_config.with_settings({"min_steps": 200, "steps_per_call": 100, "batch_size": 64})
    tasks = (("Trouser",), ("Ankle boot",))
    run_config = RunConfig(source.name, tasks, images_per_category=500, config=config)
    result = runner.run(tmp_path / "run", run_config, source, draw=False, write_report=False, log_fn=lambda line: None)
    assert result["accuracy"] > 0.95
