"""Files that others read: imagined images as npz or PNG, answers as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lifelong_cvae import figures, playback, records, tidy
from lifelong_cvae.config import REJECTED_PART
from lifelong_cvae.errors import InputError
from lifelong_cvae.growth import LifelongState


def imagined(state: LifelongState, names: Sequence[str], count: int, file: Path, *, seed: int, cycles: int = 0) -> None:
    """Imagines `count` images of each category and writes them.

    Args:
        state: what has been learned.
        names: the categories.
        count: images of each.
        file: `.npz` (`images` uint8 [n, h, w, c], `labels` texts [n]) or `.png` (a labelled grid).
        seed: of the samples.
        cycles: turns of the circle.

    Raises:
        InputError: another kind of file, a folder that does not exist, or an unknown category.
    """
    _check_file(file, (".npz", ".png"))
    if file.suffix == ".png":
        figures.require_matplotlib()
    images = playback.imagine(state, names, count, rng=jax.random.key(seed), cycles=cycles)
    if file.suffix == ".png":
        return figures.image_grid(images, file)
    pixels = np.concatenate([np.rint(255 * np.asarray(images[name])).astype(np.uint8) for name in names])
    with records.whole(file) as draft:
        np.savez_compressed(draft, images=pixels, labels=np.repeat(np.asarray(names), count))
    return None


def recognised(
    state: LifelongState,
    images: Any,
    file: Path,
    *,
    recogniser: str | None = None,
    candidates: int | None = None,
    seed: int,
    reject: float = REJECTED_PART,
) -> None:
    """Recognises images and writes a CSV row for each, in their order.

    Args:
        state: what has been learned.
        images: as for `recognition.evidence`.
        file: the `.csv` to write.
        recogniser: one of `config.RECOGNISERS`; default that of the state's settings.
        candidates: as for `recognition.recogniser`.
        seed: of the samples, for the bounds that draw some.
        reject: part of the images of known categories that may be called unknown; 0: none is.

    Raises:
        InputError: another kind of file, a folder that does not exist, or bad images.
    """
    _check_file(file, (".csv",))
    columns = tidy.answers(
        state, images, recogniser=recogniser, candidates=candidates, rng=jax.random.key(seed), reject=reject
    )
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    with records.whole(file) as draft, draft.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows([*row[:-1], str(row[-1]).lower()] for row in rows)


def _check_file(file: Path, suffixes: tuple[str, ...]) -> None:
    if file.suffix not in suffixes:
        raise InputError(f"{file}: a file name that ends in {' or '.join(suffixes)} is expected")
    if not file.parent.is_dir():
        raise InputError(f"{file.parent}: no such folder to write into")
