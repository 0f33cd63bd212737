"""Answers and figures as columns: what `pandas.DataFrame` and the metrics of scikit-learn take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lifelong_cvae import closed_form, recognition, records
from lifelong_cvae.config import REJECTED_PART
from lifelong_cvae.errors import InputError
from lifelong_cvae.growth import LifelongState
from lifelong_cvae.plan import read_plan


def answers(
    state: LifelongState,
    images: Any,
    *,
    recogniser: str | None = None,
    candidates: int | None = None,
    rng: jax.Array | None = None,
    reject: float = REJECTED_PART,
) -> dict[str, np.ndarray]:
    """What is recognised in images, a row for each in their order.

    Args:
        state: what has been learned.
        images: as for `recognition.evidence`.
        recogniser: one of `config.RECOGNISERS`; default that of the state's settings.
        candidates: as for `recognition.recogniser`.
        rng: source of the samples, for the bounds that draw some.
        reject: part of the images of known categories that may be called unknown; 0: none is.

    Returns:
        `[n]` each: `index`, `category` (text), `probability` of that category, `log_evidence` of it (nats per
        image), `unknown` (bool).

    Raises:
        InputError: as for `recognition.evidence`, another recogniser, or a part that is not one.
    """
    asked = recognition.recogniser(state, recogniser, candidates=candidates)
    scores = None if asked.readout is None else closed_form.scores(asked.readout, images)
    evidence = np.asarray(recognition.evidence(asked, images, scores=scores, rng=rng))
    likelihoods = recognition.log_likelihoods(asked, images, log_evidence=evidence, scores=scores)
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


def history(workdir: str | Path) -> dict[str, list[Any]]:
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
    rows = [_flat(line) for line in _lines(workdir)]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def accuracies(workdir: str | Path) -> dict[str, list[Any]]:
    """How well each category was recognised after each task: a row for each of these figures.

    Args:
        workdir: folder of the run.

    Returns:
        `task` (from 1), `category`, `recogniser`, `accuracy` (a fraction).

    Raises:
        InputError: as for `history`.
    """
    # In metrics.jsonl the figures of the run's recogniser have no suffix.
    suffixes = {read_plan(Path(workdir)).config.recognition.recogniser: "", "elbo": "_elbo"}
    rows = [
        {"task": line["task"], "category": category, "recogniser": name, "accuracy": accuracy}
        for line in _lines(workdir)
        for name, suffix in suffixes.items()
        for category, accuracy in line[f"accuracy_per_category{suffix}"].items()
    ]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _lines(workdir: str | Path) -> list[dict[str, Any]]:
    file = Path(workdir) / "metrics.jsonl"
    lines = records.read_lines(file)
    if not lines:
        raise InputError(f"{file}: no task is recorded there; a folder in which `learn` finished one is expected")
    return lines


def _flat(line: Mapping[str, Any]) -> dict[str, Any]:
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
