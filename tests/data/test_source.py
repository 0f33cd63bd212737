import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong_cvae.data import from_arrays, hold_out, limit_train_images
from lifelong_cvae.errors import InputError
from tests.data.sources import NUMBERS, numbered_arrays, numbered_images, numbers_of, read_numbers


def test_from_arrays_groups_images_by_category_in_order():
    source = from_arrays("mine", **numbered_arrays())
    assert source.name == "mine"
    assert source.categories == ("2", "7", "10")
    assert source.image_shape == (2, 3, 1)
    assert read_numbers(source) == NUMBERS
    assert source.read("train", "2").dtype == np.uint8


def test_from_arrays_counts_images():
    source = from_arrays("mine", **numbered_arrays())
    assert source.counts == {"train": {"2": 5, "7": 1, "10": 3}, "test": {"2": 1, "7": 1, "10": 2}}


def test_from_arrays_accepts_texts_as_labels():
    names = {2: "T-shirt/top", 7: "ä 猫", 10: "bag"}
    labels = {
        key: np.array([names[label] for label in numbered_arrays()[key]]) for key in ("train_labels", "test_labels")
    }
    source = from_arrays("mine", **numbered_arrays(**labels))
    assert source.categories == ("T-shirt/top", "bag", "ä 猫")
    assert read_numbers(source) == {
        split: {names[int(label)]: numbers for label, numbers in parts.items()} for split, parts in NUMBERS.items()
    }


def test_from_arrays_accepts_lists_and_texts_of_different_lengths():
    source = from_arrays(
        "mine",
        train_images=list(numbered_images(1, 2)),
        train_labels=["a", "a long name"],
        test_images=list(numbered_images(3, 4)),
        test_labels=["a long name", "a"],
    )
    assert numbers_of(source.read("test", "a long name")) == [3]


def test_from_arrays_accepts_negative_labels_and_mixed_integer_types():
    labels = {
        "train_labels": np.array([-1, 5, -1, -1, 300, 5, -1, -1, 5], np.int64),
        "test_labels": np.array([5, 300, -1, 5], np.int16),
    }
    source = from_arrays("mine", **numbered_arrays(**labels))
    assert source.categories == ("-1", "5", "300")
    assert numbers_of(source.read("test", "300")) == [21]


def test_from_arrays_keeps_color_channels():
    color = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)
    source = from_arrays(
        "mine", train_images=color, train_labels=[0, 1, 1, 0], test_images=color[:2], test_labels=[0, 1]
    )
    assert source.image_shape == (2, 3, 3)
    np.testing.assert_array_equal(source.read("train", "0"), color[[0, 3]])


def test_read_refuses_unknown_splits():
    with pytest.raises(InputError) as error:
        from_arrays("mine", **numbered_arrays()).read("validation", "2")
    assert str(error.value) == "mine: unknown split: expected one of train, test, got 'validation'"


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40))
def test_read_returns_each_image_once(labels):
    images = numbered_images(*range(len(labels)))
    source = from_arrays("mine", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    pairs = [(number, name) for name in source.categories for number in numbers_of(source.read("train", name))]
    assert sorted(pairs) == [(number, str(label)) for number, label in enumerate(labels)]
    assert list(map(int, source.categories)) == sorted(set(labels))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("change", [1, -1])
def test_from_arrays_refuses_different_lengths(split, change):
    labels = numbered_arrays()[f"{split}_labels"]
    wrong = np.append(labels, labels[:1]) if change > 0 else labels[:-1]
    expected = f"expected as many {split} labels as images, got {len(wrong)} labels and {len(labels)} images"
    with pytest.raises(InputError, match=f"mine: {expected}"):
        from_arrays("mine", **numbered_arrays(**{f"{split}_labels": wrong}))


@pytest.mark.parametrize("shape", [(9,), (9, 2, 3, 1, 1), (0, 2, 3), (0, 6)])
def test_from_arrays_refuses_other_ranks_or_no_images(shape):
    with pytest.raises(InputError) as error:
        from_arrays("mine", **numbered_arrays(train_images=np.zeros(shape, np.uint8)))
    assert str(error.value) == f"mine: train images: expected [n, h, w] or [n, h, w, c], or vectors [n, d], got {shape}"


@pytest.mark.parametrize(
    "labels",
    [np.full(4, 0.5), np.zeros((4, 2), int), np.zeros((4, 1, 1)), np.zeros(4, complex)],
    ids=["floats", "matrix", "three axes", "complex"],
)
def test_from_arrays_refuses_other_kinds_of_labels(labels):
    with pytest.raises(InputError, match=r"mine: test labels: expected whole numbers or texts \[n\], got") as error:
        from_arrays("mine", **numbered_arrays(test_labels=labels))
    assert str(labels.dtype) in str(error.value)


def test_from_arrays_refuses_splits_of_different_shapes():
    with pytest.raises(InputError, match=r"images of one shape, got \(2, 3, 1\) and \(3, 2, 1\)"):
        from_arrays("mine", **numbered_arrays(test_images=np.zeros((4, 3, 2), np.uint8)))


def test_from_arrays_refuses_splits_of_different_label_types():
    with pytest.raises(InputError, match="labels of one type, got uint8 and <U1"):
        from_arrays("mine", **numbered_arrays(test_labels=list("abca")))


@pytest.mark.parametrize(("split", "labels"), [("test", [10, 7, 2, 3]), ("train", [2, 10, 2, 3, 7, 10, 2, 2, 10])])
def test_from_arrays_refuses_label_in_one_split_only(split, labels):
    with pytest.raises(InputError) as error:
        from_arrays("mine", **numbered_arrays(**{f"{split}_labels": labels}))
    assert str(error.value) == f"mine: label 3: expected train and test images, got {split} images only"


def test_from_arrays_refuses_images_without_pixels():
    empty = {"train_images": np.zeros((9, 0, 3)), "test_images": np.zeros((4, 0, 3))}
    with pytest.raises(InputError, match=r"image shape: .* got \(0, 3, 1\)"):
        from_arrays("mine", **numbered_arrays(**empty))


def test_from_arrays_reports_errors_in_one_line():
    with pytest.raises(InputError) as error:
        from_arrays("mine", **numbered_arrays(train_images=np.zeros((9, 6))))
    assert "\n" not in str(error.value)


def test_fingerprint_does_not_depend_on_name():
    arrays = numbered_arrays()
    assert from_arrays("one", **arrays).fingerprint == from_arrays("two", **arrays).fingerprint


@pytest.mark.parametrize("split", ["train", "test"])
def test_fingerprint_depends_on_every_pixel(split):
    fingerprints = {from_arrays("mine", **numbered_arrays()).fingerprint}
    images = numbered_arrays()[f"{split}_images"]
    for index in np.ndindex(images.shape):
        changed = images.copy()
        changed[index] ^= 1
        fingerprints.add(from_arrays("mine", **numbered_arrays(**{f"{split}_images": changed})).fingerprint)
    assert len(fingerprints) == 1 + images.size


@pytest.mark.parametrize("split", ["train", "test"])
def test_fingerprint_depends_on_labels(split):
    labels = numbered_arrays()[f"{split}_labels"][::-1]
    changed = from_arrays("mine", **numbered_arrays(**{f"{split}_labels": labels}))
    assert changed.fingerprint != from_arrays("mine", **numbered_arrays()).fingerprint


def test_fingerprint_does_not_depend_on_memory_layout():
    images = np.asfortranarray(numbered_arrays()["train_images"])
    changed = from_arrays("mine", **numbered_arrays(train_images=images))
    assert changed.fingerprint == from_arrays("mine", **numbered_arrays()).fingerprint


def test_fingerprint_depends_on_image_shape():
    reshaped = {key: numbered_arrays()[key].reshape(-1, 3, 2) for key in ("train_images", "test_images")}
    changed = from_arrays("mine", **numbered_arrays(**reshaped))
    assert changed.fingerprint != from_arrays("mine", **numbered_arrays()).fingerprint


def test_hold_out_sets_last_images_aside_in_order():
    # 0.4 of 5, 2 and 3 images: 2, 1 (0.8 rounded) and 1 (1.2 rounded)
    labels = np.array([2, 10, 2, 2, 7, 10, 2, 2, 10, 7], np.uint8)
    source = from_arrays("mine", **numbered_arrays(train_images=numbered_images(*range(10)), train_labels=labels))
    split_source = hold_out(source, 0.4)
    train, validation, test = (
        {name: numbers_of(split_source.read(split, name)) for name in split_source.categories}
        for split in ("train", "validation", "test")
    )
    assert train == {"2": [0, 2, 3], "7": [4], "10": [1, 5]}
    assert validation == {"2": [6, 7], "7": [9], "10": [8]}
    assert test == NUMBERS["test"]
    assert split_source.counts == {
        "train": {"2": 3, "7": 1, "10": 2},
        "validation": {"2": 2, "7": 1, "10": 1},
        "test": source.counts["test"],
    }


def test_hold_out_does_not_modify_source():
    source = from_arrays("mine", **numbered_arrays(train_labels=[2, 10, 7, 2, 7, 10, 2, 2, 10]))
    before = {name: numbers_of(source.read("train", name)) for name in source.categories}
    split_source = hold_out(source, 0.5)
    assert {name: numbers_of(source.read("train", name)) for name in source.categories} == before
    assert (split_source.name, split_source.categories, split_source.fingerprint) == (
        source.name,
        source.categories,
        source.fingerprint,
    )


def test_hold_out_of_zero_holds_nothing_out():
    source = hold_out(from_arrays("mine", **numbered_arrays()), 0)
    assert read_numbers(source) == NUMBERS
    with pytest.raises(InputError, match=r"unknown split: .*, got 'validation'"):
        source.read("validation", "2")


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan"), float("inf")])
def test_hold_out_refuses_fraction_out_of_range(fraction):
    with pytest.raises(InputError, match=f"validation_fraction: expected at least 0 and below 1, got {fraction}"):
        hold_out(from_arrays("mine", **numbered_arrays()), fraction)


@pytest.mark.parametrize(
    ("fraction", "message"),
    [(0.9, "category '7' in each part, got 0 and 1 of 1"), (0.01, "category '2' in each part, got 5 and 0 of 5")],
    ids=["nothing left to learn", "nothing to validate"],
)
def test_hold_out_names_category_too_small_to_split(fraction, message):
    with pytest.raises(InputError, match=f"validation_fraction={fraction}: too few images .*{message}"):
        hold_out(from_arrays("mine", **numbered_arrays()), fraction)


def test_hold_out_refuses_unknown_splits():
    source = from_arrays("mine", **numbered_arrays(train_labels=[2, 10, 7, 2, 7, 10, 2, 2, 10]))
    with pytest.raises(InputError, match=r"unknown split: .*, got 'valid'"):
        hold_out(source, 0.5).read("valid", "2")


@given(count=st.integers(1, 60), fraction=st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_hold_out_parts_have_requested_sizes(count, fraction):
    images = numbered_images(*range(count))
    source = from_arrays("mine", train_images=images, train_labels=[3] * count, test_images=images[:1], test_labels=[3])
    try:
        split_source = hold_out(source, fraction)
    except InputError:
        # Refused only if rounding leaves one of the parts empty.
        assert min(fraction * count, count - fraction * count) <= 0.5
        return
    validation = numbers_of(split_source.read("validation", "3"))
    assert numbers_of(split_source.read("train", "3")) + validation == list(range(count))
    assert abs(len(validation) - fraction * count) <= 0.5


def test_limit_train_images_keeps_first_images_of_named_categories(mnist5k):
    limited = limit_train_images(mnist5k, ["3", "5"], 7)
    assert limited.counts["train"] == {**mnist5k.counts["train"], "3": 7, "5": 7}
    np.testing.assert_array_equal(limited.read("train", "5"), mnist5k.read("train", "5")[:7])
    np.testing.assert_array_equal(limited.read("train", "4"), mnist5k.read("train", "4"))
    np.testing.assert_array_equal(limited.read("test", "3"), mnist5k.read("test", "3"))
    with pytest.raises(InputError, match="images_per_category: expected at least 1, got 0"):
        limit_train_images(mnist5k, ["3"], 0)
