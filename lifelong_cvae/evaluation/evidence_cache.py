"""Evidence of real images, kept between the tasks of a run.

Once the mixed part is frozen, the evidence of an image under an old category does not change. After each task only the
new categories are computed for old images, and all categories for new ones.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lifelong_cvae import recognition
from lifelong_cvae.recognition import Recognizer
from lifelong_cvae.state import LifelongState

# Keys of a category's subtree that its evidence does not depend on.
NOT_IN_EVIDENCE = ("ridge", "thresholds", "images")


class _Kept(NamedTuple):
    """Evidence under one category: of the images of each true category, `[n]`.

    It holds as long as the parameters that it was computed with are the same arrays.
    """

    leaves: list[Any]
    columns: dict[str, np.ndarray]


class EvidenceCache:
    """Evidence of real images under the categories of a state, and of states that are learned from it."""

    def __init__(self) -> None:
        self._state: LifelongState | None = None
        self._kept: dict[str, _Kept] = {}
        self._recognizers: dict[tuple[str, ...], Recognizer] = {}

    def evidence(
        self, state: LifelongState, true_name: str, images: Any, *, rng: jax.Array, mesh: Mesh | None = None
    ) -> np.ndarray:
        """Computes `recognition.evidence` of the images of a category, `[n, categories]`, in nats per image.

        What an earlier call has computed for `true_name` is returned again. Each category's images are computed by
        themselves, so a value does not depend on what is kept.

        Args:
            state: state of the learner.
            true_name: category of the images.
            images: the same images in every call with this name.
            rng: as in `recognition.evidence`.
            mesh: as in `recognition.evidence`.
        """
        self._drop_changed(state)
        names = tuple(name for name in state.names if true_name not in self._kept[name].columns)
        if names:
            if names not in self._recognizers:
                part = state.replace(names=names, visits=tuple(map(state.visit, names)))
                self._recognizers[names] = recognition.make_recognizer(part, "elbo")
            values = np.asarray(recognition.evidence(self._recognizers[names], images, rng=rng, mesh=mesh))
            for name, column in zip(names, values.T, strict=True):
                self._kept[name].columns[true_name] = column
        return np.stack([self._kept[name].columns[true_name] for name in state.names], axis=1)

    def _drop_changed(self, state: LifelongState) -> None:
        if state is self._state:
            return
        self._state, self._recognizers, kept = state, {}, self._kept
        self._kept = {name: _Kept(_leaves(state, name), {}) for name in state.names}
        for name in kept.keys() & self._kept.keys():
            if _same_arrays(kept[name].leaves, self._kept[name].leaves):
                self._kept[name] = kept[name]


def _leaves(state: LifelongState, name: str) -> list[Any]:
    subtree = state.params["categories"][name]
    read = {key: part for key, part in subtree.items() if key not in NOT_IN_EVIDENCE}
    return jax.tree.leaves((state.params["mixed"], read))


def _same_arrays(first: Sequence[Any], second: Sequence[Any]) -> bool:
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))
