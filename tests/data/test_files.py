"""Files of images: what is read, and that damage is told, never read."""

import gzip
import io
import math
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lifelong_cvae.data.files import natural_order, read_idx, read_image_file, read_image_files, read_images, read_npz
from lifelong_cvae.errors import InputError
from tests.fuzz import fuzz, outcome

PIXELS = list(range(24))  # of two images of 3 x 4
# The same folder serves all examples: each example overwrites its files.
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def idx_bytes(values, *sizes, kind=8):
    return struct.pack(f">HBB{len(sizes)}I", 0, kind, len(sizes), *sizes) + bytes(values)


def png_bytes(rows, width, height, *, color=0, depth=8):
    """A PNG by the letter of its specification; `rows` are the bytes of each row."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def put(folder, name, content):
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.fixture(params=["images", "images.gz"])
def idx_name(request):
    """A plain and a gzipped IDX file."""
    return request.param


class TestIdx:
    def test_values_and_shape(self, tmp_path, idx_name):
        array = read_idx(put(tmp_path, idx_name, idx_bytes(PIXELS, 2, 3, 4)))
        assert array.dtype == np.uint8
        assert array.tolist() == [
            [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]],
            [[12, 13, 14, 15], [16, 17, 18, 19], [20, 21, 22, 23]],
        ]

    def test_no_data_where_a_size_is_zero(self, tmp_path, idx_name):
        assert read_idx(put(tmp_path, idx_name, idx_bytes([], 0, 3, 4))).shape == (0, 3, 4)

    @same_folder
    @given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=4), data=st.data())
    def test_any_array_comes_back(self, tmp_path, sizes, data):
        total = math.prod(sizes)
        values = data.draw(st.binary(min_size=total, max_size=total))
        name = data.draw(st.sampled_from(["any", "any.gz"]))
        array = read_idx(put(tmp_path, name, idx_bytes(values, *sizes)))
        assert array.shape == tuple(sizes)
        assert array.tobytes() == values

    def test_a_missing_file(self, tmp_path, idx_name):
        with pytest.raises(InputError, match=f"{idx_name}: no such file"):
            read_idx(tmp_path / idx_name)

    def test_a_folder(self, tmp_path):
        with pytest.raises(InputError, match="no such file"):
            read_idx(tmp_path)

    def test_an_empty_file(self, tmp_path, idx_name):
        with pytest.raises(InputError, match=f"{idx_name}: not an IDX file .*absent"):
            read_idx(put(tmp_path, idx_name, b""))

    def test_no_bytes_at_all_for_gzip(self, tmp_path):
        (tmp_path / "images.gz").write_bytes(b"")
        with pytest.raises(InputError, match=r"images\.gz"):
            read_idx(tmp_path / "images.gz")

    @pytest.mark.parametrize(
        "magic",
        [
            b"\1\0\x08\x03",
            b"\0\1\x08\x03",
            b"\0\0\x0d\x03",
            b"\0\0\x08\x00",
            b"\0\0\x08\x05",
            b"\x89PNG",
            b"\0\0\x08",
        ],
    )
    def test_a_wrong_magic_number_is_shown(self, tmp_path, idx_name, magic):
        with pytest.raises(InputError, match=f"not an IDX file of uint8: .* {magic.hex(' ')}$"):
            read_idx(put(tmp_path, idx_name, magic + idx_bytes(PIXELS, 2, 3, 4)[4:] * (len(magic) == 4)))

    @pytest.mark.parametrize("kept", range(16, 40))
    def test_data_cut_short_anywhere(self, tmp_path, idx_name, kept):
        path = put(tmp_path, idx_name, idx_bytes(PIXELS, 2, 3, 4)[:kept])
        with pytest.raises(InputError, match=r"says \(2, 3, 4\), 24 bytes .* got " + f"{kept - 16}$"):
            read_idx(path)

    def test_sizes_beyond_what_an_array_can_have(self, tmp_path, idx_name):
        with pytest.raises(InputError, match=f"{idx_name}: "):
            read_idx(put(tmp_path, idx_name, idx_bytes([], 0, 2**32 - 1, 2**32 - 1, 2**32 - 1)))

    @pytest.mark.parametrize("kept", range(4, 13))
    def test_a_header_cut_short(self, tmp_path, idx_name, kept):
        with pytest.raises(InputError, match=f"{idx_name}: "):
            read_idx(put(tmp_path, idx_name, idx_bytes(PIXELS, 2, 3, 4)[:kept]))

    @pytest.mark.parametrize("kept", [13, 14, 15])
    def test_a_header_cut_short_within_its_last_size(self, tmp_path, idx_name, kept):
        with pytest.raises(InputError, match=f"{idx_name}: "):
            read_idx(put(tmp_path, idx_name, idx_bytes(PIXELS, 2, 3, 4)[:kept]))

    def test_one_byte_too_many(self, tmp_path, idx_name):
        with pytest.raises(InputError, match="24 bytes of data are expected, got more than 24"):
            read_idx(put(tmp_path, idx_name, idx_bytes([*PIXELS, 0], 2, 3, 4)))

    def test_gzip_data_cut_short_anywhere(self, tmp_path):
        whole = put(tmp_path, "images.gz", idx_bytes(PIXELS, 2, 3, 4)).read_bytes()
        for kept in range(len(whole)):
            (tmp_path / "images.gz").write_bytes(whole[:kept])
            with pytest.raises(InputError, match=r"images\.gz: "):
                read_idx(tmp_path / "images.gz")

    def test_every_single_flipped_bit_of_gzip_data_is_told_or_harmless(self, tmp_path):
        expected = np.array(PIXELS).reshape(2, 3, 4)
        whole = put(tmp_path, "images.gz", idx_bytes(PIXELS, 2, 3, 4)).read_bytes()
        told = 0
        for bit in range(8 * len(whole)):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            (tmp_path / "images.gz").write_bytes(damaged)
            try:
                np.testing.assert_array_equal(read_idx(tmp_path / "images.gz"), expected)
            except InputError:
                told += 1
        # Harmless are the header's time, system and flags (ten bytes at most), not the data.
        assert told >= 8 * (len(whole) - 10)

    def test_plain_data_called_gz(self, tmp_path):
        (tmp_path / "images.gz").write_bytes(idx_bytes(PIXELS, 2, 3, 4))
        with pytest.raises(InputError, match="damaged gzip data"):
            read_idx(tmp_path / "images.gz")

    @pytest.mark.parametrize(
        "sizes",
        [(64, 1024, 256, 256), (1 << 16, 1 << 10, 1 << 10, 1 << 10), (2**32 - 1,) * 4],
        ids=["4 GB", "64 TB", "more than memory has addresses for"],
    )
    def test_a_header_of_20_bytes_that_claims_the_world_allocates_nothing(self, tmp_path, idx_name, sizes):
        path = put(tmp_path, idx_name, idx_bytes([], *sizes))
        tracemalloc.start()
        try:
            with pytest.raises(InputError, match=f"{math.prod(sizes)} bytes of data are expected, got 0"):
                read_idx(path)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


class TestNpz:
    def test_arrays_in_the_order_of_the_keys(self, tmp_path):
        path = npz(tmp_path / "a.npz", first=np.arange(3), second=np.array(["ä", "b"]), third=np.eye(2))
        third, second = read_npz(path, ("third", "second"))
        assert third.tolist() == [[1, 0], [0, 1]]
        assert second.tolist() == ["ä", "b"]

    def test_compressed_ones_too(self, tmp_path):
        np.savez_compressed(tmp_path / "a.npz", images=np.arange(6, dtype=np.uint8))
        (images,) = read_npz(tmp_path / "a.npz", ("images",))
        assert images.dtype == np.uint8
        assert images.tolist() == [0, 1, 2, 3, 4, 5]

    def test_a_missing_file_names_what_is_expected(self, tmp_path):
        with pytest.raises(InputError, match=r"a\.npz: no such file; .* first, second"):
            read_npz(tmp_path / "a.npz", ("first", "second"))

    def test_a_missing_key_names_it_and_what_is_there(self, tmp_path):
        path = npz(tmp_path / "a.npz", pictures=np.zeros(1), other=np.zeros(1))
        with pytest.raises(InputError, match=r"lacks images, labels; it holds pictures, other"):
            read_npz(path, ("images", "labels", "other"))

    def test_pickled_objects_are_not_unpickled(self, tmp_path):
        touched = tmp_path / "touched"

        class Bomb:
            def __reduce__(self):
                return (touched.write_text, ("unpickled",))

        bomb = np.empty(1, object)
        bomb[0] = Bomb()
        path = npz(tmp_path / "a.npz", images=bomb)
        with pytest.raises(InputError, match=r"plain arrays.*pickle"):
            read_npz(path, ("images",))
        assert not touched.exists()

    @pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY", b"PK\3\4", bytes(100)])
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_not_an_npz_file(self, tmp_path, content):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.npz: not a") as caught:
            read_npz(tmp_path / "a.npz", ("images",))
        assert "\n" not in str(caught.value)

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_a_single_array_called_npz(self, tmp_path):
        with (tmp_path / "a.npz").open("wb") as file:
            np.save(file, np.zeros(3))
        with pytest.raises(InputError, match=r"a\.npz: not an npz file"):
            read_npz(tmp_path / "a.npz", ("images",))

    def test_a_zip_file_of_other_things(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
            file.writestr("images", b"hello")
        with pytest.raises(InputError, match=r"a\.npz: "):
            read_npz(tmp_path / "a.npz", ("images",))

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_cut_short_anywhere(self, tmp_path):
        path = npz(tmp_path / "a.npz", images=np.arange(64, dtype=np.uint8))
        whole = path.read_bytes()
        for kept in range(0, len(whole), 3):
            path.write_bytes(whole[:kept])
            with pytest.raises(InputError, match=r"a\.npz: "):
                read_npz(path, ("images",))

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_a_flipped_bit_of_the_data_is_told(self, tmp_path, save):
        pixels = np.random.default_rng(0).integers(0, 256, 400).astype(np.uint8)
        save(tmp_path / "a.npz", images=pixels)
        whole = (tmp_path / "a.npz").read_bytes()
        start = whole.index(pixels[100:110].tobytes()) if save is np.savez else len(whole) // 2
        for byte in range(start, start + 20):
            damaged = bytearray(whole)
            damaged[byte] ^= 1 << byte % 8
            (tmp_path / "a.npz").write_bytes(damaged)
            with pytest.raises(InputError, match="not a readable npz file"):
                read_npz(tmp_path / "a.npz", ("images",))

    @pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, 99)], ids=["encrypted", "unknown compression"])
    def test_a_zip_file_of_a_kind_that_is_not_supported(self, tmp_path, offset, value):
        path = npz(tmp_path / "a.npz", images=np.zeros(3))
        damaged = bytearray(path.read_bytes())
        central, local = damaged.index(b"PK\1\2"), damaged.index(b"PK\3\4")
        damaged[central + offset] = damaged[local + offset - 2] = value
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="not a readable npz file"):
            read_npz(path, ("images",))


GREY = [[0, 50, 100], [150, 200, 255]]
COLOR = [[255, 0, 0, 0, 255, 0], [0, 0, 255, 10, 20, 30]]


class TestPictures:
    def test_grey(self, tmp_path):
        paths = [
            put(tmp_path, "a.png", png_bytes(GREY, 3, 2)),
            put(tmp_path, "b.png", png_bytes(GREY[::-1], 3, 2)),
        ]
        images = read_image_files(paths, 1)
        assert images.dtype == np.uint8
        assert images.shape == (2, 2, 3, 1)
        assert images[..., 0].tolist() == [GREY, GREY[::-1]]

    def test_colour(self, tmp_path):
        images = read_image_files([put(tmp_path, "a.png", png_bytes(COLOR, 2, 2, color=2))], 3)
        assert images.shape == (1, 2, 2, 3)
        assert images.tolist() == [[[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]]]

    def test_a_grey_one_as_colour_has_three_equal_channels(self, tmp_path):
        images = read_image_files([put(tmp_path, "a.png", png_bytes(GREY, 3, 2))], 3)
        for channel in range(3):
            assert images[0, :, :, channel].tolist() == GREY

    def test_a_colour_one_as_grey_has_its_luma(self, tmp_path):
        images = read_image_files([put(tmp_path, "a.png", png_bytes(COLOR, 2, 2, color=2))], 1)
        # ITU-R 601-2: 0.299 red + 0.587 green + 0.114 blue
        expected = [[76.2, 149.7], [29.1, 18.2]]
        np.testing.assert_allclose(images[0, :, :, 0], expected, atol=1)

    def test_16_bits_are_scaled_or_refused_not_cut_off(self, tmp_path):
        rows = [struct.pack(">3H", 0, 0x4000, 0xFFFF)]
        try:
            images = read_image_files([put(tmp_path, "a.png", png_bytes(rows, 3, 1, depth=16))], 1)
        except InputError:
            return
        assert images[0, 0, :, 0].tolist() == [0, 0x40, 0xFF]

    @pytest.mark.parametrize("channels", [0, 2, 4])
    def test_other_numbers_of_channels_are_refused(self, tmp_path, channels):
        with pytest.raises(InputError, match=f"1 or 3 channels, images of {channels} are expected"):
            read_image_files([put(tmp_path, "a.png", png_bytes(GREY, 3, 2))], channels)

    def test_unequal_sizes_name_the_file_and_both_sizes(self, tmp_path):
        paths = [
            put(tmp_path, "a.png", png_bytes(GREY, 3, 2)),
            put(tmp_path, "b.png", png_bytes([[1, 2], [3, 4], [5, 6]], 2, 3)),
        ]
        with pytest.raises(InputError, match=r"b\.png: size \(3, 2\), but .*a\.png has \(2, 3\)"):
            read_image_files(paths, 1)

    def test_a_png_whose_pixels_are_cut_short(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (16, 16)).tolist()
        whole = png_bytes(noise, 16, 16)
        for kept in range(0, len(whole) - 30, 7):
            with pytest.raises(InputError, match=r"a\.png: not a readable picture"):
                read_image_files([put(tmp_path, "a.png", whole[:kept])], 1)

    def test_a_flipped_bit_of_the_pixels(self, tmp_path):
        damaged = bytearray(png_bytes([list(range(16))] * 16, 16, 16))
        damaged[damaged.index(b"IDAT") + 8] ^= 4
        with pytest.raises(InputError, match=r"a\.png: not a readable picture"):
            read_image_files([put(tmp_path, "a.png", bytes(damaged))], 1)

    @pytest.mark.parametrize("name", ["a.png", "a.jpg"])
    def test_a_text_called_a_picture(self, tmp_path, name):
        with pytest.raises(InputError, match=f"{name}: not a readable picture"):
            read_image_files([put(tmp_path, name, b"hello")], 1)


class TestScaled:
    def test_the_middle_square_is_taken(self, tmp_path):
        wide = np.full((20, 60), 255, np.uint8)
        wide[:, 20:40] = 90
        for index, picture in enumerate((wide, wide.T)):
            Image.fromarray(picture).save(tmp_path / f"{index}.png")
            pixels = read_image_file(tmp_path / f"{index}.png", 1, image_size=20)
            assert (pixels == 90).all()
            assert pixels.shape == (20, 20, 1)

    def test_small_stripes_become_grey_and_not_a_pattern(self, tmp_path):
        stripes = np.zeros((64, 64), np.uint8)
        stripes[:, ::2] = 255
        Image.fromarray(stripes).save(tmp_path / "a.png")
        pixels = read_image_file(tmp_path / "a.png", 1, image_size=8)
        np.testing.assert_allclose(pixels[:, 1:-1], 127.5, atol=8)

    def test_a_picture_of_the_size_asked_for_stays_as_it_is(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_image_file(tmp_path / "a.png", 3, image_size=16), noise)

    def test_a_large_jpeg_is_what_a_png_of_it_is(self, tmp_path):
        y, x = np.mgrid[:512, :384]
        picture = Image.fromarray(np.uint8(np.stack([x / 2, y / 2, (x + y) / 4], axis=-1)))
        picture.save(tmp_path / "a.png")
        picture.save(tmp_path / "a.jpg", quality=95)
        exact, drafted = (read_image_file(tmp_path / name, 3, image_size=16) for name in ("a.png", "a.jpg"))
        np.testing.assert_allclose(exact.astype(int), drafted, atol=4)

    def test_sizes_that_differ_are_no_matter_then(self, tmp_path):
        for name, size in (("a.png", (3, 2)), ("b.png", (2, 3))):
            Image.new("L", size, 7).save(tmp_path / name)
        images = read_images(tmp_path, 1, image_size=2)
        assert images.tolist() == np.full((2, 2, 2, 1), 7).tolist()


class TestUpright:
    @pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
    def test_a_photograph_that_was_taken_aslant_is_turned(self, tmp_path, orientation, turns):
        picture, exif = np.arange(0, 240, 40, np.uint8).reshape(2, 3), Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
        assert read_image_file(tmp_path / "a.png", 1)[..., 0].tolist() == np.rot90(picture, turns).tolist()

    def test_damaged_exif_data_are_passed_over_or_told(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        buffer = io.BytesIO()
        Image.new("L", (8, 4), 90).save(buffer, "JPEG", exif=exif)
        whole = buffer.getvalue()
        start = whole.index(b"Exif")
        for place in range(start, start + 40):
            for bit in range(8):
                damaged = bytearray(whole)
                damaged[place] ^= 1 << bit
                path = put(tmp_path, "a.jpg", bytes(damaged))
                assert outcome(path, lambda path: read_image_file(path, 1)) in ("read", "refused")


class TestImages:
    def test_a_folder_in_natural_order(self, tmp_path):
        names = {"image10.png": 10, "image2.png": 2, "image1.PNG": 1, "image100.png": 100}
        for name, value in names.items():
            put(tmp_path, name, png_bytes([[value]], 1, 1))
        assert read_images(tmp_path, 1).ravel().tolist() == [1, 2, 10, 100]

    def test_other_files_of_a_folder_are_passed_over(self, tmp_path):
        put(tmp_path, "notes.txt", b"hello")
        put(tmp_path, "only.png", png_bytes([[7]], 1, 1))
        assert read_images(tmp_path, 1).tolist() == [[[[7]]]]

    def test_a_folder_without_pictures(self, tmp_path):
        put(tmp_path, "notes.txt", b"hello")
        with pytest.raises(InputError, match=r"no picture \(\.png, \.jpg, \.jpeg\) in this folder"):
            read_images(tmp_path, 1)

    def test_a_damaged_picture_of_a_folder_is_named(self, tmp_path):
        put(tmp_path, "a.png", png_bytes([[7]], 1, 1))
        put(tmp_path, "b.png", b"hello")
        with pytest.raises(InputError, match=r"b\.png: not a readable picture"):
            read_images(tmp_path, 1)

    def test_one_picture(self, tmp_path):
        assert read_images(put(tmp_path, "a.png", png_bytes(GREY, 3, 2)), 1)[0, ..., 0].tolist() == GREY

    def test_a_jpeg_is_close_to_what_was_drawn(self, tmp_path):
        buffer = io.BytesIO()
        Image.fromarray(np.full((8, 8), 90, np.uint8)).save(buffer, "jpeg", quality=95)
        images = read_images(put(tmp_path, "a.JPEG", buffer.getvalue()), 1)
        np.testing.assert_allclose(images, np.full((1, 8, 8, 1), 90), atol=2)

    def test_an_npz(self, tmp_path):
        path = npz(tmp_path / "a.npz", images=np.arange(12).reshape(1, 3, 4), labels=np.zeros(1))
        assert read_images(path, 1).tolist() == [[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]]

    def test_an_npz_without_images(self, tmp_path):
        with pytest.raises(InputError, match="lacks images; it holds labels"):
            read_images(npz(tmp_path / "a.npz", labels=np.zeros(1)), 1)

    def test_idx(self, tmp_path, idx_name):
        images = read_images(put(tmp_path, idx_name, idx_bytes(PIXELS, 2, 3, 4)), 1)
        assert images.ravel().tolist() == PIXELS

    @pytest.mark.parametrize("name", ["a.png", "a.npz", "a.gz", "a"])
    def test_nothing_there(self, tmp_path, name):
        with pytest.raises(InputError, match=f"{name}.*[Nn]o such file"):
            read_images(tmp_path / name, 1)


class TestNaturalOrder:
    def test_by_hand(self, tmp_path):
        ordered = ["1.png", "2a.png", "2b.png", "10.png", "010b.png", "a1.png", "a9b2.png", "a9b10.png"]
        shuffled = sorted(ordered, key=lambda name: name[::-1])
        assert shuffled != ordered
        assert [p.name for p in sorted((tmp_path / n for n in shuffled), key=natural_order)] == ordered

    @given(st.lists(st.integers(0, 10**20), unique=True))
    def test_numbers_sort_as_numbers(self, numbers):
        paths = sorted((Path(f"image {number}.png") for number in numbers), key=natural_order)
        assert [path.name for path in paths] == [f"image {number}.png" for number in sorted(numbers)]

    @given(st.lists(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)))
    def test_any_names_have_an_order(self, names):
        assert len(sorted(map(Path, names), key=natural_order)) == len(names)


def test_damaged_files_of_every_kind_are_read_or_refused_in_one_line():
    outcomes, faults = fuzz(700, seed=1)
    assert not faults
    assert outcomes["refused"] > 350
