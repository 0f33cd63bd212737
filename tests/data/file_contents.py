"""Contents of IDX and PNG files, composed by their specifications, and functions that write files."""

import gzip
import struct
import zlib

import numpy as np


def idx_bytes(values, *sizes, kind=8):
    """An IDX file of values with a header of sizes; the two need not fit."""
    return struct.pack(f">HBB{len(sizes)}I", 0, kind, len(sizes), *sizes) + bytes(values)


def png_bytes(rows, width, height, *, color=0, depth=8):
    """A PNG file; `rows` are the bytes of each row, `color` 0 is gray and 2 is RGB."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def write_file(folder, name, content):
    """Writes a file, gzipped if its name ends in .gz, and returns its path."""
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def write_npz(path, **arrays):
    """Writes an npz file and returns its path."""
    np.savez(path, **arrays)
    return path
