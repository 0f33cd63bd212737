"""Fuzzes the readers of image files: each damaged file must give images, or an error of one line.

    python -m tests.fuzz --inputs=100000

It takes a minute or two. The exit status is 1 after any other outcome, or if memory grew.
"""

from __future__ import annotations

import argparse
import gzip
import io
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from lifelong_cvae.data.files import read_idx, read_npz
from lifelong_cvae.data.pictures import read_pictures
from lifelong_cvae.errors import InputError

# Sizes that are written into headers: none, one, slightly too large, and the largest possible.
SIZES = [0, 1, 3, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
# Growth of peak memory that counts as a fault.
MAX_GROWTH_MB = 200
EXIF_ORIENTATION = 0x0112


def intact_files(numbers: np.random.Generator) -> dict[str, tuple[bytes, Callable[[Path], object]]]:
    """Returns the content of an intact file of each kind, and its reader, by file name."""
    digits = numbers.integers(0, 256, (3, 9, 7), np.uint8)
    idx = b"\0\0\x08\x03" + np.asarray(digits.shape, ">u4").tobytes() + digits.tobytes()
    files = {"x.idx": (idx, read_idx), "x.idx.gz": (gzip.compress(idx, mtime=0), read_idx)}
    for name, save in (("stored.npz", np.savez), ("deflated.npz", np.savez_compressed)):
        stream = io.BytesIO()
        save(stream, images=digits, labels=np.asarray(["a", "b", "ä"]))
        files[name] = (stream.getvalue(), lambda path: read_npz(path, ("images", "labels")))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    gray, color = Image.fromarray(digits[0]), Image.fromarray(digits.transpose(1, 2, 0))
    transparent = Image.merge("RGBA", (*color.split(), gray))
    deep = Image.fromarray(257 * digits[0].astype(np.uint16))
    pictures = {
        **{"gray.png": gray, "color.png": color, "x.jpg": gray, "transparent.png": transparent, "deep.png": deep},
        **{"x.webp": transparent, "x.bmp": color, "x.gif": gray, "x.tif": deep, "packed.tiff": color, "x.ppm": color},
    }
    for name, picture in pictures.items():
        stream, options = io.BytesIO(), {"exif": exif} if name.endswith(("png", "jpg", "webp")) else {}
        if name == "packed.tiff":
            options["compression"] = "tiff_lzw"
        picture.save(stream, Image.registered_extensions()[f".{name.partition('.')[2]}"], **options)
        files[name] = (stream.getvalue(), lambda path: read_pictures([path], 1))
    return files


def damaged_copy(content: bytes, numbers: np.random.Generator) -> bytes:
    """Returns the content with one to three random changes."""
    data = bytearray(content)
    for _ in range(numbers.integers(1, 4)):
        offset = int(numbers.integers(0, len(data) + 1))
        match numbers.integers(0, 6):
            case 0 if data:
                data[offset % len(data)] ^= 1 << int(numbers.integers(0, 8))
            case 1:
                del data[offset:]
            case 2:
                data[offset:offset] = numbers.bytes(int(numbers.integers(1, 20)))
            case 3:
                byte_order = ("big", "little")[int(numbers.integers(0, 2))]
                data[offset : offset + 4] = int(numbers.choice(SIZES)).to_bytes(4, byte_order)
            case 4:
                del data[offset : offset + int(numbers.integers(1, 20))]
            case 5:
                data[offset:] = numbers.bytes(len(data) - offset)
    return bytes(data)


def outcome(path: Path, read: Callable[[Path], object]) -> str:
    """Reads a file. Returns `read`, `refused`, or a description of the fault."""
    try:
        with warnings.catch_warnings(action="error"):
            read(path)
    except InputError as error:
        return "refused" if "\n" not in str(error) and str(path) in str(error) else f"message: {error!r}"
    except BaseException as error:  # any other exception is a fault
        return f"{type(error).__name__}: {error}"
    return "read"


def fuzz(inputs: int, seed: int) -> tuple[Counter[str], dict[str, bytes]]:
    """Reads `inputs` damaged files. Returns the number of each outcome, and a file for each fault."""
    numbers, outcomes, faults = np.random.default_rng(seed), Counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        files = intact_files(numbers)
        for index in range(inputs):
            name = list(files)[index % len(files)]
            content, read = files[name]
            path = Path(folder) / name
            path.write_bytes(damaged_copy(content, numbers))
            result = outcome(path, read)
            outcomes[result] += 1
            if result not in ("read", "refused"):
                faults.setdefault(f"{name}: {result}", path.read_bytes())
    return outcomes, faults


def main() -> int:
    """Prints the outcomes and faults, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="number of damaged files (default 100000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damage (default 0)")
    flags = parser.parse_args()
    fuzz(100, flags.seed)  # loads all readers before memory is measured
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes, faults = fuzz(flags.inputs, flags.seed)
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{flags.inputs} damaged files in {time.monotonic() - start:.0f} s: {outcomes['refused']} refused in "
        f"one line, {outcomes['read']} read, {flags.inputs - outcomes['refused'] - outcomes['read']} faults; "
        f"peak memory grew by {growth:.0f} MB"
    )
    for fault, content in faults.items():
        print(fault, content[:200])
    return int(bool(faults) or growth > MAX_GROWTH_MB)


if __name__ == "__main__":
    sys.exit(main())
