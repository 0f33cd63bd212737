"""Pictures as people have them: transparency, formats, depth and what lies beside them in folders."""

import contextlib
import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lifelong_cvae.data.pictures import describe_skipped, find_pictures, read_images, read_picture
from lifelong_cvae.errors import InputError

INK = np.zeros((6, 8), np.uint8)
INK[2:4, 1:6] = 255


def encoded(picture, kind="PNG", **options):
    """Content of a file of a picture."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return io.BytesIO(stream.getvalue())


def drawing(mode, gray):
    """A picture whose ink has a gray value and is opaque, everything else transparent."""
    rgba = Image.fromarray(np.dstack([np.full((*INK.shape, 3), gray, np.uint8), INK]))
    if mode in ("RGBA", "LA"):
        return encoded(rgba.convert(mode))
    if mode == "P":
        palette = Image.fromarray((INK > 0).astype(np.uint8), "P")
        palette.putpalette([gray] * 3 + [gray] * 3)
        return encoded(palette, transparency=0)
    other = 255 - gray  # the color that the file calls transparent
    plain = Image.fromarray(np.where(INK > 0, gray, other).astype(np.uint8)).convert(mode)
    return encoded(plain, transparency=other if mode == "L" else (other,) * 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
@pytest.mark.parametrize("gray", [0, 90, 255])
@pytest.mark.parametrize("channels", [1, 3])
def test_read_picture_keeps_a_drawing_on_transparency(mode, gray, channels):
    background = 0 if gray == 255 else 255
    pixels = read_picture(drawing(mode, gray), channels)
    assert pixels.tolist() == np.where(INK > 0, gray, background)[..., None].repeat(channels, -1).tolist()


def test_read_picture_blends_half_transparent_pixels():
    picture = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 51))
    assert read_picture(encoded(picture), 1)[0, :, 0].tolist() == [0, 204]


def test_read_picture_reads_what_is_fully_transparent_as_white():
    assert read_picture(encoded(Image.new("RGBA", (2, 1), (9, 9, 9, 0))), 1).ravel().tolist() == [255, 255]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_read_picture_reads_formats_without_loss(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(Image.fromarray(INK + 7).convert("RGB" if kind == "WEBP" else "L"), kind, **options)
    assert read_picture(content, 1)[..., 0].tolist() == (INK + 7).tolist()


def test_read_picture_reads_the_first_frame():
    frames = [Image.new("L", (3, 2), value) for value in (40, 200)]
    for kind in ("GIF", "TIFF"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert read_picture(content, 1).ravel().tolist() == [40] * 6


def test_read_picture_refuses_other_formats():
    with pytest.raises(
        InputError, match=r"the file: not a readable picture: expected PNG, JPEG, .*, got unknown content"
    ):
        read_picture(encoded(Image.new("L", (3, 2)), "PCX"), 1, what="the file")


@pytest.mark.parametrize("stored_type", [np.uint16, np.float32])
def test_read_picture_scales_more_than_8_bits_like_8_bits(stored_type):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 40), np.uint8)
    deep = read_picture(encoded(Image.fromarray(257 * pixels.astype(stored_type)), "TIFF"), 1, image_size=8)
    assert deep.dtype == stored_type
    shallow = read_picture(encoded(Image.fromarray(pixels)), 1, image_size=8)
    np.testing.assert_allclose(deep / 257, shallow, atol=1)


def test_read_picture_turns_deep_pictures_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.arange(6, dtype=np.uint16).reshape(2, 3) * 10000
    content = encoded(Image.fromarray(pixels), exif=exif)
    assert read_picture(content, 1)[..., 0].tolist() == np.rot90(pixels, -1).tolist()


def test_find_pictures_skips_and_counts_what_is_no_picture(tmp_path):
    for name in (
        "b2.WEBP",
        "b10.tif",
        "a.JPG",
        "notes.txt",
        "more.TXT",
        ".hidden.png",
        "._a.JPG",
        "Thumbs.db",
        "README",
    ):
        (tmp_path / name).write_bytes(b"")
    for name in ("folder.png", "__MACOSX"):
        (tmp_path / name).mkdir()
    (tmp_path / "dead.png").symlink_to(tmp_path / "nowhere")
    pictures, skipped = find_pictures(tmp_path)
    assert [path.name for path in pictures] == ["a.JPG", "b2.WEBP", "b10.tif"]
    assert skipped == {".txt": 2, "without ending": 1, "folder": 1, "dead link": 1}
    assert describe_skipped(skipped).startswith("skipped 5 entries that are no pictures: .txt (2), ")
    assert describe_skipped(Counter()) == ""


def test_read_images_names_the_file_of_each_image(tmp_path):
    for name in ("img10.png", "img2.png"):
        Image.new("L", (3, 2), 7).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("mine")
    assert read_images(tmp_path, 1)[1:] == (
        ["img2.png", "img10.png"],
        "skipped 1 entries that are no pictures: .txt (1)",
    )
    np.savez(tmp_path / "both.npz", images=np.zeros((2, 3, 3), np.uint8))
    assert read_images(tmp_path / "both.npz", 1)[1] == ["both.npz"] * 2


def test_read_picture_ignores_texts_in_files():
    notes = PngImagePlugin.PngInfo()
    notes.add_text("comment", "x" * 1000, zip=True)
    assert read_picture(encoded(Image.fromarray(INK), pnginfo=notes), 1)[..., 0].tolist() == INK.tolist()


@pytest.mark.parametrize("kind", ["BMP", "GIF", "PPM", "TIFF"])
def test_read_picture_refuses_headers_of_more_pixels_than_a_file_can_hold(kind):
    content = bytearray(encoded(Image.fromarray(INK), kind).getvalue())
    wide = {"BMP": (18, b"\xe8\x80"), "GIF": (6, b"\xe8\x80\xe8\x80"), "PPM": (3, b"9000 9"), "TIFF": (None, b"")}[kind]
    if kind == "TIFF":
        claimed = encoded(Image.new("L", (8000, 8000)), kind, compression="tiff_lzw").getvalue()
        content = bytearray(claimed[:200] + claimed[-400:])
    else:
        content[wide[0] : wide[0] + len(wide[1])] = wide[1]
    with pytest.raises(InputError, match="the file: not a readable picture"):
        read_picture(io.BytesIO(bytes(content)), 1, what="the file")


def test_read_picture_prints_nothing_for_damaged_tiff(capfd):
    content = bytearray(encoded(Image.fromarray(INK), "TIFF", compression="tiff_lzw").getvalue())
    for offset in range(8, len(content)):
        damaged = bytes([*content[:offset], content[offset] ^ 0xFF, *content[offset + 1 :]])
        with contextlib.suppress(InputError):
            read_picture(io.BytesIO(damaged), 1, what="the file")
    printed = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("More samples per pixel")]
    assert printed == []
