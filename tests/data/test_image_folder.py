import io
import struct

import numpy as np
import pytest
from PIL import Image

from lifelong_cvae.data import open_source, pictures
from lifelong_cvae.data.image_folder import open_image_folder
from lifelong_cvae.errors import InputError
from tests.conftest import one_line
from tests.data.file_contents import png_bytes


def write_picture(path, value, size=(3, 2), kind="PNG"):
    """Writes a picture of one gray value and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path, kind)
    return path


def write_pictures(folder, counts, start=0):
    """Writes `counts[name]` pictures of each category. Gray values increase from 100 + `start` over all pictures."""
    value = start
    for name, count in counts.items():
        for index in range(count):
            write_picture(folder / name / f"{index + 1}.png", 100 + value)
            value += 1


def gray_values(source, split, name):
    """Gray values, less 100, of the pictures of a category, each of a single value."""
    images = source.read(split, name)
    assert images.dtype == np.uint8
    assert (images == images[:, :1, :1, :1]).all()
    return [int(value) - 100 for value in images[:, 0, 0, 0]]


def assert_refused(folder, *words, **options):
    """Opening raises an InputError of one line that contains the words."""
    with pytest.raises(InputError) as error:
        open_image_folder("images:mine", folder, **options)
    one_line(error, *words)


@pytest.fixture
def folder(tmp_path):
    """Folder of two categories with folders `train` and `test`."""
    write_pictures(tmp_path / "train", {"10": 3, "9": 12})
    write_pictures(tmp_path / "test", {"10": 1, "9": 2}, start=100)
    return tmp_path


def test_open_image_folder_sorts_categories_and_pictures_in_natural_order(folder):
    source = open_image_folder("images:mine", folder)
    assert source.name == "images:mine"
    assert source.categories == ("9", "10")
    assert source.image_shape == (2, 3, 3)
    assert source.counts == {"train": {"9": 12, "10": 3}, "test": {"9": 2, "10": 1}}
    assert gray_values(source, "train", "9") == [*range(3, 15)]
    assert gray_values(source, "train", "10") == [0, 1, 2]
    assert gray_values(source, "test", "9") == [101, 102]
    assert gray_values(source, "test", "10") == [100]


def test_open_image_folder_reads_png_and_jpeg_only(tmp_path):
    write_picture(tmp_path / "a" / "1.PNG", 10)
    write_picture(tmp_path / "a" / "2.jpg", 20, kind="JPEG")
    write_picture(tmp_path / "a" / "3.JPEG", 30, kind="JPEG")
    write_picture(tmp_path / "a" / ".4.png", 40)
    (tmp_path / "a" / "notes.txt").write_text("mine")
    (tmp_path / "a" / "deeper.png").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "readme.md").write_text("mine")
    source = open_image_folder("images:mine", tmp_path)
    assert source.categories == ("a",)
    assert gray_values(source, "train", "a") + gray_values(source, "test", "a") == [-90, -80, -70]


def test_open_image_folder_tests_on_every_fifth_picture_without_splits(tmp_path):
    write_pictures(tmp_path, {"a": 11, "b": 4, "c": 2})
    source = open_image_folder("images:mine", tmp_path)
    assert gray_values(source, "test", "a") == [4, 9]
    assert gray_values(source, "train", "a") == [0, 1, 2, 3, 5, 6, 7, 8, 10]
    assert (gray_values(source, "train", "b"), gray_values(source, "test", "b")) == ([11, 12, 13], [14])
    assert (gray_values(source, "train", "c"), gray_values(source, "test", "c")) == ([15], [16])


def test_read_refuses_unknown_splits(folder):
    with pytest.raises(InputError) as error:
        open_image_folder("images:mine", folder).read("validation", "9")
    assert str(error.value) == "images:mine: unknown split: expected one of train, test, got 'validation'"


def test_read_decodes_only_its_category(folder, monkeypatch):
    source = open_image_folder("images:mine", folder)
    paths = []

    def record_path(path, *arguments, **options):
        paths.append(path)
        return np.zeros((2, 3, 3), np.uint8)

    monkeypatch.setattr(pictures, "read_picture", record_path)
    source.read("train", "10")
    assert [path.relative_to(folder).as_posix() for path in paths] == [f"train/10/{index}.png" for index in (1, 2, 3)]


def test_open_image_folder_scales_to_image_size(tmp_path):
    for index, size in enumerate([(40, 20), (20, 40), (7, 9), (64, 64)]):
        write_picture(tmp_path / "a" / f"{index}.png", 50, size)
    source = open_image_folder("images:mine", tmp_path, image_size=16)
    assert source.image_shape == (16, 16, 3)
    assert gray_values(source, "train", "a") + gray_values(source, "test", "a") == [-50] * 4


def test_open_image_folder_reads_one_channel_if_grayscale(folder):
    source = open_image_folder("images:mine", folder, grayscale=True)
    assert source.image_shape == (2, 3, 1)
    assert source.read("test", "9").shape == (2, 2, 3, 1)


def test_open_image_folder_refuses_different_sizes_without_image_size(folder):
    path = write_picture(folder / "test" / "9" / "3.png", 0, (3, 4))
    assert_refused(folder, f"{path}: expected the size (2, 3) of ", "got (4, 3)", "image_size")


def test_fingerprint_does_not_depend_on_location(tmp_path):
    for name in ("one", "two"):
        write_pictures(tmp_path / name, {"a": 3, "b": 2})
    first, second = (open_image_folder(name, tmp_path / name).fingerprint for name in ("one", "two"))
    assert first == second


def test_fingerprint_depends_on_contents_names_splits_and_options(folder):
    fingerprints = [open_image_folder("x", folder).fingerprint]
    fingerprints.append(open_image_folder("x", folder, grayscale=True).fingerprint)
    fingerprints.append(open_image_folder("x", folder, image_size=2).fingerprint)
    fingerprints.append(open_image_folder("x", folder, image_size=3).fingerprint)
    write_picture(folder / "train" / "9" / "1.png", 77)
    fingerprints.append(open_image_folder("x", folder).fingerprint)
    (folder / "train" / "9" / "1.png").rename(folder / "train" / "9" / "0.png")
    fingerprints.append(open_image_folder("x", folder).fingerprint)
    (folder / "train" / "9" / "2.png").rename(folder / "test" / "9" / "20.png")
    fingerprints.append(open_image_folder("x", folder).fingerprint)
    for split in ("train", "test"):
        (folder / split / "9").rename(folder / split / "nine")
    fingerprints.append(open_image_folder("x", folder).fingerprint)
    assert len(set(fingerprints)) == len(fingerprints)


def test_open_image_folder_refuses_missing_folder(tmp_path):
    assert_refused(tmp_path / "none", tmp_path / "none", "no such folder")


def test_open_image_folder_refuses_folder_without_categories(tmp_path):
    write_picture(tmp_path / "loose.png", 0)
    assert_refused(tmp_path, f"{tmp_path}: no category folder, expected", "CATEGORY/*.png")


def test_open_image_folder_refuses_split_without_categories(folder):
    (folder / "train").rename(folder / "away")
    (folder / "train").mkdir()
    assert_refused(folder, f"{folder / 'train'}: no category folder")


@pytest.mark.parametrize(("existing", "missing"), [("train", "test"), ("test", "train")])
def test_open_image_folder_refuses_one_split_alone(folder, existing, missing):
    (folder / missing).rename(folder / "away")
    assert_refused(folder, folder, f"got {existing}/ without {missing}/")


def test_open_image_folder_refuses_category_without_pictures(folder):
    (folder / "test" / "8").mkdir()
    assert_refused(folder, folder / "test" / "8", "no picture in this category folder", ".png, .apng, .jpg")


def test_open_image_folder_refuses_category_in_one_split_only(folder):
    write_picture(folder / "test" / "8" / "1.png", 0)
    assert_refused(folder, "category '8': expected in train/ and test/, got in test/ only")


def test_open_image_folder_refuses_single_picture_without_splits(tmp_path):
    write_pictures(tmp_path, {"a": 2, "b": 1})
    assert_refused(tmp_path, tmp_path / "b", "at least two", "got one")


def test_open_image_folder_refuses_unprintable_category(tmp_path):
    write_pictures(tmp_path, {"a\nb": 2})
    assert_refused(tmp_path, "printable")


def truncated_jpeg():
    """First half of a JPEG file."""
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()[: stream.tell() // 2]


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("x.jpg", truncated_jpeg(), "truncated"),
        ("x.png", b"This is no picture.", "not a readable picture"),
        ("x.png", b"", "not a readable picture"),
        ("x.png", png_bytes([struct.pack(">3H", 1, 2, 65535)] * 2, 3, 2, depth=16), "expected pixels of type uint8"),
    ],
    ids=["truncated", "text", "empty", "16 bits"],
)
def test_open_image_folder_refuses_unreadable_picture(folder, name, content, word):
    (folder / "test" / "9" / name).write_bytes(content)
    assert_refused(folder, folder / "test" / "9" / name, word)
    assert_refused(folder, folder / "test" / "9" / name, word, image_size=8)


def test_open_image_folder_refuses_pictures_of_too_many_pixels(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    assert_refused(folder, folder / "train" / "9" / "1.png", "not a readable picture", "6 pixels")


def test_read_refuses_picture_that_changed_after_opening(folder):
    source = open_image_folder("images:mine", folder)
    path = write_picture(folder / "train" / "9" / "2.png", 0, (5, 5))
    with pytest.raises(InputError) as error:
        source.read("train", "9")
    one_line(error, path, "size", "got (5, 5)")


@pytest.mark.parametrize(("train", "test"), [("train", "val"), ("Train", "Valid"), ("training", "validation")])
def test_open_image_folder_reads_splits_of_other_names(folder, train, test):
    expected = open_image_folder("x", folder).fingerprint
    (folder / "train").rename(folder / "away")
    (folder / "away").rename(folder / train)
    (folder / "test").rename(folder / test)
    source = open_image_folder("x", folder)
    assert source.counts == {"train": {"9": 12, "10": 3}, "test": {"9": 2, "10": 1}}
    assert source.fingerprint == expected


def test_open_image_folder_prefers_test_to_val_and_says_what_it_skips(folder):
    write_pictures(folder / "val", {"9": 1})
    (folder / "labels.csv").write_text("mine")
    (folder / "train" / "9" / "notes.txt").write_text("mine")
    source = open_image_folder("x", folder)
    assert source.counts["test"] == {"9": 2, "10": 1}
    assert source.note.startswith("skipped 3 entries that are no pictures: ")
    assert all(kind in source.note for kind in (".txt (1)", "labels.csv (1)", "val/ (1)"))


@pytest.mark.parametrize("name", ["train", "test", "val"])
def test_open_image_folder_reads_a_category_with_the_name_of_a_split(tmp_path, name):
    write_pictures(tmp_path, {"car": 3, name: 2})
    assert open_image_folder("x", tmp_path).categories == tuple(sorted(("car", name)))


def test_open_image_folder_skips_what_systems_leave(tmp_path):
    write_pictures(tmp_path, {"a": 3})
    write_picture(tmp_path / "a" / "._1.png", 3)
    write_picture(tmp_path / "__MACOSX" / "a" / "._1.png", 3)
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"")
    (tmp_path / ".DS_Store").write_bytes(b"")
    source = open_image_folder("x", tmp_path)
    assert (source.counts["train"], source.counts["test"], source.note) == ({"a": 2}, {"a": 1}, "")


def test_open_image_folder_counts_pictures_by_format(tmp_path):
    for index, kind in enumerate(("png", "webp", "bmp", "png")):
        write_picture(tmp_path / "a" / f"{index}.{kind}", 30, kind=kind.upper())
    assert open_image_folder("x", tmp_path).note == "pictures: .png (2), .webp (1), .bmp (1)"


def test_open_image_folder_names_categories_in_one_unicode_form(tmp_path):
    write_pictures(tmp_path, {"e\u0301te\u0301": 2})
    assert open_image_folder("x", tmp_path).categories == ("été",)
    write_pictures(tmp_path, {"été": 2})
    assert_refused(tmp_path, "category 'été': expected one folder of this name, got two Unicode forms")


def test_open_image_folder_finds_white_of_deep_and_of_binary_pictures(tmp_path):
    for value, dtype, white in ((1, np.uint8, 1), (4000, np.uint16, 4095)):
        folder = tmp_path / str(value)
        for index, level in enumerate((0, value, value)):
            (folder / "a").mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((2, 3), level, dtype)).save(folder / "a" / f"{index}.png")
        source = open_image_folder("x", folder, grayscale=True)
        assert source.max_value == white
        np.testing.assert_allclose(source.read("train", "a").max(), value / white)
        assert open_image_folder("x", folder, grayscale=True, max_value=8000).read("test", "a").max() == value / 8000


def test_image_folder_of_color_png_files_equals_the_npz_file(tmp_path):
    numbers, arrays = np.random.default_rng(2), {}
    for split, count in (("train", 6), ("test", 3)):
        images = numbers.integers(0, 256, (2 * count, 32, 32, 3), np.uint8)
        arrays |= {f"{split}_images": images, f"{split}_labels": np.repeat(["cat", "dog"], count)}
        for index, image in enumerate(images):
            folder = tmp_path / "photos" / split / arrays[f"{split}_labels"][index]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{index:03}.png")
    np.savez(tmp_path / "photos.npz", **arrays)
    from_folder = open_source(f"images:{tmp_path / 'photos'}")
    from_file = open_source(f"npz:{tmp_path / 'photos.npz'}")
    assert from_folder.image_shape == from_file.image_shape == (32, 32, 3)
    assert from_folder.max_value == from_file.max_value
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            first, second = from_folder.read(split, name), from_file.read(split, name)
            assert first.dtype == second.dtype
            np.testing.assert_array_equal(first, second)
