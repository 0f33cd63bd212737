"""Pictures: found in folders, read by Pillow, and read for recognition. Errors are one line that names the file."""

import contextlib
import math
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lifelong_cvae.data.files import MAX_COMPRESSION, read_idx, read_npz
from lifelong_cvae.errors import InputError

# File name endings by format. Of a file with several frames, the first one is read.
SUFFIXES = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
PICTURE_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
# Formats that files with these endings may have.
FORMATS = (*SUFFIXES, "DIB")
# Formats whose headers have no checksum, and whose decoders allocate memory before they read pixels.
UNCHECKED = ("BMP", "DIB", "GIF", "PPM", "TIFF")
# What systems leave in folders, beside hidden files.
SYSTEM_FILES = ("__MACOSX", "Thumbs.db", "desktop.ini")
# Decoded pictures of a category that take more bytes are kept in a file.
MEMORY_BYTES = 2**30
# A drawing on a transparent background whose mean lightness (of 255) is above this is put on black, others on white.
LIGHT = 224


def visible_entries(folder: Path) -> list[Path]:
    """Returns the entries of a folder in natural order of their names, without hidden and system files."""
    entries = (path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in SYSTEM_FILES)
    return sorted(entries, key=natural_order)


def natural_order(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """Returns a sort key by which `image2` precedes `image10` and different names differ."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts], path.name


def find_pictures(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Returns the pictures of a folder in natural order, and the number of its other entries by kind."""
    pictures, skipped = [], Counter()
    for path in visible_entries(folder):
        if path.is_file() and path.suffix.lower() in PICTURE_SUFFIXES:
            pictures.append(path)
        elif path.is_dir():
            skipped["folder"] += 1
        else:
            skipped[(path.suffix.lower() or "without ending") if path.is_file() else "dead link"] += 1
    return pictures, skipped


def describe_skipped(skipped: Counter[str]) -> str:
    """Describes what was skipped, by kind and number; empty if nothing was."""
    kinds = ", ".join(f"{kind} ({count})" for kind, count in skipped.most_common())
    return f"skipped {skipped.total()} entries that are no pictures: {kinds}" if skipped else ""


def read_picture(
    file: Path | IO[bytes], channels: int, *, image_size: int | None = None, what: Any = None
) -> np.ndarray:
    """Reads a picture upright, `[h, w, channels]`: uint8, or its own type if that has more bits.

    Transparent pictures are put on white, or on black if what is drawn is almost white.

    Args:
        file: a path, or the content of a file.
        channels: 1 for gray, 3 for color.
        image_size: side of a square in pixels. The middle square of the picture is scaled to it (bicubic with
            antialiasing). None keeps the picture as it is.
        what: name of the file in error messages; default its path.

    Raises:
        InputError: no picture, a damaged one or one of over 89 million pixels, or another number of channels.
    """
    if channels not in (1, 3):
        raise InputError(f"pictures: expected 1 or 3 channels, got {channels}; use an npz file for such images")
    what = file if what is None else what
    formats = ", ".join(SUFFIXES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF data
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as picture, _silent_libtiff(picture.format):
                _check_pixels(picture, file, what)
                if image_size is not None:  # avoids decoding most of a large JPEG
                    picture.draft(None, (2 * image_size, 2 * image_size))
                upright = ImageOps.exif_transpose(picture)
                if picture.mode.startswith(("I", "F")):
                    pixels = _resize_deep(np.asarray(upright), image_size)
                    return np.repeat(pixels[..., None], channels, axis=-1)
                upright = _without_transparency(upright).convert("L" if channels == 1 else "RGB")
        if image_size is not None:
            upright = ImageOps.fit(upright, (image_size, image_size), Image.Resampling.BICUBIC)
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{what}: not a readable picture: expected {formats}, got unknown content") from error
    except Exception as error:  # Pillow raises many types for damaged files
        reason = " ".join(str(error).split())
        raise InputError(f"{what}: not a readable picture: expected {formats}, got an error ({reason})") from error
    pixels = np.asarray(upright)
    return pixels[..., None] if channels == 1 else pixels


def _check_pixels(picture: Image.Image, file: Path | IO[bytes], what: Any) -> None:
    """Raises InputError if a header claims more pixels than the file can hold, before memory is allocated."""
    size = file.seek(0, os.SEEK_END) if hasattr(file, "seek") else Path(file).stat().st_size
    if picture.format in UNCHECKED and picture.width * picture.height > 8 * MAX_COMPRESSION * size:
        raise InputError(
            f"{what}: not a readable picture: expected the pixels of {picture.width} x {picture.height}, "
            f"got a file of {size} bytes"
        )


@contextlib.contextmanager
def _silent_libtiff(kind: str | None) -> Iterator[None]:
    """Drops what the C library libtiff prints on stderr while it decodes; Pillow raises an error as well."""
    if kind != "TIFF":
        yield
        return
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # there may be no stderr
            saved = os.dup(2)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, 2)
            nothing = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, nothing)
            os.dup2(nothing, 2)
        yield


def _resize_deep(pixels: np.ndarray, image_size: int | None) -> np.ndarray:
    """Scales the middle square of gray pixels `[h, w]` of more than 8 bits, in float32."""
    if image_size is None:
        return pixels
    picture = Image.fromarray(pixels.astype(np.float32))
    scaled = np.asarray(ImageOps.fit(picture, (image_size, image_size), Image.Resampling.BICUBIC))
    scaled = scaled.clip(pixels.min(), pixels.max())
    return scaled if pixels.dtype.kind == "f" else np.rint(scaled).astype(pixels.dtype)


def _without_transparency(picture: Image.Image) -> Image.Image:
    """Puts a picture with transparency on a background that keeps its drawing."""
    if not picture.has_transparency_data:
        return picture
    drawing = picture.convert("RGBA")
    alpha = np.asarray(drawing.getchannel("A"), np.float64)
    lightness = np.asarray(drawing.convert("RGB").convert("L"))
    is_light = (alpha * lightness).sum() > LIGHT * alpha.sum()
    background = Image.new("RGBA", drawing.size, (0, 0, 0, 255) if is_light else (255, 255, 255, 255))
    return Image.alpha_composite(background, drawing).convert("RGB")


def read_pictures(paths: list[Path], channels: int, *, image_size: int | None = None) -> np.ndarray:
    """Reads pictures of one size and type, at least one, by `read_picture`: `[n, h, w, channels]`.

    Those that take more than `MEMORY_BYTES` are in a temporary file.

    Raises:
        InputError: a file is no picture, or the pictures differ in size or type.
    """
    first = read_picture(paths[0], channels, image_size=image_size)
    images = _new_array((len(paths), *first.shape), first.dtype)
    images[0] = first
    for index, path in enumerate(paths[1:], start=1):
        pixels = read_picture(path, channels, image_size=image_size)
        check_same_kind(path, pixels, paths[0], first)
        images[index] = pixels
    return images


def _new_array(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns an array in memory, or in a temporary file if it takes more than `MEMORY_BYTES`.

    The file has no name, and its place is free again when the array is.
    """
    if math.prod(shape) * dtype.itemsize <= MEMORY_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def check_same_kind(path: Path, pixels: np.ndarray, first_path: Path, first: np.ndarray) -> None:
    """Raises InputError if a picture differs from the first one in size or type."""
    if pixels.shape != first.shape:
        raise InputError(
            f"{path}: expected the size {first.shape[:2]} of {first_path}, got {pixels.shape[:2]}; "
            "give an image_size to scale all pictures"
        )
    if pixels.dtype != first.dtype:
        raise InputError(f"{path}: expected pixels of type {first.dtype}, as in {first_path}, got {pixels.dtype}")


def read_images(path: Path, channels: int, *, image_size: int | None = None) -> tuple[np.ndarray, list[str], str]:
    """Reads images from an npz file, an IDX file, a picture, or a folder of pictures.

    An npz file holds them as `images`. Pictures of a folder are in natural order of their names. Pictures are scaled
    as in `read_picture`; images of other files keep their size.

    Returns:
        Images `[n, h, w, ...]`, the name of each one's file, and a description of what was skipped.

    Raises:
        InputError: no such file, or none that can be read.
    """
    if path.is_dir():
        paths, skipped = find_pictures(path)
        if not paths:
            raise InputError(f"{path}: no picture in this folder, expected files {', '.join(PICTURE_SUFFIXES)}")
        names = [picture.name for picture in paths]
        return read_pictures(paths, channels, image_size=image_size), names, describe_skipped(skipped)
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return read_pictures([path], channels, image_size=image_size), [path.name], ""
    images = read_npz(path, ("images",))[0] if path.suffix.lower() == ".npz" else read_idx(path)
    return images, [path.name] * len(images), ""


def read_vectors(path: Path) -> tuple[np.ndarray, list[str], str]:
    """Reads vectors, `images` `[n, d]` of an npz file. Results as those of `read_images`.

    Raises:
        InputError: no such file, or none that can be read.
    """
    (vectors,) = read_npz(path, ("images",))
    return vectors, [path.name] * len(vectors), ""
