"""Cache of the evidence of real images between the tasks of a run.

Once the mixed part is frozen, the evidence of an image under an old category does not change. After each task only the
new categories are computed for old images, and all categories for new ones.
"""

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lifelong_cvae import recognition
from lifelong_cvae.evaluation.generation import Images
from lifelong_cvae.state import LifelongState

# Keys of a category's subtree that its evidence does not depend on.
NOT_IN_EVIDENCE = ("ridge", "thresholds", "images")


class CachedEvidence(NamedTuple):
    """Evidence under one category.

    Attributes:
        leaves: parameters that it was computed with. It holds as long as these are the same arrays.
        columns: true category to the evidence of its images, `[n]`, in nats per image.
    """

    leaves: list[Any]
    columns: dict[str, np.ndarray]


EvidenceCache = MutableMapping[str, CachedEvidence]


def evidence_by_category(
    state: LifelongState, images: Images, cache: EvidenceCache, *, rng: jax.Array, mesh: Mesh | None = None
) -> dict[str, np.ndarray]:
    """Computes `recognition.evidence` by true category: `[n, categories]` each, in nats per image.

    The images of a category are computed by themselves, so that a value does not depend on what is cached.

    Args:
        state: state of the learner.
        images: images by true category.
        cache: evidence by category of an earlier call with the same images; missing evidence is added.
        rng: as in `recognition.evidence`.
        mesh: as in `recognition.evidence`.
    """
    for name in state.names:
        leaves = _leaves(state, name)
        if name not in cache or not _same_arrays(cache[name].leaves, leaves):
            cache[name] = CachedEvidence(leaves, {})
    for names, true_names in _missing(state.names, images, cache):
        part = state.replace(names=names, visits=tuple(state.visit(name) for name in names))
        recognizer = recognition.make_recognizer(part, "elbo")
        for true_name in true_names:
            values = np.asarray(recognition.evidence(recognizer, images[true_name], rng=rng, mesh=mesh))
            for name, column in zip(names, values.T, strict=True):
                cache[name].columns[true_name] = column
    return {
        true_name: np.stack([cache[name].columns[true_name] for name in state.names], axis=1) for true_name in images
    }


def _missing(
    names: Sequence[str], images: Images, cache: EvidenceCache
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Yields categories, and the true categories of images whose evidence under all of them is missing."""
    by_names: dict[tuple[str, ...], list[str]] = {}
    for true_name in images:
        missing = tuple(name for name in names if true_name not in cache[name].columns)
        by_names.setdefault(missing, []).append(true_name)
    for missing, true_names in by_names.items():
        if missing:
            yield missing, tuple(true_names)


def _leaves(state: LifelongState, name: str) -> list[Any]:
    subtree = state.params["categories"][name]
    read = {key: part for key, part in subtree.items() if key not in NOT_IN_EVIDENCE}
    return jax.tree.leaves((state.params["mixed"], read))


def _same_arrays(first: Sequence[Any], second: Sequence[Any]) -> bool:
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))
