"""Readers of files of arrays: IDX and npz. Errors are one line that names the file."""

import gzip
import math
import re
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from lifelong_cvae.errors import InputError

# Names of IDX files: of MNIST, with a dot as by 7-Zip and Kaggle, or with the name of a set in front as in EMNIST.
IDX_NAME = re.compile(
    r"(?:(?P<set>.+)-)?(?P<split>train|t10k|test)-(?P<kind>images|labels)[-.]idx[13][-.]ubyte(?:\.gz)?", re.IGNORECASE
)
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
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
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


def find_idx_files(folder: Path) -> dict[tuple[str, str], Path]:
    """Finds the four IDX files of a data set, as MNIST, EMNIST, Kaggle and 7-Zip name them.

    Returns:
        Path by split (`train`, `test`) and kind (`images`, `labels`).

    Raises:
        InputError: a file is missing, or there are several data sets.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected one with the four IDX files")
    found: dict[str, dict[tuple[str, str], Path]] = {}
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.suffix.lower() == ".gz", path.name)):
        match = IDX_NAME.fullmatch(path.name)
        inner = path / path.name if path.is_dir() else path  # Kaggle unpacks each file into a folder of its name
        if match and inner.is_file():
            split = "train" if match["split"].lower() == "train" else "test"
            found.setdefault(match["set"] or "", {}).setdefault((split, match["kind"].lower()), inner)
    if len(found) > 1:
        raise InputError(f"{folder}: expected the IDX files of one data set, got those of {', '.join(sorted(found))}")
    files = next(iter(found.values()), {})
    for split in ("train", "test"):
        for kind in ("images", "labels"):
            if (split, kind) not in files:
                raise InputError(
                    f"{folder}: expected IDX files such as train-images-idx3-ubyte.gz, got none of the {split} {kind}"
                )
    return files


def _read_at_most(file: IO[bytes], count: int) -> bytes:
    """Reads `count` bytes, or fewer at the end of the file. Memory grows with the file, not with `count`."""
    data = bytearray()
    while len(data) < count and (part := file.read(min(count - len(data), READ_BYTES))):
        data += part
    return bytes(data)


def npz_names(path: Path) -> list[str]:
    """Returns the names of the arrays in an npz file, none of a missing or damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return []


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
