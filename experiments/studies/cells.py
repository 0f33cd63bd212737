"""Studies: grids of whole runs, one JSON file for each.

A cell is a run that is learned, evaluated and forgotten; only its figures stay. A study can be broken off
and taken up again: a cell whose file is there is not run anew.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lifelong_cvae.data import Source
from lifelong_cvae.errors import InputError
from lifelong_cvae.evaluation import continual, metrics
from lifelong_cvae.evaluation.reference_classifier import ReferenceClassifier
from lifelong_cvae.files import device_description, json_round_trip, package_versions, read_json, utc_date, write_json
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.state import LifelongState, init, parameters_per_category
from lifelong_cvae.training.learn import learn

# Imagined images of all categories together for the classifier's agreement after every task.
AGREEMENT_SAMPLES = 1000
# File of the figures of real images in the place of imagined ones, and what they are called in tables.
FLOOR = "floor.json"
FLOOR_LABELS = {"strategy": "real images"}


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        run_config: what is learned, and from what.
        labels: what distinguishes it, column of the table to value.
    """

    run_config: RunConfig
    labels: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A file name."""
        return re.sub(r"[^\w.,=-]+", "_", ",".join(f"{key}={value}" for key, value in self.labels.items()))


def identity(cell: Cell, source: Source, *, samples: int) -> dict[str, Any]:
    """What a cell's figures depend on, ready for JSON.

    Where the data are and how they are opened is not part of it: their fingerprint is.
    """
    opened = ("dataset", "options")
    run_config = {key: value for key, value in cell.run_config.to_dict().items() if key not in opened}
    return {"labels": dict(cell.labels), "plan": run_config, "data": source.fingerprint, "samples": samples}


def run_cell(cell: Cell, source: Source, classifier: ReferenceClassifier, *, samples: int) -> dict[str, Any]:
    """Learns and evaluates one cell; nothing but the figures stays.

    Args:
        cell: what to run.
        source: its data.
        classifier: of the data.
        samples: imagined images of all categories together.

    Returns:
        `accuracy`, `history` (A[t, c], fractions), `over_time` and `generation_over_time`
        (`continual.summary` of A and of the classifier's agreement), `forgetting_same_candidates`, `imagined`
        (`measures.judged`), `per_task`, `density`, `novelty` (half-way, with the
        categories of later tasks unknown), numbers of parameters, seconds.
    """
    run_config, rng, start = cell.run_config, jax.random.key(cell.run_config.seed), time.perf_counter()
    few = run_config.subsample(source)
    state = init(run_config.config, source.image_shape, rng=rng)
    history, agreements, novelty, seconds_learning = [], [], {}, 0.0
    for index, names in enumerate(run_config.tasks):
        images = metrics.real_images(names, few, "train")
        state, report = learn(state, images, rng=rng)
        seconds_learning += report.seconds
        evidence = metrics.evidence_by_category(state, source, run_config.evaluate_on, rng=rng)
        accuracies = continual.recognition_accuracies(evidence, state.names)
        history.append(accuracies["accuracy_per_category"])
        agreements.append(classifier.agreement(metrics.sample_images(state, source, AGREEMENT_SAMPLES, rng=rng)))
        if 2 * (index + 1) == len(run_config.tasks):
            novelty = metrics.ood_metrics(state, source, run_config.evaluate_on, evidence=evidence, rng=rng)
    candidates = continual.known_after_task(run_config.tasks)
    restricted = continual.accuracy_per_category(evidence, state.names, candidates=candidates)
    return {
        "accuracy": accuracies["accuracy"],
        "over_time": continual.summary(history),
        "forgetting_same_candidates": continual.forgetting(history, restricted),
        "generation_over_time": continual.summary(agreements),
        **_final_figures(state, source, classifier, run_config, samples=samples, rng=rng),
        "novelty": novelty,
        "parameters_per_category": parameters_per_category(state),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "seconds_learning": seconds_learning,
        "seconds": time.perf_counter() - start,
        "history": history,
        "agreement_history": agreements,
    }


def _final_figures(
    state: LifelongState,
    source: Source,
    classifier: ReferenceClassifier,
    run_config: RunConfig,
    *,
    samples: int,
    rng: jax.Array,
) -> dict[str, Any]:
    """Of the learner that has met all categories: what it imagines, and its density."""
    split = run_config.evaluate_on
    imagined = metrics.sample_images(state, source, samples, rng=rng)
    real = metrics.real_images(state.names, source, split)
    return {
        "imagined": metrics.generation_metrics(imagined, real, classifier, rng=rng),
        "per_task": metrics.per_task_metrics(imagined, real, run_config.tasks, classifier, seed=run_config.seed),
        "density": metrics.density(state, source, split, rng=rng),
    }


def run_floor(source: Source, classifier: ReferenceClassifier, split: str, *, samples: int) -> dict[str, Any]:
    """Training images in the place of imagined ones, as many: what `imagined` of a cell would be at best."""
    first = metrics.floor_images(source.categories, source, samples)
    real = metrics.real_images(source.categories, source, split)
    return {"imagined": metrics.generation_metrics(first, real, classifier, rng=jax.random.key(0))}


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    source: Source,
    classifier: Callable[[], ReferenceClassifier],
    *,
    samples: int,
    log_fn: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Runs the cells that `folder` does not hold yet, and returns the figures of all.

    Args:
        cells: of one study.
        folder: takes a JSON file per cell.
        source: the data of all cells.
        classifier: gives the classifier, where there is something to run.
        samples: imagined images of all categories together.
        log_fn: told a line per cell, with an estimate of the time left.

    Raises:
        InputError: a file of the folder is another run's; nothing has been run then.
    """
    found = {cell.name: _read(cell, folder, source, samples=samples) for cell in cells}
    for index, cell in enumerate(cells):
        if found[cell.name] is None:
            log_fn(f"{index + 1}/{len(cells)}  {cell.name}: running")
            figures = run_cell(cell, source, classifier(), samples=samples)
            _write(folder / f"{cell.name}.json", identity(cell, source, samples=samples), figures)
            found[cell.name] = _read(cell, folder, source, samples=samples)
        figures = found[cell.name]
        left = _seconds_left([found[other.name] for other in cells])
        note = f"; about {left / 60:.0f} minutes left" if left else ""
        log_fn(
            f"{index + 1}/{len(cells)}  {cell.name}: {100 * figures['accuracy']:.2f} %, "
            f"{figures['seconds']:.0f} s{note}"
        )
    return [found[cell.name] for cell in cells]


def floor(
    folder: Path, source: Source, classifier: Callable[[], ReferenceClassifier], split: str, *, samples: int
) -> dict[str, Any]:
    """`run_floor` of a source, kept in the folder."""
    file = folder / FLOOR
    made_of = {"data": source.fingerprint, "split": split, "samples": samples, "counts": source.counts}
    if not file.exists():
        _write(file, made_of, run_floor(source, classifier(), split, samples=samples))
    return _checked(file, made_of)


def _write(file: Path, made_of: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    measured_by = {"versions": package_versions(), "device": device_description(), "date": utc_date()}
    write_json(file, {**made_of, **figures, **measured_by})


def _read(cell: Cell, folder: Path, source: Source, *, samples: int) -> dict[str, Any] | None:
    file = folder / f"{cell.name}.json"
    return _checked(file, identity(cell, source, samples=samples)) if file.exists() else None


def _checked(file: Path, made_of: Mapping[str, Any]) -> dict[str, Any]:
    values = read_json(file)
    for key, value in made_of.items():
        if values.get(key) != json_round_trip(value):
            raise InputError(
                f"{file} holds another run (its {key} differs): another --workdir is expected, or remove it"
            )
    return values


def _seconds_left(results: Sequence[Mapping[str, Any] | None]) -> float:
    done = [result["seconds"] for result in results if result is not None]
    return float(np.mean(done)) * (len(results) - len(done))
