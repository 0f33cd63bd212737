import io
import struct
import tempfile

import numpy as np
import pytest
from PIL import Image

from lifelong_cvae.data import pictures
from lifelong_cvae.data.pictures import read_images, read_picture, read_pictures
from lifelong_cvae.errors import InputError
from tests.data.file_contents import idx_bytes, png_bytes, write_file, write_npz
from tests.fuzz import EXIF_ORIENTATION, outcome

GRAY = [[0, 50, 100], [150, 200, 255]]
COLOR = [[255, 0, 0, 0, 255, 0], [0, 0, 255, 10, 20, 30]]


def test_read_pictures_reads_gray(tmp_path):
    paths = [
        write_file(tmp_path, "a.png", png_bytes(GRAY, 3, 2)),
        write_file(tmp_path, "b.png", png_bytes(GRAY[::-1], 3, 2)),
    ]
    images = read_pictures(paths, 1)
    assert images.dtype == np.uint8
    assert images.shape == (2, 2, 3, 1)
    assert images[..., 0].tolist() == [GRAY, GRAY[::-1]]


def test_read_pictures_reads_color(tmp_path):
    images = read_pictures([write_file(tmp_path, "a.png", png_bytes(COLOR, 2, 2, color=2))], 3)
    assert images.shape == (1, 2, 2, 3)
    assert images.tolist() == [[[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]]]


def test_read_pictures_repeats_gray_in_color_channels(tmp_path):
    images = read_pictures([write_file(tmp_path, "a.png", png_bytes(GRAY, 3, 2))], 3)
    for channel in range(3):
        assert images[0, :, :, channel].tolist() == GRAY


def test_read_pictures_converts_color_to_luma(tmp_path):
    images = read_pictures([write_file(tmp_path, "a.png", png_bytes(COLOR, 2, 2, color=2))], 1)
    # ITU-R 601-2: 0.299 red + 0.587 green + 0.114 blue
    expected = [[76.2, 149.7], [29.1, 18.2]]
    np.testing.assert_allclose(images[0, :, :, 0], expected, atol=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_read_pictures_keeps_16_bits(tmp_path, channels):
    rows = [struct.pack(">3H", 0, 0x4000, 0xFFFF)]
    images = read_pictures([write_file(tmp_path, "a.png", png_bytes(rows, 3, 1, depth=16))], channels)
    assert images.dtype == np.uint16
    assert images.tolist() == [[[[value] * channels for value in (0, 0x4000, 0xFFFF)]]]


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_read_pictures_refuses_other_numbers_of_channels(tmp_path, channels):
    with pytest.raises(InputError, match=f"expected 1 or 3 channels, got {channels}; use an npz file"):
        read_pictures([write_file(tmp_path, "a.png", png_bytes(GRAY, 3, 2))], channels)


def test_read_pictures_names_file_of_other_size(tmp_path):
    paths = [
        write_file(tmp_path, "a.png", png_bytes(GRAY, 3, 2)),
        write_file(tmp_path, "b.png", png_bytes([[1, 2], [3, 4], [5, 6]], 2, 3)),
    ]
    with pytest.raises(InputError, match=r"b\.png: expected the size \(2, 3\) of .*a\.png, got \(3, 2\)"):
        read_pictures(paths, 1)


def test_read_pictures_refuses_png_cut_short(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16)).tolist()
    content = png_bytes(noise, 16, 16)
    for kept in range(0, len(content) - 30, 7):
        with pytest.raises(InputError, match=r"a\.png: not a readable picture"):
            read_pictures([write_file(tmp_path, "a.png", content[:kept])], 1)


def test_read_pictures_refuses_flipped_bit_of_pixels(tmp_path):
    damaged = bytearray(png_bytes([list(range(16))] * 16, 16, 16))
    damaged[damaged.index(b"IDAT") + 8] ^= 4
    with pytest.raises(InputError, match=r"a\.png: not a readable picture: expected PNG, JPEG, .*, got an error"):
        read_pictures([write_file(tmp_path, "a.png", bytes(damaged))], 1)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_read_pictures_refuses_text(tmp_path, name):
    message = f"{name}: not a readable picture: expected PNG, JPEG, .*, got unknown content"
    with pytest.raises(InputError, match=message):
        read_pictures([write_file(tmp_path, name, b"hello")], 1)


def test_read_picture_crops_middle_square(tmp_path):
    wide = np.full((20, 60), 255, np.uint8)
    wide[:, 20:40] = 90
    for index, picture in enumerate((wide, wide.T)):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
        pixels = read_picture(tmp_path / f"{index}.png", 1, image_size=20)
        assert (pixels == 90).all()
        assert pixels.shape == (20, 20, 1)


def test_read_picture_scales_with_antialiasing(tmp_path):
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    pixels = read_picture(tmp_path / "a.png", 1, image_size=8)
    np.testing.assert_allclose(pixels[:, 1:-1], 127.5, atol=8)


def test_read_picture_keeps_pixels_of_requested_size(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", 3, image_size=16), noise)


def test_read_picture_scales_large_jpeg_like_png(tmp_path):
    y, x = np.mgrid[:512, :384]
    picture = Image.fromarray(np.uint8(np.stack([x / 2, y / 2, (x + y) / 4], axis=-1)))
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "a.jpg", quality=95)
    png, jpeg = (read_picture(tmp_path / name, 3, image_size=16) for name in ("a.png", "a.jpg"))
    np.testing.assert_allclose(png.astype(int), jpeg, atol=4)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_read_picture_turns_photo_upright(tmp_path, orientation, turns):
    picture, exif = np.arange(0, 240, 40, np.uint8).reshape(2, 3), Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    assert read_picture(tmp_path / "a.png", 1)[..., 0].tolist() == np.rot90(picture, turns).tolist()


def test_read_picture_reads_or_refuses_damaged_exif(tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    buffer = io.BytesIO()
    Image.new("L", (8, 4), 90).save(buffer, "JPEG", exif=exif)
    content = buffer.getvalue()
    start = content.index(b"Exif")
    for offset in range(start, start + 40):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[offset] ^= 1 << bit
            path = write_file(tmp_path, "a.jpg", bytes(damaged))
            assert outcome(path, lambda path: read_picture(path, 1)) in ("read", "refused")


def test_read_images_scales_pictures_of_different_sizes(tmp_path):
    for name, size in (("a.png", (3, 2)), ("b.png", (2, 3))):
        Image.new("L", size, 7).save(tmp_path / name)
    images = read_images(tmp_path, 1, image_size=2)[0]
    assert images.tolist() == np.full((2, 2, 2, 1), 7).tolist()


def test_read_images_reads_folder_in_natural_order(tmp_path):
    names = {"image10.png": 10, "image2.png": 2, "image1.PNG": 1, "image100.png": 100}
    for name, value in names.items():
        write_file(tmp_path, name, png_bytes([[value]], 1, 1))
    assert read_images(tmp_path, 1)[0].ravel().tolist() == [1, 2, 10, 100]


def test_read_images_skips_other_files_of_folder(tmp_path):
    write_file(tmp_path, "notes.txt", b"hello")
    write_file(tmp_path, "only.png", png_bytes([[7]], 1, 1))
    assert read_images(tmp_path, 1)[0].tolist() == [[[[7]]]]


def test_read_images_refuses_folder_without_pictures(tmp_path):
    write_file(tmp_path, "notes.txt", b"hello")
    with pytest.raises(InputError, match=r"no picture in this folder, expected files \.png, \.apng, \.jpg"):
        read_images(tmp_path, 1)


def test_read_images_names_damaged_picture_of_folder(tmp_path):
    write_file(tmp_path, "a.png", png_bytes([[7]], 1, 1))
    write_file(tmp_path, "b.png", b"hello")
    with pytest.raises(InputError, match=r"b\.png: not a readable picture"):
        read_images(tmp_path, 1)


def test_read_images_reads_one_picture(tmp_path):
    assert read_images(write_file(tmp_path, "a.png", png_bytes(GRAY, 3, 2)), 1)[0][0, ..., 0].tolist() == GRAY


def test_read_images_reads_jpeg(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(buffer, "jpeg", quality=95)
    images = read_images(write_file(tmp_path, "a.JPEG", buffer.getvalue()), 1)[0]
    np.testing.assert_allclose(images, np.full((1, 8, 8, 1), 90), atol=2)


def test_read_images_reads_npz(tmp_path):
    path = write_npz(tmp_path / "a.npz", images=np.arange(12).reshape(1, 3, 4), labels=np.zeros(1))
    assert read_images(path, 1)[0].tolist() == [[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]]


def test_read_images_refuses_npz_without_images(tmp_path):
    with pytest.raises(InputError, match="missing arrays: expected images, got labels"):
        read_images(write_npz(tmp_path / "a.npz", labels=np.zeros(1)), 1)[0]


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_read_images_reads_idx(tmp_path, name):
    images = read_images(write_file(tmp_path, name, idx_bytes(range(24), 2, 3, 4)), 1)[0]
    assert images.ravel().tolist() == list(range(24))


@pytest.mark.parametrize("name", ["a.png", "a.npz", "a.gz", "a"])
def test_read_images_names_missing_file(tmp_path, name):
    with pytest.raises(InputError, match=f"{name}.*[Nn]o such file"):
        read_images(tmp_path / name, 1)[0]


def test_read_pictures_keeps_large_ones_in_a_file(tmp_path, monkeypatch):
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for index, path in enumerate(paths):
        Image.fromarray(np.full((4, 5), 10 * index, np.uint8)).save(path)
    monkeypatch.setattr(pictures, "MEMORY_BYTES", 60)
    small = read_pictures(paths, 1)
    monkeypatch.setattr(pictures, "MEMORY_BYTES", 59)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    large = read_pictures(paths, 1)
    assert not isinstance(small, np.memmap)
    assert isinstance(large, np.memmap)
    np.testing.assert_array_equal(large, small)
    assert sorted(tmp_path.iterdir()) == paths
