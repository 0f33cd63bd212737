"""Damaged and unsuitable files for launchers, and the check of their one-line errors."""

import gzip
import re
import shutil

import numpy as np
from PIL import Image

from tests.experiments.idx import write_idx

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def assert_one_line_error(ended, *words):
    """Asserts exit code 2 and a single line on stderr that contains the words."""
    assert ended.code == 2, ended
    assert ended.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", ended.err), ended.err
    for word in words:
        assert str(word) in ended.err


def write_bad_inputs(folder, idx_folder, run):
    """Writes all files into a folder and returns their paths by name.

    Args:
        folder: empty folder.
        idx_folder: folder of valid IDX files.
        run: run directory of a finished run, which is copied.
    """
    write_small_files(folder)
    idx_folders = write_idx_folders(folder, idx_folder)
    npz_files = write_npz_files(folder)
    runs = write_runs(folder, run)
    return {"idx": idx_folder, "here": folder, **idx_folders, **npz_files, **runs}


def write_small_files(folder):
    """Writes files of other kinds, empty files and small folders."""
    for name in ("zero.npz", "zero.png", "zero.idx"):
        (folder / name).write_bytes(b"")
    (folder / "claim.idx").write_bytes(b"\0\0\x08\4" + b"\xff" * 16)
    (folder / "text.txt").write_text("These are no images.")
    (folder / "text.png").write_text("This is no picture.")
    Image.fromarray(np.arange(20 * 28, dtype=np.uint8).reshape(20, 28)).save(folder / "flat.png")
    (folder / "empty").mkdir()
    (folder / "occupied").mkdir()
    (folder / "occupied" / "notes.txt").write_text("mine")


def write_idx_folders(folder, idx_folder):
    """Writes copies of a folder of IDX files, each damaged in one way."""
    names = ("cut", "cut_header", "magic", "type", "lengths", "gzip", "missing_file", "swapped", "other")
    copies = {name: shutil.copytree(idx_folder, folder / name) for name in names}
    zipped = (idx_folder / f"{IMAGES}.gz").read_bytes()
    content = gzip.decompress(zipped)
    for name, copy in copies.items():
        if name not in ("gzip", "missing_file"):
            (copy / IMAGES).write_bytes(content)
            (copy / f"{IMAGES}.gz").unlink()
    (copies["cut"] / IMAGES).write_bytes(content[:-1])
    (copies["cut_header"] / IMAGES).write_bytes(content[:9])
    (copies["magic"] / IMAGES).write_bytes(b"\x89PNG" + content[4:])
    (copies["type"] / IMAGES).write_bytes(b"\0\0\x0d" + content[3:])
    write_idx(copies["lengths"] / LABELS, np.zeros(179))
    (copies["gzip"] / f"{IMAGES}.gz").write_bytes(zipped[: len(zipped) // 2])
    (copies["missing_file"] / "t10k-labels-idx1-ubyte").unlink()
    (copies["swapped"] / LABELS).write_bytes(content)
    (copies["other"] / IMAGES).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    return copies


def write_npz_files(folder):
    """Writes a valid npz file of four images in two categories, half of it, and unsuitable ones."""
    digits, labels = np.arange(4 * 28 * 28, dtype=np.uint8).reshape(4, 28, 28), np.arange(4) // 2
    valid = {"train_images": digits, "train_labels": labels, "test_images": digits, "test_labels": labels}

    def with_labels(values):
        return {**valid, "train_labels": np.asarray(values), "test_labels": np.asarray(values)}

    contents = {
        "good": valid,
        "lacking": {key: value for key, value in valid.items() if key != "test_labels"},
        "pickled": {**valid, "train_labels": np.asarray([None] * 4)},
        "negative": {**valid, "train_images": digits.astype(int) - 1, "test_images": digits.astype(int) - 1},
        "unprintable": with_labels(["\na", "b"] * 2),
        "small": {"images": digits[:, ::2, ::2]},
        "bright": {"images": digits / 1.0},
        "nan": {**valid, "train_images": np.full((4, 28, 28), np.nan), "test_images": digits / 255},
        "infinite": {"images": np.full((2, 28, 28), np.inf)},
        "color": {"images": np.zeros((2, 28, 28, 3), np.uint8)},
        "flat": {"images": digits[0]},
        "sizes": {**valid, "test_images": digits[:, ::2]},
        "labels": {**valid, "train_labels": np.arange(3)},
        "lonely": {**valid, "test_labels": np.arange(4)},
        "halves": with_labels(np.arange(4) / 2),
        "single": {**valid, "train_labels": np.asarray([0, 0, 0, 1])},
        "unnamed": with_labels(["", "b"] * 2),
        "digits": {"images": digits},
    }
    files = {name: folder / f"{name}.npz" for name in contents}
    for name, arrays in contents.items():
        np.savez(files[name], **arrays)
    content = files["good"].read_bytes()
    (folder / "half.npz").write_bytes(content[: len(content) // 2])
    return files


def write_runs(folder, run):
    """Writes copies of a run: intact, with an edited config.json, with a damaged checkpoint, without checkpoints."""
    copies = {name: shutil.copytree(run, folder / name) for name in ("run", "edited", "damaged")}
    config = copies["edited"] / "config.json"
    config.write_text(config.read_text("utf-8").replace('"seed": 0', '"seed": 1'), "utf-8")
    shutil.rmtree(copies["damaged"] / "checkpoints" / "2" / "params")
    (folder / "begun").mkdir()
    shutil.copy(run / "config.json", folder / "begun")
    return copies
