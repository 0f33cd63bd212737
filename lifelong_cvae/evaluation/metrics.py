"""What a state is worth: recognition, density, generation and novelty figures on real images it never saw."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lifelong_cvae import recognition, sampling
from lifelong_cvae.data import Source
from lifelong_cvae.errors import InputError
from lifelong_cvae.evaluation import continual, generation, ood, prd
from lifelong_cvae.evaluation.reference_classifier import ReferenceClassifier, fitting_capacity
from lifelong_cvae.recognition import ridge_classifier
from lifelong_cvae.state import LifelongState

BOUND_IMAGES = 1000
BOUND_SAMPLES = 100
MAX_CACHED_IMAGES = 20_000

Images = Mapping[str, Any]


def evidence_by_category(state: LifelongState, source: Source, split: str, *, rng: jax.Array) -> dict[str, np.ndarray]:
    """Evidence of all images of a split: true category to `[n, categories]` in nats."""
    images = real_images(state.names, source, split)
    return _split_by_category(images, recognition.evidence(state, _concat_images(images), rng=rng))


def log_posteriors_by_category(
    state: LifelongState,
    source: Source,
    split: str,
    *,
    rng: jax.Array,
    feature_cache: MutableMapping[str, jax.Array] | None = None,
    mesh: Mesh | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Log p(x|c) of all images of a split, as the state's recognizer and as `elbo` says it.

    Args:
        state: what has been learned.
        source: real images.
        split: `test` or `validation`.
        rng: for the bounds that draw samples.
        feature_cache: keeps features of images from one task of a run to the next, where there are at most
            `EMBEDDED_IMAGES`; the dictionary of a state that has learned does not change.
        mesh: as for `recognition.evidence`.

    Returns:
        `elbo` (see `evidence_by_category`), and where the state has another recognizer its name to the same.
    """
    images = real_images(state.names, source, split)
    pool = _concat_images(images)
    kind = state.config.recognition.recognizer
    recognizer = recognition.make_recognizer(state, kind)
    answers = {"elbo": recognition.evidence(recognizer, pool, rng=rng, mesh=mesh)}
    if kind != "elbo":
        scores = None
        if len(pool) <= MAX_CACHED_IMAGES:
            scores = _scores(recognizer.classifier, images, {} if feature_cache is None else feature_cache)
        answers[kind] = recognition.log_likelihoods(recognizer, pool, log_evidence=answers["elbo"], scores=scores)
    return {key: _split_by_category(images, values) for key, values in answers.items()}


def _scores(
    classifier: ridge_classifier.RidgeClassifier, images: Images, feature_cache: MutableMapping[str, jax.Array]
) -> np.ndarray:
    """Scores of all images together; features that are not in `embedded` are put there."""
    for name in images.keys() - feature_cache.keys():
        feature_cache[name] = ridge_classifier.extract_features(classifier, images[name])
    return np.concatenate([ridge_classifier.scores_from_features(classifier, feature_cache[name]) for name in images])


def _concat_images(images: Images) -> np.ndarray:
    return np.concatenate(list(images.values()))


def _split_by_category(images: Images, values: Any) -> dict[str, np.ndarray]:
    """What is said of all images together, `[n, ...]`, taken apart: category to that of its images."""
    ends = np.cumsum([len(x) for x in images.values()])[:-1]
    return dict(zip(images, np.split(np.asarray(values), ends), strict=True))


def recognition_metrics(answers: Mapping[str, Mapping[str, np.ndarray]], state: LifelongState) -> dict[str, Any]:
    """`continual.accuracies` of the state's recognizer, and with `_elbo` behind each key those of `elbo`."""
    by_elbo = continual.recognition_accuracies(answers["elbo"], state.names)
    return {
        **continual.recognition_accuracies(answers[state.config.recognition.recognizer], state.names),
        **{f"{key}_elbo": value for key, value in by_elbo.items()},
    }


def real_images(names: Sequence[str], source: Source, split: str) -> dict[str, np.ndarray]:
    """Category to its images of a split, `[n, h, w, c]`."""
    return {name: source.read(split, name) for name in names}


def sample_images(
    state: LifelongState, source: Source, samples: int, *, cycles: int = 0, rng: jax.Array
) -> dict[str, np.ndarray]:
    """Category to imagined images, on the host: as many as `floor_images` has real ones."""
    counts = _shares(state.names, source, samples)
    imagined = sampling.imagine(state, state.names, max(counts.values()), rng=rng, cycles=cycles)
    return {name: np.asarray(images)[: counts[name]] for name, images in imagined.items()}


def floor_images(names: Sequence[str], source: Source, samples: int) -> dict[str, np.ndarray]:
    """Category to training images, the first ones: what imagined images would be at best."""
    counts = _shares(names, source, samples)
    return {name: source.read("train", name)[: counts[name]] for name in names}


def _shares(names: Sequence[str], source: Source, samples: int) -> dict[str, int]:
    """Images of each category where there are `samples` in all: no more than there are training images."""
    if samples < 2 * len(names):
        raise InputError(f"samples={samples}: at least two of each of {len(names)} categories are expected")
    return {name: min(samples // len(names), source.counts["train"][name]) for name in names}


def density(state: LifelongState, source: Source, split: str, *, rng: jax.Array) -> dict[str, float]:
    """The ELBO and the importance-weighted bound of an image's own category, in nats per image.

    Densities are on pixels in [0, 1]. The first `BOUND_IMAGES` / categories images of each category
    are used, `BOUND_SAMPLES` samples for the importance-weighted bound.
    """
    share = max(1, BOUND_IMAGES // len(state.names))
    bounds: dict[str, list[np.ndarray]] = {"sampled": [], "importance": []}
    for bound, values in bounds.items():
        settings = {"bound": bound, "samples": BOUND_SAMPLES, "eval_batch_size": min(share, 128)}
        judged = state.replace(config=state.config.with_settings(settings))
        for name in state.names:
            own = judged.replace(names=(name,), visits=(0,))
            values.append(np.asarray(recognition.evidence(own, source.read(split, name)[:share], rng=rng)))
    means = {bound: float(np.concatenate(values).mean()) for bound, values in bounds.items()}
    return {"elbo": means["sampled"], "importance_bound": means["importance"]}


def similarity_metrics(images: Images, real: Images, classifier: ReferenceClassifier) -> dict[str, Any]:
    """How images are like real ones, to the classifier.

    Args:
        images: category to imagined images, or real ones for a floor, `[n, h, w, c]`.
        real: the same categories, `[m, h, w, c]`.
        classifier: whose features and answers count.

    Returns:
        `frechet_distance`, `precision`, `recall`, `density`, `coverage` of all images together,
        `agreement` (the part in which the classifier sees what was meant, a mean over categories), and
        `per_category`, the same for each.
    """
    judged = {name: classifier.features_and_predictions(values) for name, values in images.items()}
    features = {name: values for name, (values, _) in judged.items()}
    agreement = {name: float((answers == name).mean()) for name, (_, answers) in judged.items()}
    target = {name: classifier.features(values) for name, values in real.items()}
    together = [np.concatenate(list(part.values())) for part in (features, target)]
    return {
        **generation.feature_metrics(*together),
        "agreement": float(np.mean(list(agreement.values()))),
        "per_category": {
            name: {**generation.feature_metrics(features[name], target[name]), "agreement": agreement[name]}
            for name in images
        },
    }


def generation_metrics(
    images: Images, real: Images, classifier: ReferenceClassifier, *, rng: jax.Array
) -> dict[str, Any]:
    """`likeness`, and `fitting_capacity`: what images are to the classifier, and to a new classifier."""
    return {**similarity_metrics(images, real, classifier), "fitting_capacity": fitting_capacity(images, real, rng=rng)}


def per_task_metrics(
    imagined: Images, real: Images, tasks: Sequence[Sequence[str]], classifier: ReferenceClassifier, *, seed: int
) -> dict[str, float]:
    """Fréchet distance, precision and recall for each task's images alone, averaged over tasks.

    The protocol of Multiband VAE (Deja et al. 2021, arXiv 2106.12196), with its precision and recall, those
    of `clusters`; real images are then a held-out part of the training set.
    """
    rows = []
    for names in tasks:
        first, second = (classifier.features(np.concatenate([images[n] for n in names])) for images in (imagined, real))
        figures = prd.precision_and_recall(first, second, seed=seed)
        rows.append({"frechet_distance": generation.frechet_distance(first, second), **figures})
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def evaluate_generation(
    state: LifelongState,
    source: Source,
    split: str,
    classifier: ReferenceClassifier,
    *,
    learned_from: Source,
    samples: int,
    tasks: Sequence[Sequence[str]],
    cycles: int = 0,
    rng: jax.Array,
) -> dict[str, Any]:
    """All figures of generation.

    Args:
        state: what has been learned.
        source: real images; what imagined ones should be like is its `split`.
        split: `test` or `validation`.
        classifier: of the same source.
        learned_from: the source, or some of its training images: copies would be of these.
        samples: imagined images of all categories together.
        tasks: categories of each task.
        cycles: turns of the circle before an image is judged.
        rng: source of the samples.

    Returns:
        `imagined` and `floor` (as many training images in their place), each as `judged`
        says; `per_task`; `nearest` (`generation.copying`); `samples`, imagined images of
        each category.
    """
    imagined = sample_images(state, source, samples, cycles=cycles, rng=rng)
    real = real_images(state.names, source, split)
    held_out = {name: real[name][: len(images)] for name, images in imagined.items()}
    reconstructed = {name: sampling.reconstruct(state, name, images) for name, images in held_out.items()}
    train = real_images(state.names, learned_from, "train")
    kinds = {"imagined": imagined, "floor": floor_images(state.names, source, samples)}
    return {
        "samples": {name: len(images) for name, images in imagined.items()},
        "cycles": cycles,
        **{kind: generation_metrics(images, real, classifier, rng=rng) for kind, images in kinds.items()},
        "per_task": per_task_metrics(imagined, real, tasks, classifier, seed=0),
        "nearest": generation.nearest_neighbor_metrics(imagined, train, held_out, reconstructed),
    }


def ood_metrics(
    state: LifelongState,
    source: Source,
    split: str,
    *,
    other: Images | None = None,
    evidence: Mapping[str, np.ndarray] | None = None,
    rng: jax.Array,
) -> dict[str, float]:
    """AUROC of max_c log p(x|c), known against unknown images; see `novelty`.

    Args:
        state: what has been learned.
        source: real images; categories that the state does not know serve as unknown ones.
        split: `test` or `validation`.
        other: name of another data set to images of it, `[n, h, w, c]`.
        evidence: what `evidence_by_category` gives, where it is there already.
        rng: for the bounds that draw samples.

    Returns:
        `left_out` where more than one category is known, `not_learned` where some are not,
        and a figure for each of `other`.
    """
    evidence = evidence_by_category(state, source, split, rng=rng) if evidence is None else evidence
    known = np.concatenate(list(evidence.values())).max(axis=1)
    missing = [name for name in source.categories if name not in state.names]
    unknown = dict(other or {})
    if missing:
        unknown["not_learned"] = np.concatenate(list(real_images(missing, source, split).values()))
    figures = {
        kind: ood.auroc(known, np.asarray(recognition.evidence(state, images, rng=rng)).max(axis=1))
        for kind, images in unknown.items()
    }
    without = ood.leave_one_out_auroc(evidence, state.names)
    return figures if without is None else {"left_out": without, **figures}
