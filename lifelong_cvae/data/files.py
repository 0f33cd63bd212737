"""Reads images from files: IDX, npz, pictures. Whatever is wrong with a file, one line names it."""

from __future__ import annotations

import gzip
import math
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from lifelong_cvae.errors import InputError

PICTURES = (".png", ".jpg", ".jpeg")


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
                raise InputError(
                    f"{path}: not an IDX file of uint8: its first bytes are {magic.hex(' ') or 'absent'}"
                )
            sizes = file.read(4 * magic[3])
            shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
            expected = math.prod(shape)
            # Never more than the file holds, whatever its header claims.
            data = file.read(expected + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged gzip data ({error}); the complete file is expected") from error
    if len(shape) < magic[3] or len(data) != expected:
        found = f"more than {expected}" if len(data) > expected else len(data)
        raise InputError(
            f"{path}: its header says {shape}, {expected} bytes of data are expected, got {found}"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def read_npz(path: Path, keys: tuple[str, ...]) -> list[np.ndarray]:
    """The named arrays of an npz file. Pickled objects are refused.

    Raises:
        InputError: the file is missing or damaged, or lacks an array.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; an npz file with {', '.join(keys)} is expected")
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise InputError(f"{path}: not an npz file")
            missing = [key for key in keys if key not in file]
            if missing:
                raise InputError(f"{path}: lacks {', '.join(missing)}; it holds {', '.join(file)}")
            return [file[key] for key in keys]
    except InputError:
        raise
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable npz file of plain arrays ({reason})") from error


def read_pictures(paths: list[Path], channels: int) -> np.ndarray:
    """Pictures of one size as uint8 `[n, h, w, channels]`; 1 channel is grey, 3 are colour.

    Raises:
        InputError: a file is no picture, or the pictures differ in size.
    """
    if channels not in (1, 3):
        raise InputError(f"pictures have 1 or 3 channels, images of {channels} are expected: use an npz file")
    images = []
    for path in paths:
        try:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{path}: not a readable picture ({error})") from error
        if images and pixels.shape != images[0].shape:
            raise InputError(f"{path}: size {pixels.shape[:2]}, but {paths[0]} has {images[0].shape[:2]}")
        images.append(pixels)
    stacked = np.stack(images)
    return stacked[..., None] if channels == 1 else stacked


def read_images(path: Path, channels: int) -> np.ndarray:
    """Images to recognise: an npz (`images`), an IDX file, a picture, or a folder of these in natural order.

    Raises:
        InputError: nothing readable is there.
    """
    if path.is_dir():
        paths = sorted((p for p in path.iterdir() if p.suffix.lower() in PICTURES), key=natural_order)
        if not paths:
            raise InputError(f"{path}: no picture ({', '.join(PICTURES)}) in this folder")
        return read_pictures(paths, channels)
    if path.suffix.lower() in PICTURES:
        return read_pictures([path], channels)
    return read_npz(path, ("images",))[0] if path.suffix == ".npz" else read_idx(path)


def natural_order(path: Path) -> list[tuple[int, int | str]]:
    """Sort key under which `image2` comes before `image10`."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]
