"""Evaluates a run: metrics of recognition, density, generation and novelty detection in one file."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from lifelong_cvae import plotting
from lifelong_cvae.data import open_source
from lifelong_cvae.deprecated import with_old_keys
from lifelong_cvae.errors import InputError, use_package
from lifelong_cvae.evaluation import metrics, vector_classifier
from lifelong_cvae.evaluation.reference_classifier import load_or_train
from lifelong_cvae.files import device_description, package_versions, write_json
from lifelong_cvae.model.types import own_types
from lifelong_cvae.runs.workdir import load_state, open_run_source


@own_types()
def evaluate_run(
    workdir: Path,
    classifiers_dir: Path,
    *,
    samples: int,
    cycles: int,
    seed: int,
    unknown: str | None = None,
    dataset: str | None = None,
) -> dict[str, Any]:
    """Evaluates the newest state of a run, and writes `evaluation.json` into its run directory.

    Args:
        workdir: run directory.
        classifiers_dir: folder that keeps trained reference classifiers, one per data set. For vectors a logistic
            regression is trained in their place, and not kept.
        samples: imagined images of all categories together.
        cycles: turns of the circle before an image is evaluated.
        seed: seed of the samples.
        unknown: another data set, as in `--dataset`, whose images serve as unknown. It is opened with those options
            of the run that its kind of data set accepts.
        dataset: as in `workdir.open_run_source`.

    Returns:
        `recognition`, `density`, `generation` and `novelty` (see `evaluation.metrics`), and `evaluate_on`, `versions`
        and `device`.

    Raises:
        InputError: there is no run, its data set cannot be opened, or `unknown` has images of another shape.
        MissingExtraError: the extra `evaluation` is not installed.
    """
    use_package("sklearn")
    state, rng = load_state(workdir), jax.random.key(seed)
    run_config, source = open_run_source(workdir, dataset)
    other = {}
    if unknown is not None:
        opened = open_source(unknown, run_config.options.for_dataset(unknown))
        if opened.image_shape != state.image_shape:
            raise InputError(f"{unknown}: expected the run's image shape {state.image_shape}, got {opened.image_shape}")
        other["other"] = np.concatenate(list(metrics.real_images(opened.categories, opened, "test").values()))
    split, is_vector = run_config.evaluate_on, state.networks.is_vector
    classifier = vector_classifier.train_classifier(source) if is_vector else load_or_train(source, classifiers_dir)
    log_posteriors = metrics.log_posteriors_by_category(state, source, split, rng=rng)
    # The state of an unfinished run lacks the categories of later tasks.
    tasks = [tuple(name for name in names if name in state.names) for names in run_config.tasks]
    values = {
        "recognition": {
            "recognizer": state.config.recognition.recognizer,
            **metrics.recognition_metrics(log_posteriors, state),
        },
        "density": metrics.density(state, source, split, rng=rng),
        "generation": metrics.evaluate_generation(
            state,
            source,
            split,
            classifier,
            learned_from=run_config.subsample(source),
            samples=samples,
            tasks=[names for names in tasks if names],
            cycles=cycles,
            rng=rng,
        ),
        "novelty": metrics.ood_metrics(state, source, split, other=other, evidence=log_posteriors["elbo"], rng=rng),
        "evaluate_on": split,
        "versions": package_versions(),
        "device": device_description(),
    }
    if not is_vector:
        _plot_spectra(workdir, values["generation"])
    values = with_old_keys(values)
    write_json(workdir / "evaluation.json", values)
    return values


def _plot_spectra(workdir: Path, generation: dict[str, Any]) -> None:
    """Draws the spectra of imagined, reconstructed and real images, if matplotlib is installed."""
    if not use_package("matplotlib", None):
        return
    curves = {kind: generation[kind]["spectrum"] for kind in ("imagined", "reconstructed")}
    drawn = {kind: (values["frequencies"], values["power"]) for kind, values in curves.items()}
    real = curves["imagined"]
    drawn["real"] = (real["frequencies"], real["real_power"])
    plotting.spectra(drawn, workdir / "figures/spectrum.png")
