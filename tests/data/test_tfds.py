import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from lifelong_cvae.data import SourceOptions, open_source
from lifelong_cvae.errors import InputError
from tests.conftest import one_line
from tests.data.sources import open_error, sorted_contents

CLASSES = ["dress", "T-shirt/top", "unseen", "ankle boot"]
LABELS = {"train": [0, 1, 3, 1, 0, 3, 1, 1], "test": [3, 1, 0, 1]}


def noise_image(split, index, shape=(4, 5, 3)):
    """Image of a record of the data sets in these tests: noise seeded by its split and index."""
    pixels = np.random.default_rng([split == "test", index]).integers(0, 256, shape, np.uint8)
    return pixels[..., 0] if shape[2] == 1 else pixels


def prepare_noise_dataset(folder, labels, *, name="tiny", shape=(4, 5, 3)):
    """Prepares a data set of noise images with labels by split. Returns the options to open it."""

    def examples(split):
        for index, label in enumerate(labels[split]):
            yield index, {"image": Image.fromarray(noise_image(split, index, shape)), "label": label}

    with tfds.core.registered.skip_registration():

        class Tiny(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                image = tfds.features.Image(shape=shape if name == "tiny" else (None, None, 3))
                label = tfds.features.ClassLabel(names=CLASSES)
                features = tfds.features.FeaturesDict({"image": image, "label": label})
                return tfds.core.DatasetInfo(builder=self, features=features)

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(split) for split in labels}

            def _generate_examples(self, split):
                yield from examples(split)

        Tiny.name = name
        Tiny(data_dir=folder, file_format="array_record").download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    return SourceOptions(tfds_data_dir=str(folder))


@pytest.fixture(scope="module")
def tiny_options(tmp_path_factory):
    """Options to open `tfds:tiny`, a data set of `LABELS`."""
    return prepare_noise_dataset(tmp_path_factory.mktemp("tfds"), LABELS)


def test_open_tfds_names_categories_as_classes(tiny_options):
    source = open_source("tfds:tiny", tiny_options)
    assert source.name == "tfds:tiny"
    assert source.categories == ("dress", "T-shirt/top", "ankle boot")
    assert source.image_shape == (4, 5, 3)
    assert source.counts == {
        "train": {"dress": 2, "T-shirt/top": 4, "ankle boot": 2},
        "test": {"dress": 1, "T-shirt/top": 2, "ankle boot": 1},
    }
    for split, labels in LABELS.items():
        for name in source.categories:
            expected = [noise_image(split, i) for i, label in enumerate(labels) if CLASSES[label] == name]
            assert sorted_contents(source.read(split, name)) == sorted_contents(expected)


def test_open_tfds_scales_and_converts_to_gray(tiny_options):
    options = SourceOptions(image_size=2, grayscale=True, tfds_data_dir=tiny_options.tfds_data_dir)
    source = open_source("tfds:tiny", options)
    assert source.image_shape == (2, 2, 1)
    assert source.read("train", "dress").shape == (2, 2, 2, 1)
    assert source.fingerprint != open_source("tfds:tiny", tiny_options).fingerprint


def test_fingerprint_depends_on_contents(tiny_options, tmp_path):
    fingerprint = open_source("tfds:tiny", tiny_options).fingerprint
    same = prepare_noise_dataset(tmp_path / "same", LABELS)
    assert open_source("tfds:tiny", same).fingerprint == fingerprint
    swapped = prepare_noise_dataset(tmp_path / "other", {**LABELS, "test": [1, 3, 0, 1]})
    assert open_source("tfds:tiny", swapped).fingerprint != fingerprint


def test_read_refuses_unknown_splits(tiny_options):
    with pytest.raises(InputError) as error:
        open_source("tfds:tiny", tiny_options).read("validation", "dress")
    assert str(error.value) == "tfds:tiny: unknown split: expected one of train, test, got 'validation'"


def test_open_tfds_tests_on_last_fifth_without_test_split(tmp_path):
    options = prepare_noise_dataset(tmp_path, {"train": [0] * 11 + [1] * 3})
    source = open_source("tfds:tiny", options)
    assert source.counts == {"train": {"dress": 9, "T-shirt/top": 2}, "test": {"dress": 2, "T-shirt/top": 1}}
    images = np.concatenate([source.read(split, "dress") for split in ("train", "test")])
    assert sorted_contents(images) == sorted_contents([noise_image("train", index) for index in range(11)])


def test_open_tfds_requires_image_size_for_different_sizes(tmp_path):
    options = prepare_noise_dataset(tmp_path, LABELS, name="sizes")
    one_line(open_error("tfds:sizes", options), "tfds:sizes: expected an image_size", "different sizes")
    scaled = SourceOptions(image_size=3, tfds_data_dir=options.tfds_data_dir)
    assert open_source("tfds:sizes", scaled).image_shape == (3, 3, 3)


@pytest.mark.parametrize("name", ["no/such/set", "kaggle:some/set", "mnist/a=1", "../mnist", "a b"])
def test_open_tfds_refuses_malformed_name(name, tmp_path):
    error = open_error(f"tfds:{name}", SourceOptions(tfds_data_dir=str(tmp_path)))
    one_line(error, "expected a name such as mnist, emnist/letters or mnist:3.0.1", f"got {name!r}")


@pytest.mark.parametrize("name", ["no_such_set", "tiny:2.0.0"])
def test_open_tfds_refuses_unknown_name_or_version(name, tiny_options):
    one_line(open_error(f"tfds:{name}", tiny_options), "expected a name and version in", f"got {name!r}")


def test_open_tfds_refuses_unknown_configuration(tmp_path):
    error = open_error("tfds:emnist/runes", SourceOptions(tfds_data_dir=str(tmp_path)))
    one_line(error, "tfds:emnist/runes: expected an available configuration")


def test_open_tfds_shows_how_to_prepare_other_data_sets(tmp_path):
    error = open_error("tfds:cifar10", SourceOptions(tfds_data_dir=str(tmp_path)))
    one_line(error, "tfds:cifar10 is not prepared", tmp_path, "data_source('cifar10'", "array_record")


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_open_tfds_refuses_damaged_records(tmp_path, damage):
    options = prepare_noise_dataset(tmp_path, LABELS)
    (file,) = tmp_path.glob("tiny/1.0.0/*test*")
    content = bytearray(file.read_bytes())
    content[100] ^= 4 * (damage == "flipped")
    file.unlink()
    if damage != "missing":
        file.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    error = open_error("tfds:tiny", options)
    one_line(error, tmp_path / "tiny" / "1.0.0", "got damaged ones", "remove the folder to prepare it again")


def test_open_tfds_refuses_damaged_information(tmp_path):
    options = prepare_noise_dataset(tmp_path, LABELS)
    (tmp_path / "tiny" / "1.0.0" / "dataset_info.json").write_text("{")
    one_line(open_error("tfds:tiny", options), "tfds:tiny: expected ", ", got ")


def test_open_tfds_refuses_other_format(tmp_path):
    options = prepare_noise_dataset(tmp_path, LABELS)
    file = tmp_path / "tiny" / "1.0.0" / "dataset_info.json"
    file.write_text(file.read_text().replace("array_record", "tfrecord"))
    one_line(open_error("tfds:tiny", options), "tfds:tiny: expected ", "format", ", got ", "tfrecord")


def test_open_tfds_refuses_category_in_one_split_only(tmp_path):
    options = prepare_noise_dataset(tmp_path, {**LABELS, "test": [0, 1]})
    error = open_error("tfds:tiny", options)
    one_line(error, "category 'ankle boot': expected both train and test images, got 2 and 0")
