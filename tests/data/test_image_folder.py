"""Folders of pictures as sources: which files, in which split and order, at which size; what is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lifelong_cvae.data import files
from lifelong_cvae.data.image_folder import open_image_folder
from lifelong_cvae.errors import InputError
from tests.conftest import one_line


def draw(path, value, size=(3, 2), kind="PNG"):
    """A picture of one gray value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path, kind)
    return path


def fill(folder, counts, start=0):
    """`counts[name]` pictures of each category, whose gray values go up from `start`, over all of them."""
    value = start
    for name, count in counts.items():
        for index in range(count):
            draw(folder / name / f"{index + 1}.png", value)
            value += 1


def values(source, split, name):
    """The gray values of pictures of one."""
    images = source.read(split, name)
    assert images.dtype == np.uint8
    assert (images == images[:, :1, :1, :1]).all()
    return images[:, 0, 0, 0].tolist()


@pytest.fixture
def folder(tmp_path):
    """Two categories with splits of their own."""
    fill(tmp_path / "train", {"10": 3, "9": 12})
    fill(tmp_path / "test", {"10": 1, "9": 2}, start=100)
    return tmp_path


class TestFolders:
    def test_every_picture_is_in_its_split_and_category_and_both_are_in_natural_order(self, folder):
        source = open_image_folder("images:mine", folder)
        assert source.name == "images:mine"
        assert source.categories == ("9", "10")
        assert source.image_shape == (2, 3, 3)
        assert source.counts == {"train": {"9": 12, "10": 3}, "test": {"9": 2, "10": 1}}
        assert values(source, "train", "9") == [*range(3, 15)]
        assert values(source, "train", "10") == [0, 1, 2]
        assert values(source, "test", "9") == [101, 102]
        assert values(source, "test", "10") == [100]

    def test_png_and_jpeg_of_any_case_are_pictures_and_nothing_else_is(self, tmp_path):
        draw(tmp_path / "a" / "1.PNG", 10)
        draw(tmp_path / "a" / "2.jpg", 20, kind="JPEG")
        draw(tmp_path / "a" / "3.JPEG", 30, kind="JPEG")
        draw(tmp_path / "a" / ".4.png", 40)
        (tmp_path / "a" / "notes.txt").write_text("mine")
        (tmp_path / "a" / "deeper.png").mkdir()
        (tmp_path / ".hidden").mkdir()
        (tmp_path / "readme.md").write_text("mine")
        source = open_image_folder("images:mine", tmp_path)
        assert source.categories == ("a",)
        assert values(source, "train", "a") + values(source, "test", "a") == [10, 20, 30]

    def test_without_folders_of_splits_every_fifth_picture_is_a_test_image(self, tmp_path):
        fill(tmp_path, {"a": 11, "b": 4, "c": 2})
        source = open_image_folder("images:mine", tmp_path)
        assert values(source, "test", "a") == [4, 9]
        assert values(source, "train", "a") == [0, 1, 2, 3, 5, 6, 7, 8, 10]
        assert (values(source, "train", "b"), values(source, "test", "b")) == ([11, 12, 13], [14])
        assert (values(source, "train", "c"), values(source, "test", "c")) == ([15], [16])

    def test_an_unknown_split_is_refused_and_the_known_ones_are_named(self, folder):
        with pytest.raises(InputError, match="no split 'validation': one of train, test is expected"):
            open_image_folder("images:mine", folder).read("validation", "9")

    def test_a_category_is_decoded_when_it_is_read_and_no_other_one(self, folder, monkeypatch):
        source = open_image_folder("images:mine", folder)
        opened = []

        def read(path, *arguments, **options):
            opened.append(path)
            return np.zeros((2, 3, 3), np.uint8)

        monkeypatch.setattr(files, "read_image_file", read)
        source.read("train", "10")
        assert [path.relative_to(folder).as_posix() for path in opened] == [
            f"train/10/{index}.png" for index in (1, 2, 3)
        ]


class TestSizes:
    def test_pictures_of_any_size_become_squares_of_the_size_asked_for(self, tmp_path):
        for index, size in enumerate([(40, 20), (20, 40), (7, 9), (64, 64)]):
            draw(tmp_path / "a" / f"{index}.png", 50, size)
        source = open_image_folder("images:mine", tmp_path, image_size=16)
        assert source.image_shape == (16, 16, 3)
        assert values(source, "train", "a") + values(source, "test", "a") == [50] * 4

    def test_grey_ones_have_a_channel(self, folder):
        source = open_image_folder("images:mine", folder, grayscale=True)
        assert source.image_shape == (2, 3, 1)
        assert source.read("test", "9").shape == (2, 2, 3, 1)

    def test_without_a_size_they_must_have_one(self, folder):
        odd = draw(folder / "test" / "9" / "3.png", 0, (3, 4))
        with pytest.raises(InputError) as error:
            open_image_folder("images:mine", folder)
        one_line(error, odd, "(4, 3)", "(2, 3)", "image_size")


class TestFingerprint:
    def test_is_the_same_wherever_the_folder_is(self, tmp_path):
        for place in ("here", "there"):
            fill(tmp_path / place, {"a": 3, "b": 2})
        here, there = (open_image_folder(place, tmp_path / place).fingerprint for place in ("here", "there"))
        assert here == there

    def test_changes_with_contents_names_splits_and_options(self, folder):
        seen = [open_image_folder("x", folder).fingerprint]
        seen.append(open_image_folder("x", folder, grayscale=True).fingerprint)
        seen.append(open_image_folder("x", folder, image_size=2).fingerprint)
        seen.append(open_image_folder("x", folder, image_size=3).fingerprint)
        draw(folder / "train" / "9" / "1.png", 77)
        seen.append(open_image_folder("x", folder).fingerprint)
        (folder / "train" / "9" / "1.png").rename(folder / "train" / "9" / "0.png")
        seen.append(open_image_folder("x", folder).fingerprint)
        (folder / "train" / "9" / "2.png").rename(folder / "test" / "9" / "20.png")
        seen.append(open_image_folder("x", folder).fingerprint)
        for split in ("train", "test"):
            (folder / split / "9").rename(folder / split / "nine")
        seen.append(open_image_folder("x", folder).fingerprint)
        assert len(set(seen)) == len(seen)


def deep_png():
    """A gray PNG of 2 x 1 pixels with 16 bits each."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" + struct.pack(">2H", 1, 65535))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def cut_jpeg():
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()[: stream.tell() // 2]


class TestRefused:
    def refused(self, folder, *words, **options):
        with pytest.raises(InputError) as error:
            open_image_folder("images:mine", folder, **options)
        one_line(error, *words)

    def test_a_folder_that_is_not_there(self, tmp_path):
        self.refused(tmp_path / "none", tmp_path / "none", "no such folder")

    def test_a_folder_without_categories(self, tmp_path):
        draw(tmp_path / "loose.png", 0)
        self.refused(tmp_path, tmp_path, "no folder of a category", "CATEGORY/*.png")

    def test_a_split_without_categories(self, folder):
        (folder / "train").rename(folder / "away")
        (folder / "train").mkdir()
        self.refused(folder, folder / "train", "no folder of a category")

    @pytest.mark.parametrize(("there", "missing"), [("train", "test"), ("test", "train")])
    def test_one_split_alone(self, folder, there, missing):
        (folder / missing).rename(folder / "away")
        self.refused(folder, folder, f"{there}/ without {missing}/")

    def test_a_category_without_pictures(self, folder):
        (folder / "test" / "8").mkdir()
        self.refused(folder, folder / "test" / "8", "no picture (.png, .jpg, .jpeg)")

    def test_a_category_in_one_split_only(self, folder):
        draw(folder / "test" / "8" / "1.png", 0)
        self.refused(folder, folder, "'8' is in test/ only", "both")

    def test_a_single_picture_that_is_to_be_split(self, tmp_path):
        fill(tmp_path, {"a": 2, "b": 1})
        self.refused(tmp_path, tmp_path / "b", "at least two")

    def test_a_name_that_cannot_be_printed(self, tmp_path):
        fill(tmp_path, {"a\nb": 2})
        self.refused(tmp_path, "printable")

    @pytest.mark.parametrize(
        ("name", "content", "word"),
        [
            ("x.jpg", cut_jpeg(), "truncated"),
            ("x.png", b"This is no picture.", "not a readable picture"),
            ("x.png", b"", "not a readable picture"),
            ("x.png", deep_png(), "8 bits per channel"),
        ],
        ids=["cut short", "text", "empty", "16 bits"],
    )
    def test_a_picture_that_cannot_be_read(self, folder, name, content, word):
        (folder / "test" / "9" / name).write_bytes(content)
        self.refused(folder, folder / "test" / "9" / name, word)
        self.refused(folder, folder / "test" / "9" / name, word, image_size=8)

    def test_a_picture_of_more_pixels_than_memory_should_hold(self, folder, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
        self.refused(folder, folder / "train" / "9" / "1.png", "not a readable picture", "6 pixels")

    def test_a_picture_that_changes_after_it_was_opened(self, folder):
        source = open_image_folder("images:mine", folder)
        changed = draw(folder / "train" / "9" / "2.png", 0, (5, 5))
        with pytest.raises(InputError) as error:
            source.read("train", "9")
        one_line(error, changed, "size")
