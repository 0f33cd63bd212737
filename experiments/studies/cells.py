"""Runs the cells of a study.

A cell is one run that is learned and evaluated. Only its figures are kept. A study can be interrupted and resumed: a
cell whose figures are in the folder is not run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.studies import store
from experiments.studies.store import FLOOR
from lifelong_cvae.data import Source
from lifelong_cvae.evaluation import continual, generation, metrics
from lifelong_cvae.evaluation.reference_classifier import ReferenceClassifier
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.state import LifelongState, init, parameters_per_category
from lifelong_cvae.training.learn import learn

# Imagined images of all categories together from which the classifier's agreement is measured after every task.
AGREEMENT_SAMPLES = 1000
# Labels of the row with figures of real images.
FLOOR_LABELS = {"strategy": "real images"}


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        run_config: data, tasks, seed and settings of the run.
        labels: column heading to value; distinguishes the run from the others of the study.
    """

    run_config: RunConfig
    labels: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the run, which is also the stem of its file."""
        return store.run_name(self.labels)


def identity(cell: Cell, source: Source, *, samples: int) -> dict[str, Any]:
    """Returns the values that a cell's figures depend on, ready for JSON.

    The location of the data and the options of opening them are left out: the fingerprint of the data stands for them.
    """
    left_out = ("dataset", "options")
    run_config = {key: value for key, value in cell.run_config.to_dict().items() if key not in left_out}
    return {"labels": dict(cell.labels), "plan": run_config, "data": source.fingerprint, "samples": samples}


def run_cell(cell: Cell, source: Source, classifier: ReferenceClassifier, *, samples: int) -> dict[str, Any]:
    """Learns and evaluates one cell.

    Args:
        cell: run to execute.
        source: data of the run.
        classifier: reference classifier of the data.
        samples: imagined images of all categories together.

    Returns:
        `accuracy`; `history` (A[t, c], fractions) and `agreement_history` (the same of the classifier's agreement);
        their summaries `over_time` and `generation_over_time` (`continual.summary`); `forgetting_same_candidates`;
        `imagined` (`generation.generation_metrics`); `per_task`; `density`; `novelty` (halfway, with the categories of
        later tasks unknown); numbers of parameters; seconds.
    """
    run_config, rng, start = cell.run_config, jax.random.key(cell.run_config.seed), time.perf_counter()
    train_source = run_config.subsample(source)
    state = init(run_config.config, source.image_shape, rng=rng)
    history, agreements, novelty, seconds_learning, cache = [], [], {}, 0.0, metrics.empty_cache()
    for index, names in enumerate(run_config.tasks):
        images = metrics.real_images(names, train_source, "train")
        state, report = learn(state, images, rng=rng)
        seconds_learning += report.seconds
        evidence = metrics.evidence_by_category(state, source, run_config.evaluate_on, rng=rng, cache=cache)
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
    """Measures generation and density of a state that has learned all categories."""
    split = run_config.evaluate_on
    imagined = metrics.sample_images(state, source, samples, rng=rng)
    real = metrics.real_images(state.names, source, split)
    return {
        "imagined": generation.generation_metrics(imagined, real, classifier, rng=rng),
        "per_task": generation.per_task_metrics(imagined, real, run_config.tasks, classifier, seed=run_config.seed),
        "density": metrics.density(state, source, split, rng=rng),
    }


def run_floor(source: Source, classifier: ReferenceClassifier, split: str, *, samples: int) -> dict[str, Any]:
    """Measures training images in place of imagined ones, the floor of all distances."""
    train_images = metrics.floor_images(source.categories, source, samples)
    real = metrics.real_images(source.categories, source, split)
    return {"imagined": generation.generation_metrics(train_images, real, classifier, rng=jax.random.key(0))}


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    source: Source,
    classifier: Callable[[], ReferenceClassifier],
    *,
    samples: int,
    log_fn: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Runs the cells whose figures are not in `folder` yet, and returns the figures of all.

    Args:
        cells: cells of one study.
        folder: receives one JSON file per run.
        source: data of all cells.
        classifier: returns the reference classifier; called only if there is a cell to run.
        samples: imagined images of all categories together.
        log_fn: receives a line per cell, with an estimate of the time left.

    Raises:
        InputError: figures in the folder belong to another run. In that case nothing is run.
    """
    figures = {store.run_name(values["labels"]): values for values in store.read_figures(folder).cells}
    identities = {cell.name: identity(cell, source, samples=samples) for cell in cells}
    for name in identities.keys() & figures.keys():
        store.check_identity(figures[name], identities[name], f"{folder}: run {name}")
    for index, cell in enumerate(cells, start=1):
        prefix = f"{index}/{len(cells)}  {cell.name}:"
        if cell.name not in figures:
            log_fn(f"{prefix} running")
            measured = run_cell(cell, source, classifier(), samples=samples)
            file = folder / f"{cell.name}.json"
            figures[cell.name] = store.write_figures(file, {**identities[cell.name], **measured})
        accuracy, seconds = figures[cell.name]["accuracy"], figures[cell.name]["seconds"]
        left = _seconds_left([figures.get(other.name) for other in cells])
        note = f"; about {left / 60:.0f} minutes left" if left else ""
        log_fn(f"{prefix} {100 * accuracy:.2f} %, {seconds:.0f} s{note}")
    return [figures[cell.name] for cell in cells]


def floor(
    folder: Path, source: Source, classifier: Callable[[], ReferenceClassifier], split: str, *, samples: int
) -> dict[str, Any]:
    """Returns the figures of `run_floor`, which are measured once per folder.

    Raises:
        InputError: the figures in the folder are of other data, another split or another number of samples.
    """
    floor_identity = {"data": source.fingerprint, "split": split, "samples": samples, "counts": source.counts}
    figures = store.read_figures(folder).floor
    if figures is None:
        measured = run_floor(source, classifier(), split, samples=samples)
        figures = store.write_figures(folder / FLOOR, {**floor_identity, **measured})
    store.check_identity(figures, floor_identity, f"{folder}: real images")
    return figures


def _seconds_left(figures: Sequence[Mapping[str, Any] | None]) -> float:
    """Estimates the seconds that the missing cells take, from the mean of the others."""
    seconds = [values["seconds"] for values in figures if values is not None]
    return float(np.mean(seconds)) * (len(figures) - len(seconds))
