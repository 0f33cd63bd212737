"""Answers and figures as columns: what `pandas.DataFrame` and the metrics of scikit-learn take."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lifelong_cvae import plotting, recognition, sampling
from lifelong_cvae.config import REJECT_RATE
from lifelong_cvae.errors import InputError, use_package
from lifelong_cvae.files import atomic_write, read_lines
from lifelong_cvae.recognition import ridge_classifier
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
    """What is recognized in images, a row for each in their order.

    Args:
        state: what has been learned.
        images: as for `recognition.evidence`.
        recognizer: one of `config.RECOGNIZERS`; default that of the state's settings.
        candidates: as for `recognition.recognizer`.
        rng: source of the samples, for the bounds that draw some.
        reject: part of the images of known categories that may be called unknown; 0: none is.

    Returns:
        `[n]` each: `index`, `category` (text), `probability` of that category, `log_evidence` of it (nats per
        image), `unknown` (bool).

    Raises:
        InputError: as for `recognition.evidence`, another recognizer, or a part that is not one.
    """
    recognizer = recognition.make_recognizer(state, recognizer, candidates=candidates)
    scores = None if recognizer.classifier is None else ridge_classifier.scores(recognizer.classifier, images)
    evidence = np.asarray(recognition.evidence(recognizer, images, scores=scores, rng=rng))
    likelihoods = recognition.log_likelihoods(recognizer, images, log_evidence=evidence, scores=scores)
    probabilities = np.exp(np.asarray(recognition.log_posteriors(likelihoods)))
    indices = np.arange(len(evidence))
    columns = probabilities.argmax(axis=1)
    names = np.asarray(state.names)[columns]
    return {
        "index": indices,
        "category": names,
        "probability": probabilities[indices, columns],
        "log_evidence": evidence[indices, columns],
        "unknown": np.asarray(recognition.unknown(state, evidence, names, part=reject)),
    }


def history_columns(workdir: str | Path) -> dict[str, list[Any]]:
    """What a run recorded after each task, a row for each.

    Args:
        workdir: folder of the run.

    Returns:
        The numbers of `metrics.jsonl` under its keys, those within an object under names such as
        `terms.real`, and `categories`, the names of the task's separated by commas. What a task
        did not record is None.

    Raises:
        InputError: there is no run, it has finished no task, or a line is damaged.
    """
    rows = [_flatten_line(line) for line in _read_metrics(workdir)]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def accuracy_columns(workdir: str | Path) -> dict[str, list[Any]]:
    """How well each category was recognized after each task: a row for each of these figures.

    Args:
        workdir: folder of the run.

    Returns:
        `task` (from 1), `category`, `recognizer`, `accuracy` (a fraction).

    Raises:
        InputError: as for `history`.
    """
    # In metrics.jsonl the figures of the run's recognizer have no suffix.
    suffixes = {read_run_config(Path(workdir)).config.recognition.recognizer: "", "elbo": "_elbo"}
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
        raise InputError(f"{file}: no task is recorded there; a folder in which `learn` finished one is expected")
    return lines


def _flatten_line(line: Mapping[str, Any]) -> dict[str, Any]:
    """One level of names, without what is there for each category."""
    flat: dict[str, Any] = {}
    for name, value in line.items():
        if name == "categories":
            flat[name] = ",".join(value)
        elif not isinstance(value, Mapping):
            flat[name] = value
        elif not name.startswith("accuracy_per_category"):
            flat |= {f"{name}.{inner}": of for inner, of in value.items()}
    return flat


def write_samples(
    state: LifelongState, names: Sequence[str], count: int, file: Path, *, seed: int, cycles: int = 0
) -> None:
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
        use_package("matplotlib")
    images = sampling.imagine(state, names, count, rng=jax.random.key(seed), cycles=cycles)
    if file.suffix == ".png":
        return plotting.image_grid(images, file)
    pixels = np.concatenate([np.rint(255 * np.asarray(images[name])).astype(np.uint8) for name in names])
    with atomic_write(file) as draft:
        np.savez_compressed(draft, images=pixels, labels=np.repeat(np.asarray(names), count))
    return None


def write_predictions(
    state: LifelongState,
    images: Any,
    file: Path,
    *,
    recognizer: str | None = None,
    candidates: int | None = None,
    seed: int,
    reject: float = REJECT_RATE,
) -> None:
    """Recognizes images and writes a CSV row for each, in their order.

    Args:
        state: what has been learned.
        images: as for `recognition.evidence`.
        file: the `.csv` to write.
        recognizer: one of `config.RECOGNIZERS`; default that of the state's settings.
        candidates: as for `recognition.recognizer`.
        seed: of the samples, for the bounds that draw some.
        reject: part of the images of known categories that may be called unknown; 0: none is.

    Raises:
        InputError: another kind of file, a folder that does not exist, or bad images.
    """
    _check_file(file, (".csv",))
    columns = prediction_columns(
        state, images, recognizer=recognizer, candidates=candidates, rng=jax.random.key(seed), reject=reject
    )
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    with atomic_write(file) as draft, draft.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows([*row[:-1], str(row[-1]).lower()] for row in rows)


def _check_file(file: Path, suffixes: tuple[str, ...]) -> None:
    if file.suffix not in suffixes:
        raise InputError(f"{file}: a file name that ends in {' or '.join(suffixes)} is expected")
    if not file.parent.is_dir():
        raise InputError(f"{file.parent}: no such folder to write into")
