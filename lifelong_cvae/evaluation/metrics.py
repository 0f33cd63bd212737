"""Metrics of a state on real images: recognition, density, generation and novelty detection."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lifelong_cvae import recognition, sampling
from lifelong_cvae.data import Source
from lifelong_cvae.errors import InputError
from lifelong_cvae.evaluation import continual, generation, ood, spectrum
from lifelong_cvae.evaluation.evidence_cache import EvidenceCache
from lifelong_cvae.evaluation.generation import Images
from lifelong_cvae.evaluation.reference_classifier import ReferenceClassifier
from lifelong_cvae.evaluation.ridge_capacity import ridge_capacity
from lifelong_cvae.evaluation.vector_classifier import VectorClassifier
from lifelong_cvae.images import unify_types
from lifelong_cvae.recognition import ridge_classifier
from lifelong_cvae.ridge.features import Features
from lifelong_cvae.state import LifelongState

# Images of all categories together, and samples per image, from which `density` is computed.
BOUND_IMAGES = 1000
BOUND_SAMPLES = 100
# Suffix of the AUROC of evidence and regression scores together.
WITH_SCORES = "_with_scores"
# Features are cached of at most so many images.
MAX_CACHED_IMAGES = 20_000


class EvaluationCache(NamedTuple):
    """Values that the evaluations of a run have in common; each adds missing ones.

    Attributes:
        evidence: evidence of real images.
        features: features of real images by category. They do not change after the first task of a run.
    """

    evidence: EvidenceCache
    features: dict[str, Features]


def empty_cache() -> EvaluationCache:
    """Returns a cache for all evaluations of a state and of those that are learned from it."""
    return EvaluationCache(EvidenceCache(), {})


def evidence_by_category(
    state: LifelongState, source: Source, split: str, *, rng: jax.Array, cache: EvaluationCache | None = None
) -> dict[str, np.ndarray]:
    """Computes bounds on log p(x|c) of all images of a split: true category to `[n, categories]`, in nats."""
    evidence = (cache or empty_cache()).evidence.evidence
    return {name: evidence(state, name, source.read(split, name), rng=rng) for name in state.names}


def log_posteriors_by_category(
    state: LifelongState,
    source: Source,
    split: str,
    *,
    rng: jax.Array,
    cache: EvaluationCache | None = None,
    classifier: ridge_classifier.RidgeClassifier | None = None,
    mesh: Mesh | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Computes log p(c|x), up to a constant per image, of a split by the run's recognizer and by `elbo`.

    The images of one category are in memory at a time.

    Args:
        state: learned state.
        source: real images.
        split: `test` or `validation`.
        rng: key for bounds that need samples.
        cache: values of the evaluation after an earlier task of the same run. Features are kept of at most
            `MAX_CACHED_IMAGES` images.
        classifier: as in `recognition.make_recognizer`.
        mesh: as in `recognition.evidence`.

    Returns:
        Recognizer to true category to `[n, categories]`. Values of `elbo` are those of `evidence_by_category`.
    """
    kind, cache = state.config.recognition.recognizer, cache or empty_cache()
    recognizer = None if kind == "elbo" else recognition.make_recognizer(state, kind, classifier=classifier)
    log_posteriors: dict[str, dict[str, np.ndarray]] = {"elbo": {}, kind: {}}
    for name in state.names:
        images = source.read(split, name)
        evidence = cache.evidence.evidence(state, name, images, rng=rng, mesh=mesh)
        log_posteriors["elbo"][name] = evidence
        if recognizer is not None:
            phi = _features(recognizer.classifier, name, images, cache.features)
            scores = ridge_classifier.scores_from_features(recognizer.classifier, phi)
            found = recognition.log_likelihoods(recognizer, images, log_evidence=evidence, scores=scores)
            log_posteriors[kind][name] = np.asarray(found)
    return log_posteriors


def _features(
    classifier: ridge_classifier.RidgeClassifier, name: str, images: Any, kept: dict[str, Features]
) -> Features:
    """Returns the features of a category's images, and keeps them while there are few."""
    if name in kept:
        return kept[name]
    phi = ridge_classifier.extract_features(classifier, images)
    if phi.count + sum(part.count for part in kept.values()) <= MAX_CACHED_IMAGES:
        kept[name] = phi
    return phi


def recognition_metrics(log_posteriors: Mapping[str, Mapping[str, np.ndarray]], state: LifelongState) -> dict[str, Any]:
    """Computes `continual.recognition_accuracies` from the result of `log_posteriors_by_category`.

    Keys without a suffix are metrics of the run's recognizer, those with `continual.ELBO_SUFFIX` metrics of `elbo`.
    """
    by_elbo = continual.recognition_accuracies(log_posteriors["elbo"], state.names)
    return {
        **continual.recognition_accuracies(log_posteriors[state.config.recognition.recognizer], state.names),
        **continual.with_suffix(by_elbo, continual.ELBO_SUFFIX),
    }


def density(state: LifelongState, source: Source, split: str, *, rng: jax.Array) -> dict[str, float]:
    """Computes `elbo` and `importance_bound` of images under their own category, in nats per image.

    Densities are over pixels in [0, 1]. The bounds are means over the first `BOUND_IMAGES` / categories images of each
    category, with `BOUND_SAMPLES` samples per image.
    """
    count = max(1, BOUND_IMAGES // len(state.names))
    bounds: dict[str, list[np.ndarray]] = {"sampled": [], "importance": []}
    for bound, values in bounds.items():
        settings = {"bound": bound, "samples": BOUND_SAMPLES, "eval_batch_size": min(count, 128)}
        with_bound = state.replace(config=state.config.with_settings(settings))
        for name in state.names:
            only_category = with_bound.replace(names=(name,), visits=(0,))
            images = source.read(split, name, slice(count))
            values.append(np.asarray(recognition.evidence(only_category, images, rng=rng)))
    means = {bound: float(np.concatenate(values).mean()) for bound, values in bounds.items()}
    return {"elbo": means["sampled"], "importance_bound": means["importance"]}


def real_images(names: Sequence[str], source: Source, split: str) -> dict[str, np.ndarray]:
    """Reads the images of a split by category, `[n, h, w, c]`."""
    return unify_types({name: source.read(split, name) for name in names})


def sample_images(
    state: LifelongState, source: Source, samples: int, *, cycles: int = 0, rng: jax.Array
) -> dict[str, np.ndarray]:
    """Imagines images by category, on the host: as many as `floor_images` returns real ones."""
    counts = _image_counts(state.names, source, samples)
    imagined = sampling.imagine(state, state.names, max(counts.values()), rng=rng, cycles=cycles)
    return {name: np.asarray(images)[: counts[name]] for name, images in imagined.items()}


def floor_images(names: Sequence[str], source: Source, samples: int) -> dict[str, np.ndarray]:
    """Reads the first training images by category, to compute the best values of the metrics."""
    counts = _image_counts(names, source, samples)
    return unify_types({name: source.read("train", name, slice(counts[name])) for name in names})


def evaluate_generation(
    state: LifelongState,
    source: Source,
    split: str,
    classifier: ReferenceClassifier | VectorClassifier,
    *,
    learned_from: Source,
    samples: int,
    tasks: Sequence[Sequence[str]],
    cycles: int = 0,
    rng: jax.Array,
) -> dict[str, Any]:
    """Computes all metrics of generation.

    Args:
        state: learned state.
        source: real images. Imagined images are compared with its `split`.
        split: `test` or `validation`.
        classifier: reference classifier of the same source, or the logistic regression of vectors.
        learned_from: source of the images that the state was trained on, among which copies are searched.
        samples: imagined images of all categories together.
        tasks: categories of each task.
        cycles: turns of the circle before an image is evaluated.
        rng: key of the samples.

    Returns:
        `samples`, imagined images by category; `cycles`; `generation_metrics` of `imagined` images and of the `floor`,
        as many training images; of images also `ridge_capacity` and `spectrum` (`spectrum_metrics`) of both, and
        `reconstructed` (`spectrum.reconstruction_metrics`); `per_task` (`generation.per_task_metrics`); `nearest`
        (`generation.nearest_neighbor_metrics`). If the state has a regression, `ridge_agreement`: the fraction of
        images that it assigns to their category, of imagined images and, in `floor`, of all images of the split.
    """
    imagined = sample_images(state, source, samples, cycles=cycles, rng=rng)
    real = real_images(state.names, source, split)
    held_out = {name: real[name][: len(images)] for name, images in imagined.items()}
    reconstructed = {name: sampling.reconstruct(state, name, images) for name, images in held_out.items()}
    train = real_images(state.names, learned_from, "train")
    kinds = {"imagined": imagined, "floor": floor_images(state.names, source, samples)}
    values = {kind: generation.generation_metrics(images, real, classifier, rng=rng) for kind, images in kinds.items()}
    if not state.networks.is_vector:
        values = {kind: {**values[kind], **_fine_structure(images, real)} for kind, images in kinds.items()}
        values["reconstructed"] = spectrum.reconstruction_metrics(*map(_concatenate, (reconstructed, held_out)))
    if state.config.recognition.recognizer != "elbo":
        recognizer = recognition.make_recognizer(state, "closed_form")
        for kind, images in (("imagined", imagined), ("floor", real)):
            values[kind]["ridge_agreement"] = _agreement(recognizer, images)
    compared = [_comparable(state, images) for images in (imagined, train, held_out, reconstructed)]
    return {
        "samples": {name: len(images) for name, images in imagined.items()},
        "cycles": cycles,
        **values,
        "per_task": generation.per_task_metrics(imagined, real, tasks, classifier, seed=0),
        "nearest": generation.nearest_neighbor_metrics(*compared),
    }


def _agreement(recognizer: recognition.Recognizer, images: Images) -> float:
    """Returns the fraction of images that are recognized as their category, as a mean over categories."""
    fractions = [np.mean(recognition.recognize(recognizer, values)[0] == name) for name, values in images.items()]
    return float(np.mean(fractions))


def _fine_structure(images: Images, real: Images) -> dict[str, Any]:
    return {
        "ridge_capacity": ridge_capacity(images, real),
        "spectrum": spectrum.spectrum_metrics(_concatenate(images), _concatenate(real)),
    }


def _comparable(state: LifelongState, images: Images) -> Images:
    """Returns images as they are, and vectors standardized, so that distances count each dimension alike."""
    return {n: state.rows(x) for n, x in images.items()} if state.networks.is_vector else images


def ood_metrics(
    state: LifelongState,
    source: Source,
    split: str,
    *,
    other: Images | None = None,
    evidence: Mapping[str, np.ndarray] | None = None,
    rng: jax.Array,
) -> dict[str, float]:
    """Computes the AUROC of known against unknown images (`ood`), by evidence, and by evidence and scores.

    Args:
        state: learned state.
        source: real images. Categories that the state does not know serve as unknown.
        split: `test` or `validation`.
        other: name of another data set to images of it, `[n, h, w, c]`.
        evidence: `evidence_by_category` of the same arguments; default None computes it.
        rng: key for bounds that need samples.

    Returns:
        Of max_c log p(x|c): `left_out` (`ood.leave_one_out_auroc`) if more than one category is known, `not_learned` if
        the source has unknown categories, and one value per name in `other`. Of `recognition.familiarity`, which uses
        the regression too: the last two kinds with the suffix `WITH_SCORES`, if there is a regression.
    """
    evidence = evidence_by_category(state, source, split, rng=rng) if evidence is None else evidence
    known = _concatenate(evidence)
    unknown_names = [name for name in source.categories if name not in state.names]
    unknown = dict(other or {})
    if unknown_names:
        unknown["not_learned"] = _concatenate(real_images(unknown_names, source, split))
    unknown_evidence = {
        kind: np.asarray(recognition.evidence(state, images, rng=rng)) for kind, images in unknown.items()
    }
    areas = {kind: ood.auroc(known.max(axis=1), values.max(axis=1)) for kind, values in unknown_evidence.items()}
    if unknown and state.config.recognition.recognizer != "elbo":
        recognizer = recognition.make_recognizer(state)
        known_images = _concatenate(real_images(state.names, source, split))
        familiar = _familiarity(recognizer, known_images, known)
        for kind, images in unknown.items():
            unfamiliar = _familiarity(recognizer, images, unknown_evidence[kind])
            areas[kind + WITH_SCORES] = ood.auroc(familiar, unfamiliar)
    left_out = ood.leave_one_out_auroc(evidence, state.names)
    return areas if left_out is None else {"left_out": left_out, **areas}


def _familiarity(recognizer: recognition.Recognizer, images: np.ndarray, log_evidence: np.ndarray) -> np.ndarray:
    names, _, _, scores = recognition.recognize_with_evidence(recognizer, images, log_evidence=log_evidence)
    return recognition.familiarity(recognizer, log_evidence, names, scores=scores)


def _image_counts(names: Sequence[str], source: Source, samples: int) -> dict[str, int]:
    """Divides `samples` equally among categories; no category gets more than it has training images."""
    if samples < 2 * len(names):
        raise InputError(f"samples: expected at least two for each of {len(names)} categories, got {samples}")
    return {name: min(samples // len(names), source.counts["train"][name]) for name in names}


def _concatenate(values: Mapping[str, Any]) -> np.ndarray:
    return np.concatenate(list(values.values()))
