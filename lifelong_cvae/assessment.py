"""What a finished run is worth: all figures of recognition, density, generation and novelty in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from lifelong_cvae import records
from lifelong_cvae.data import Source, hold_out, open_source
from lifelong_cvae.errors import InputError
from lifelong_cvae.evaluation import measures
from lifelong_cvae.evaluation.judge import cached
from lifelong_cvae.evaluation.scikit import require_scikit_learn
from lifelong_cvae.plan import read_plan
from lifelong_cvae.run import load_state


def evaluate(
    workdir: Path, judges: Path, *, samples: int, cycles: int, seed: int, unknown: str | None = None
) -> dict[str, Any]:
    """Evaluates the newest state of a run, and writes `evaluation.json` into its folder.

    Args:
        workdir: of the run.
        judges: folder that keeps trained judges.
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
    require_scikit_learn()
    plan, state, rng = read_plan(workdir), load_state(workdir), jax.random.key(seed)
    source = hold_out(open_source(plan.dataset, plan.options), plan.validation_fraction)
    other = {}
    if unknown is not None:
        opened = open_source(unknown, plan.options.taken_by(unknown))
        other["other"] = _all_images(opened, state.image_shape)
    judge, split = cached(source, judges), plan.evaluate_on
    answers = measures.answers_by_category(state, source, split, rng=rng)
    known = [tuple(name for name in names if name in state.names) for names in plan.tasks]
    values = {
        "recognition": {
            "recogniser": state.config.recognition.recogniser,
            **measures.recognition_figures(answers, state),
        },
        "density": measures.density(state, source, split, rng=rng),
        "generation": measures.generated(
            state,
            source,
            split,
            judge,
            learned_from=plan.narrowed(source),
            samples=samples,
            tasks=[names for names in known if names],
            cycles=cycles,
            rng=rng,
        ),
        "novelty": measures.novelty_figures(state, source, split, other=other, evidence=answers["elbo"], rng=rng),
        "evaluate_on": split,
        "versions": records.versions(),
        "device": records.device(),
    }
    records.write_json(workdir / "evaluation.json", values)
    return values


def _all_images(source: Source, image_shape: tuple[int, int, int]) -> np.ndarray:
    if source.image_shape != image_shape:
        raise InputError(
            f"{source.name}: images of {image_shape} are expected, as the run has learned, got {source.image_shape}"
        )
    return np.concatenate([source.read("test", name) for name in source.categories])
