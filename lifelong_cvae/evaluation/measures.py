"""What a state is worth: recognition, density and generation figures on real images it never saw."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from lifelong_cvae import playback, recognition
from lifelong_cvae.data import Source
from lifelong_cvae.evaluation import continual, generation
from lifelong_cvae.evaluation.judge import Judge
from lifelong_cvae.growth import LifelongState

BOUND_IMAGES = 1000
BOUND_SAMPLES = 100


def evidence_by_category(
    state: LifelongState, source: Source, split: str, *, rng: jax.Array
) -> dict[str, np.ndarray]:
    """Evidence of all images of a split: true category to `[n, categories]` in nats."""
    images = {name: source.read(split, name) for name in state.names}
    values = np.asarray(recognition.evidence(state, np.concatenate(list(images.values())), rng=rng))
    ends = np.cumsum([len(x) for x in images.values()])[:-1]
    return dict(zip(images, np.split(values, ends), strict=True))


def recognised(state: LifelongState, source: Source, split: str, *, rng: jax.Array) -> dict[str, Any]:
    """Accuracy over all images of a split, and per category."""
    return continual.accuracies(evidence_by_category(state, source, split, rng=rng), state.names)


def density(state: LifelongState, source: Source, split: str, *, rng: jax.Array) -> dict[str, float]:
    """The ELBO and the importance-weighted bound of an image's own category, in nats per image.

    Densities are on pixels in [0, 1]. The first `BOUND_IMAGES` / categories images of each category
    are used, `BOUND_SAMPLES` samples for the importance-weighted bound.
    """
    share = max(1, BOUND_IMAGES // len(state.names))
    bounds: dict[str, list[np.ndarray]] = {"sampled": [], "importance": []}
    for bound, values in bounds.items():
        settings = {"bound": bound, "samples": BOUND_SAMPLES, "block_images": min(share, 128)}
        judged = state.replace(config=state.config.with_settings(settings))
        for name in state.names:
            own = judged.replace(names=(name,), visits=(0,))
            values.append(np.asarray(recognition.evidence(own, source.read(split, name)[:share], rng=rng)))
    means = {bound: float(np.concatenate(values).mean()) for bound, values in bounds.items()}
    return {"elbo": means["sampled"], "importance_bound": means["importance"]}


def generated(
    state: LifelongState,
    source: Source,
    split: str,
    judge: Judge,
    *,
    samples: int,
    cycles: int = 0,
    rng: jax.Array,
) -> dict[str, Any]:
    """Fréchet distance, the judge's agreement, and distances that would show copies.

    Args:
        state: what has been learned.
        source: real images; `train` is what images are copied from, `split` what they should be like.
        split: `test` or `validation`.
        judge: of the same source.
        samples: imagined images of each category.
        cycles: turns of the circle before an image is judged.
        rng: source of the samples.

    Returns:
        `frechet_distance` against all images of the split, `frechet_floor` (training images instead of
        imagined ones, as many), `agreement`, `agreement_per_category`, `nearest` (`generation.copying`).
    """
    imagined = playback.imagine(state, state.names, samples, rng=rng, cycles=cycles)
    imagined = {name: np.asarray(images) for name, images in imagined.items()}
    train = {name: source.read("train", name) for name in state.names}
    real = {name: source.read(split, name) for name in state.names}
    target = judge.features(np.concatenate(list(real.values())))

    def distance(images: dict[str, Any]) -> float:
        return generation.frechet_distance(judge.features(np.concatenate(list(images.values()))), target)

    held_out = {name: images[:samples] for name, images in real.items()}
    reconstructed = {
        name: np.asarray(playback.reconstruct(state, name, images)) for name, images in held_out.items()
    }
    agreement = judge.agreement(imagined)
    return {
        "samples_per_category": samples,
        "cycles": cycles,
        "frechet_distance": distance(imagined),
        "frechet_floor": distance({name: images[:samples] for name, images in train.items()}),
        "agreement": float(np.mean(list(agreement.values()))),
        "agreement_per_category": agreement,
        "nearest": generation.copying(imagined, train, held_out, reconstructed),
    }
