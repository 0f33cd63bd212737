"""Results as columns, for `pandas.DataFrame` and scikit-learn metrics, and as files: npz, PNG, CSV."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lifelong_cvae import plotting, recognition, sampling
from lifelong_cvae.config import REJECT_RATE
from lifelong_cvae.errors import InputError, use_package
from lifelong_cvae.evaluation import continual
from lifelong_cvae.files import atomic_write, csv_line, read_lines
from lifelong_cvae.images import to_uint8
from lifelong_cvae.model.vectors import is_vector, refuse_vectors
from lifelong_cvae.runs.config import read_run_config
from lifelong_cvae.state import LifelongState


def prediction_columns(
    state: LifelongState,
    images: Any,
    *,
    recognizer: str | None = None,
    candidates: int | None = None,
    rng: jax.Array | None = None,
    reject: float = REJECT_RATE,
) -> dict[str, np.ndarray]:
    """Recognizes images, one row each, in their order.

    Args:
        state: state with categories.
        images: as in `recognition.evidence`.
        recognizer: one of `config.RECOGNIZERS`; default that of the state's settings.
        candidates: as in `recognition.make_recognizer`.
        rng: key of the samples, for the bounds that need some.
        reject: fraction of the images of known categories that may be called unknown. 0 rejects nothing.

    Returns:
        Arrays `[n]`: `index`, `category` (string), `probability` of that category, its `log_evidence` (nats per
        image), `unknown` (bool).

    Raises:
        InputError: as in `recognition.evidence`, an unknown recognizer, or an invalid fraction.
    """
    ready = recognition.make_recognizer(state, recognizer, candidates=candidates)
    names, probabilities, log_evidence, scores = recognition.recognize_with_evidence(ready, images, rng=rng)
    index = np.arange(len(names))
    predictions = np.asarray([state.names.index(name) for name in names], int)
    return {
        "index": index,
        "category": names,
        "probability": probabilities[index, predictions],
        "log_evidence": log_evidence[index, predictions],
        "unknown": recognition.unknown(ready, log_evidence, names, scores=scores, rate=reject),
    }


def history_columns(workdir: str | Path) -> dict[str, list[Any]]:
    """Reads the metrics of the run in `workdir`, one row per task.

    Returns:
        The numbers of `metrics.jsonl` by key, nested ones under names such as `terms.real`, and `categories`, the
        task's categories as a line of CSV. Missing values are None.

    Raises:
        InputError: there is no run, it has not finished a task, or a line is damaged.
    """
    rows = [_flatten_line(line) for line in _read_metrics(workdir)]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def accuracy_columns(workdir: str | Path) -> dict[str, list[Any]]:
    """Reads `task` (from 1), `category`, `recognizer` and `accuracy` of each category after each task.

    Raises:
        InputError: as in `history_columns`.
    """
    # Keys of the run's recognizer have no suffix.
    suffixes = {read_run_config(Path(workdir)).config.recognition.recognizer: "", "elbo": continual.ELBO_SUFFIX}
    rows = [
        {"task": line["task"], "category": category, "recognizer": name, "accuracy": accuracy}
        for line in _read_metrics(workdir)
        for name, suffix in suffixes.items()
        for category, accuracy in line[f"accuracy_per_category{suffix}"].items()
    ]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    file = Path(workdir) / "metrics.jsonl"
    lines = read_lines(file)
    if not lines:
        raise InputError(f"{file}: expected the metrics of at least one finished task, got none")
    return lines


def _flatten_line(line: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens one level of objects, without those that have categories for keys."""
    flat: dict[str, Any] = {}
    for name, value in line.items():
        if name == "categories":
            flat[name] = csv_line(value)
        elif not isinstance(value, Mapping):
            flat[name] = value
        elif not name.startswith("accuracy_per_category"):
            flat |= {f"{name}.{key}": nested for key, nested in value.items()}
    return flat


def write_samples(
    state: LifelongState, names: Sequence[str], count: int, file: Path, *, seed: int, cycles: int = 0
) -> None:
    """Imagines `count` images of each category and writes them.

    Args:
        state: state with the categories.
        names: categories.
        count: images per category.
        file: `.npz` (`images` uint8 `[n, h, w, c]`, or float32 `[n, d]` of vectors; `labels` strings `[n]`), or `.png`
            (a labeled grid of images).
        seed: seed of the samples.
        cycles: turns of the circle.

    Raises:
        InputError: another kind of file, a missing folder, or an unknown category.
    """
    _check_file(file, (".npz", ".png"))
    if file.suffix == ".png":
        refuse_vectors(state.image_shape, str(file))
        use_package("matplotlib")
    images = sampling.imagine(state, names, count, rng=jax.random.key(seed), cycles=cycles)
    if file.suffix == ".png":
        plotting.image_grid(images, file)
        return
    convert = np.asarray if is_vector(state.image_shape) else to_uint8
    pixels = np.concatenate([convert(images[name]) for name in names])
    with atomic_write(file) as draft:
        np.savez_compressed(draft, images=pixels, labels=np.repeat(np.asarray(names), count))


def write_predictions(
    state: LifelongState,
    images: Any,
    file: Path,
    *,
    files: Sequence[str] | None = None,
    recognizer: str | None = None,
    candidates: int | None = None,
    seed: int,
    reject: float = REJECT_RATE,
) -> None:
    """Recognizes images and writes the columns of `prediction_columns` to a CSV file.

    Args:
        state: state with categories.
        images: as in `recognition.evidence`.
        file: `.csv` file to write.
        files: name of each image's file, for a last column `file`; default none.
        recognizer: one of `config.RECOGNIZERS`; default that of the state's settings.
        candidates: as in `recognition.make_recognizer`.
        seed: seed of the samples, for the bounds that need some.
        reject: fraction of the images of known categories that may be called unknown. 0 rejects nothing.

    Raises:
        InputError: another kind of file, a missing folder, or bad images.
    """
    _check_file(file, (".csv",))
    columns = prediction_columns(
        state, images, recognizer=recognizer, candidates=candidates, rng=jax.random.key(seed), reject=reject
    )
    columns["unknown"] = np.char.lower(columns["unknown"].astype(str))
    if files is not None:
        columns["file"] = np.asarray(files)
    with atomic_write(file) as draft, draft.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))


def _check_file(file: Path, suffixes: tuple[str, ...]) -> None:
    if file.suffix not in suffixes:
        raise InputError(f"{file}: expected a file name that ends in {' or '.join(suffixes)}, got {file.name}")
    if not file.parent.is_dir():
        raise InputError(f"{file}: expected an existing folder, got {file.parent}")
