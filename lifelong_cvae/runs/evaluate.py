"""What a finished run is worth: all figures of recognition, density, generation and novelty in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from lifelong_cvae.data import Source, hold_out, open_source
from lifelong_cvae.errors import InputError, use_package
from lifelong_cvae.evaluation import metrics
from lifelong_cvae.evaluation.reference_classifier import load_or_train
from lifelong_cvae.files import device_description, package_versions, write_json
from lifelong_cvae.runs.config import read_run_config
from lifelong_cvae.runs.workdir import load_state


def evaluate_run(
    workdir: Path, classifiers_dir: Path, *, samples: int, cycles: int, seed: int, unknown: str | None = None
) -> dict[str, Any]:
    """Evaluates the newest state of a run, and writes `evaluation.json` into its folder.

    Args:
        workdir: of the run.
        classifiers_dir: folder that keeps trained judges.
        samples: imagined images of all categories together.
        cycles: turns of the circle before an image is judged.
        seed: of the samples.
        unknown: another data set, as `--dataset` names it, whose images should look novel. It is opened
            with the options of the run, as far as it takes them.

    Returns:
        `recognition`, `density`, `generation` and `novelty` (see `evaluation.measures`).

    Raises:
        InputError: there is no run, its data are gone, `unknown` has images of another size, or the extra
            `evaluation` is missing.
    """
    use_package("sklearn")
    run_config, state, rng = read_run_config(workdir), load_state(workdir), jax.random.key(seed)
    source = hold_out(open_source(run_config.dataset, run_config.options), run_config.validation_fraction)
    other = {}
    if unknown is not None:
        opened = open_source(unknown, run_config.options.taken_by(unknown))
        other["other"] = _all_images(opened, state.image_shape)
    classifier, split = load_or_train(source, classifiers_dir), run_config.evaluate_on
    answers = metrics.log_posteriors_by_category(state, source, split, rng=rng)
    known = [tuple(name for name in names if name in state.names) for names in run_config.tasks]
    values = {
        "recognition": {
            "recognizer": state.config.recognition.recognizer,
            **metrics.recognition_metrics(answers, state),
        },
        "density": metrics.density(state, source, split, rng=rng),
        "generation": metrics.evaluate_generation(
            state,
            source,
            split,
            classifier,
            learned_from=run_config.subsample(source),
            samples=samples,
            tasks=[names for names in known if names],
            cycles=cycles,
            rng=rng,
        ),
        "novelty": metrics.ood_metrics(state, source, split, other=other, evidence=answers["elbo"], rng=rng),
        "evaluate_on": split,
        "versions": package_versions(),
        "device": device_description(),
    }
    write_json(workdir / "evaluation.json", values)
    return values


def _all_images(source: Source, image_shape: tuple[int, int, int]) -> np.ndarray:
    if source.image_shape != image_shape:
        raise InputError(
            f"{source.name}: images of {image_shape} are expected, as the run has learned, got {source.image_shape}"
        )
    return np.concatenate([source.read("test", name) for name in source.categories])
