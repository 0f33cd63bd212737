"""Damages files of every kind that is read, and reads them: images, or one line that says why not.

    python -m tests.fuzz --inputs=100000

A minute or two. It ends with exit status 1 where anything else came of it, or memory grew.
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

from lifelong_cvae.data.files import read_idx, read_image_files, read_npz
from lifelong_cvae.errors import InputError

# What a header may claim: nothing, one, a little too much, and as much as fits.
CLAIMS = [0, 1, 3, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]


def whole_files(numbers: np.random.Generator) -> dict[str, tuple[bytes, Callable[[Path], object]]]:
    """A good file of each kind, and what reads it."""
    digits = numbers.integers(0, 256, (3, 9, 7), np.uint8)
    idx = b"\0\0\x08\x03" + np.asarray(digits.shape, ">u4").tobytes() + digits.tobytes()
    files = {"x.idx": (idx, read_idx), "x.idx.gz": (gzip.compress(idx, mtime=0), read_idx)}
    for name, save in (("stored.npz", np.savez), ("deflated.npz", np.savez_compressed)):
        stream = io.BytesIO()
        save(stream, images=digits, labels=np.asarray(["a", "b", "ä"]))
        files[name] = (stream.getvalue(), lambda path: read_npz(path, ("images", "labels")))
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, image in (
        ("gray.png", digits[0]),
        ("color.png", digits.transpose(1, 2, 0)),
        ("x.jpg", digits[0]),
    ):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG" if name.endswith("jpg") else "PNG", exif=turned)
        files[name] = (stream.getvalue(), lambda path: read_image_files([path], 1))
    return files


def damaged(content: bytes, numbers: np.random.Generator) -> bytes:
    """The content changed in one to three ways."""
    data = bytearray(content)
    for _ in range(numbers.integers(1, 4)):
        place = int(numbers.integers(0, len(data) + 1))
        match numbers.integers(0, 6):
            case 0 if data:
                data[place % len(data)] ^= 1 << int(numbers.integers(0, 8))
            case 1:
                del data[place:]
            case 2:
                data[place:place] = numbers.bytes(int(numbers.integers(1, 20)))
            case 3:
                order = ("big", "little")[int(numbers.integers(0, 2))]
                data[place : place + 4] = int(numbers.choice(CLAIMS)).to_bytes(4, order)
            case 4:
                del data[place : place + int(numbers.integers(1, 20))]
            case 5:
                data[place:] = numbers.bytes(len(data) - place)
    return bytes(data)


def outcome(path: Path, read: Callable[[Path], object]) -> str:
    """`read`, `refused`, or what else happened."""
    try:
        with warnings.catch_warnings(action="error"):
            read(path)
    except InputError as error:
        return "refused" if "\n" not in str(error) and str(path) in str(error) else f"message: {error!r}"
    except BaseException as error:  # whatever it is, it is a fault
        return f"{type(error).__name__}: {error}"
    return "read"


def fuzz(inputs: int, seed: int) -> tuple[Counter[str], dict[str, bytes]]:
    """Outcomes of so many damaged files, and a file for each outcome that is a fault."""
    numbers, outcomes, faults = np.random.default_rng(seed), Counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        files = whole_files(numbers)
        for index in range(inputs):
            name = list(files)[index % len(files)]
            content, read = files[name]
            path = Path(folder) / name
            path.write_bytes(damaged(content, numbers))
            found = outcome(path, read)
            outcomes[found] += 1
            if found not in ("read", "refused"):
                faults.setdefault(f"{name}: {found}", path.read_bytes())
    return outcomes, faults


def main() -> int:
    """Prints how it went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="damaged files (default 100000)")
    parser.add_argument("--seed", type=int, default=0, help="of the damage (default 0)")
    flags = parser.parse_args()
    fuzz(100, flags.seed)
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes, faults = fuzz(flags.inputs, flags.seed)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{flags.inputs} damaged files in {time.monotonic() - start:.0f} s: {outcomes['refused']} refused in "
        f"one line, {outcomes['read']} read, {flags.inputs - outcomes['refused'] - outcomes['read']} faults; "
        f"peak memory grew by {grown:.0f} MB"
    )
    for fault, content in faults.items():
        print(fault, content[:200])
    return int(bool(faults) or grown > 200)


if __name__ == "__main__":
    sys.exit(main())
