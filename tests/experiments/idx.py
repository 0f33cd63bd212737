"""IDX files of MNIST digits."""

import gzip

import numpy as np


def write_idx(file, values):
    """Writes an IDX file of uint8."""
    values = np.asarray(values, np.uint8)
    header = b"\0\0\x08" + bytes([values.ndim]) + np.asarray(values.shape, ">u4").tobytes()
    with gzip.open(file, "wb") if file.suffix == ".gz" else file.open("wb") as stream:
        stream.write(header + values.tobytes())


def write_digits(folder, mnist5k, names):
    """Writes 60 train and 20 test images of each digit into four IDX files, one of them gzipped."""
    for split, stem, count in [("train", "train", 60), ("test", "t10k", 20)]:
        images = [mnist5k.read(split, name)[:count, ..., 0] for name in names]
        write_idx(folder / f"{stem}-images-idx3-ubyte{'.gz' if stem == 'train' else ''}", np.concatenate(images))
        write_idx(folder / f"{stem}-labels-idx1-ubyte", np.repeat([int(name) for name in names], count))
