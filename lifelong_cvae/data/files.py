"""Reads images from files: IDX, npz, pictures. Whatever is wrong with a file, one line names it."""

from __future__ import annotations

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


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array of an IDX file, gzipped (`.gz`) or not.

    The format: two zero bytes, the type (8: uint8), the rank, the sizes as big-endian uint32, the data
    (LeCun, Cortes, Burges, "The MNIST database of handwritten digits").

    Raises:
        InputError: the file is missing, of another kind, or shorter or longer than its header says.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; an IDX file is expected")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= 4:
                raise InputError(f"{path}: not an IDX file of uint8: its first bytes are {magic.hex(' ') or 'absent'}")
            sizes = file.read(4 * magic[3])
            shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
            expected = math.prod(shape)
            data = _read_at_most(file, expected + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged gzip data ({error}); the complete file is expected") from error
    if len(sizes) < 4 * magic[3] or len(data) != expected:
        found = f"more than {expected}" if len(data) > expected else len(data)
        raise InputError(f"{path}: its header says {shape}, {expected} bytes of data are expected, got {found}")
    try:
        return np.frombuffer(data, np.uint8).reshape(shape)
    except ValueError as error:
        raise InputError(f"{path}: its header says {shape}, which no array can have ({error})") from error


def _read_at_most(file: IO[bytes], count: int) -> bytes:
    """The next `count` bytes, or what there is. Memory grows with the file, not with the count."""
    data = bytearray()
    while len(data) < count and (part := file.read(min(count - len(data), 1 << 20))):
        data += part
    return bytes(data)


def read_npz(path: Path, keys: tuple[str, ...]) -> list[np.ndarray]:
    """The named arrays of an npz file. Pickled objects are refused.

    Raises:
        InputError: the file is missing or damaged, or lacks an array.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; an npz file with {', '.join(keys)} is expected")
    try:
        with path.open("rb") as raw:  # np.load leaves a file open that is no zip file
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise InputError(f"{path}: not an npz file")
            missing = [key for key in keys if key not in file]
            if missing:
                raise InputError(f"{path}: lacks {', '.join(missing)}; it holds {', '.join(file)}")
            for key in keys:
                _check_header(path, file.zip, f"{key}.npy")
            arrays = [file[key] for key in keys]
            if not all(isinstance(array, np.ndarray) for array in arrays):
                raise InputError(f"{path}: not a readable npz file of plain arrays")
            return arrays
    except InputError:
        raise
    except (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable npz file of plain arrays ({reason})") from error


def _check_header(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    """Raises InputError where an array's header claims another size than there is, before it is allocated."""
    try:
        info = archive.getinfo(name)
    except KeyError as error:
        raise InputError(f"{path}: not a readable npz file of plain arrays (no {name} in it)") from error
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in header:
            raise InputError(f"{path}: {name} is of the npy version {version}, 1.0 or 2.0 is expected")
        shape, _, kind = header[version](stream)
        claimed, there = math.prod(shape) * kind.itemsize, info.file_size - stream.tell()
    if kind.hasobject:
        raise InputError(f"{path}: {name} plain arrays are expected, not pickled objects")
    # No deflated data is more than 1032 times smaller.
    if claimed != there or there > 1032 * path.stat().st_size:
        raise InputError(
            f"{path}: {name} says {shape} of {kind}, {claimed} bytes, which the file does not hold: "
            "the complete file is expected"
        )


def read_image_file(
    file: Path | IO[bytes], channels: int, *, image_size: int | None = None, what: Any = None
) -> np.ndarray:
    """A picture, upright as its EXIF data say: uint8 `[h, w, channels]`; 1 channel is gray, 3 are color.

    Args:
        file: a path, or the content of a file.
        channels: 1 or 3.
        image_size: pixels of the side of a square. The middle square of the picture is scaled to it
            (bicubic with antialiasing). Default: as it is.
        what: how messages call the file; default its path.

    Raises:
        InputError: no picture, a damaged one, one of more than 8 bits per channel or of over 89 million
            pixels; or another number of channels is asked for.
    """
    if channels not in (1, 3):
        raise InputError(f"pictures have 1 or 3 channels, images of {channels} are expected: use an npz file")
    what = file if what is None else what
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF data
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                if picture.mode.startswith(("I", "F")):
                    raise InputError(f"{what}: 8 bits per channel are expected, got mode {picture.mode}")
                if image_size is not None:  # spares decoding most of a large JPEG
                    picture.draft(None, (2 * image_size, 2 * image_size))
                upright = ImageOps.exif_transpose(picture).convert("L" if channels == 1 else "RGB")
        if image_size is not None:
            upright = ImageOps.fit(upright, (image_size, image_size), Image.Resampling.BICUBIC)
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{what}: not a readable picture (its content is of no known kind)") from error
    except Exception as error:  # Pillow raises many kinds for damage
        raise InputError(f"{what}: not a readable picture ({' '.join(str(error).split())})") from error
    pixels = np.asarray(upright)
    return pixels[..., None] if channels == 1 else pixels


def read_image_files(paths: list[Path], channels: int, *, image_size: int | None = None) -> np.ndarray:
    """Pictures of one size as uint8 `[n, h, w, channels]`, each as `read_picture` reads it.

    Raises:
        InputError: a file is no picture, or the pictures differ in size.
    """
    images: list[np.ndarray] = []
    for path in paths:
        pixels = read_image_file(path, channels, image_size=image_size)
        if images and pixels.shape != images[0].shape:
            raise InputError(f"{path}: size {pixels.shape[:2]}, but {paths[0]} has {images[0].shape[:2]}")
        images.append(pixels)
    return np.stack(images)


def read_images(path: Path, channels: int, *, image_size: int | None = None) -> np.ndarray:
    """Images to recognize: an npz (`images`), an IDX file, a picture, or a folder of these in natural order.

    Pictures are scaled as `read_picture` does it; images of other files have the size that they have.

    Raises:
        InputError: nothing readable is there.
    """
    if path.is_dir():
        paths = sorted((p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES), key=natural_order)
        if not paths:
            raise InputError(f"{path}: no picture ({', '.join(IMAGE_SUFFIXES)}) in this folder")
        return read_image_files(paths, channels, image_size=image_size)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return read_image_files([path], channels, image_size=image_size)
    return read_npz(path, ("images",))[0] if path.suffix == ".npz" else read_idx(path)


def natural_order(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """Sort key under which `image2` comes before `image10`, and no two names are equal."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts], path.name
