"""Readers of image files: IDX, npz, PNG and JPEG. Errors are one line that names the file."""

import gzip
import math
import re
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lifelong_cvae.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
# Bytes that one read adds to memory.
READ_BYTES = 1 << 20
# Largest ratio of sizes that deflate can reach.
MAX_COMPRESSION = 1032


def read_idx(path: Path) -> np.ndarray:
    """Reads the uint8 array of an IDX file, gzipped (`.gz`) or not.

    The format: two zero bytes, the type (8: uint8), the rank, the sizes as big-endian uint32, the data
    (LeCun, Cortes, Burges, "The MNIST database of handwritten digits").

    Raises:
        InputError: the file is missing or of another kind, or its length differs from that in its header.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected an IDX file")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= 4:
                start = magic.hex(" ") or "an empty file"
                raise InputError(f"{path}: expected an IDX file of uint8 (00 00 08 and a rank of 1 to 4), got {start}")
            sizes = file.read(4 * magic[3])
            if len(sizes) < 4 * magic[3]:
                raise InputError(f"{path}: expected {4 * magic[3]} bytes of sizes in its header, got {len(sizes)}")
            shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
            length = math.prod(shape)
            data = _read_at_most(file, length + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: expected complete gzip data, got damaged gzip data ({error})") from error
    if len(data) != length:
        actual = f"more than {length}" if len(data) > length else len(data)
        raise InputError(f"{path}: expected {length} bytes of data for the shape {shape} in its header, got {actual}")
    try:
        return np.frombuffer(data, np.uint8).reshape(shape)
    except ValueError as error:
        raise InputError(f"{path}: expected a possible shape of an array, got {shape} ({error})") from error


def _read_at_most(file: IO[bytes], count: int) -> bytes:
    """Reads `count` bytes, or fewer at the end of the file. Memory grows with the file, not with `count`."""
    data = bytearray()
    while len(data) < count and (part := file.read(min(count - len(data), READ_BYTES))):
        data += part
    return bytes(data)


def read_npz(path: Path, keys: tuple[str, ...]) -> list[np.ndarray]:
    """Reads arrays of an npz file by name. Pickled objects are refused.

    Raises:
        InputError: the file is missing or damaged, or lacks an array.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected an npz file with {', '.join(keys)}")
    try:
        with path.open("rb") as raw:  # np.load does not close a file that is no zip file
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise InputError(f"{path}: expected an npz file, got an npy file")
            missing = [key for key in keys if key not in file]
            if missing:
                raise InputError(
                    f"{path}: missing arrays: expected {', '.join(missing)}, got {', '.join(file) or 'none'}"
                )
            for key in keys:
                _check_header(path, file.zip, f"{key}.npy")
            arrays = [file[key] for key in keys]
            if not all(isinstance(array, np.ndarray) for array in arrays):
                raise InputError(f"{path}: not a readable npz file: expected plain arrays, got other content")
            return arrays
    except InputError:
        raise
    except (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable npz file: expected plain arrays, got an error ({reason})") from error


def _check_header(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    """Raises InputError if the header of an array has another size than its data.

    It runs before memory of the size in the header is allocated.
    """
    try:
        info = archive.getinfo(name)
    except KeyError as error:
        raise InputError(f"{path}: not a readable npz file: expected an entry {name}, got none") from error
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise InputError(f"{path}: {name}: expected the npy version 1.0 or 2.0, got {version}")
        shape, _, dtype = readers[version](stream)
        header_bytes, data_bytes = math.prod(shape) * dtype.itemsize, info.file_size - stream.tell()
    if dtype.hasobject:
        raise InputError(f"{path}: {name}: expected plain arrays, got pickled objects")
    file_bytes = path.stat().st_size
    if header_bytes != data_bytes or data_bytes > MAX_COMPRESSION * file_bytes:
        raise InputError(
            f"{path}: {name}: expected {header_bytes} bytes of data for {shape} of {dtype} in its header, "
            f"got {data_bytes} in a file of {file_bytes} bytes"
        )


def read_image_file(
    file: Path | IO[bytes], channels: int, *, image_size: int | None = None, what: Any = None
) -> np.ndarray:
    """Reads a picture as uint8 `[h, w, channels]`, turned upright by its EXIF data.

    Args:
        file: a path, or the content of a file.
        channels: 1 for gray, 3 for color.
        image_size: side of a square in pixels. The middle square of the picture is scaled to it (bicubic with
            antialiasing). None keeps the picture as it is.
        what: name of the file in error messages; default its path.

    Raises:
        InputError: no picture, a damaged one, one of more than 8 bits per channel or of over 89 million pixels, or
            another number of channels.
    """
    if channels not in (1, 3):
        raise InputError(f"pictures: expected 1 or 3 channels, got {channels}; use an npz file for such images")
    what = file if what is None else what
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF data
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                if picture.mode.startswith(("I", "F")):
                    raise InputError(f"{what}: expected 8 bits per channel, got mode {picture.mode}")
                if image_size is not None:  # avoids decoding most of a large JPEG
                    picture.draft(None, (2 * image_size, 2 * image_size))
                upright = ImageOps.exif_transpose(picture).convert("L" if channels == 1 else "RGB")
        if image_size is not None:
            upright = ImageOps.fit(upright, (image_size, image_size), Image.Resampling.BICUBIC)
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{what}: not a readable picture: expected PNG or JPEG, got unknown content") from error
    except Exception as error:  # Pillow raises many types for damaged files
        reason = " ".join(str(error).split())
        raise InputError(f"{what}: not a readable picture: expected PNG or JPEG, got an error ({reason})") from error
    pixels = np.asarray(upright)
    return pixels[..., None] if channels == 1 else pixels


def read_image_files(paths: list[Path], channels: int, *, image_size: int | None = None) -> np.ndarray:
    """Reads pictures of one size by `read_image_file`: uint8 `[n, h, w, channels]`.

    Raises:
        InputError: a file is no picture, or the pictures differ in size.
    """
    images: list[np.ndarray] = []
    for path in paths:
        pixels = read_image_file(path, channels, image_size=image_size)
        if images and pixels.shape != images[0].shape:
            raise InputError(f"{path}: expected the size {images[0].shape[:2]} of {paths[0]}, got {pixels.shape[:2]}")
        images.append(pixels)
    return np.stack(images)


def read_images(path: Path, channels: int, *, image_size: int | None = None) -> np.ndarray:
    """Reads images from an npz file, an IDX file, a picture, or a folder of pictures.

    An npz file holds them as `images`. Pictures of a folder are in natural order of their names. Pictures are scaled
    as in `read_image_file`; images of other files keep their size.

    Raises:
        InputError: no such file, or none that can be read.
    """
    if path.is_dir():
        paths = sorted((p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES), key=natural_order)
        if not paths:
            raise InputError(f"{path}: no picture in this folder, expected files {', '.join(IMAGE_SUFFIXES)}")
        return read_image_files(paths, channels, image_size=image_size)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return read_image_files([path], channels, image_size=image_size)
    return read_npz(path, ("images",))[0] if path.suffix == ".npz" else read_idx(path)


def natural_order(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """Returns a sort key by which `image2` precedes `image10` and different names differ."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts], path.name
