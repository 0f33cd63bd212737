"""Estimator for scikit-learn: a classifier that learns categories one after another and stores no example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from scipy.special import log_softmax, logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from lifelong_cvae.errors import InputError
from lifelong_cvae.presets import preset as find_preset
from lifelong_cvae.recognition import open_set, recognizer, ridge_sums
from lifelong_cvae.sampling import imagine
from lifelong_cvae.state import LifelongState, init
from lifelong_cvae.training.learn import learn
from lifelong_cvae.training.task import MIN_IMAGES


class LifelongClassifier(ClassifierMixin, BaseEstimator):
    """Generative classifier of vectors or images that can be taught further categories at any time.

    `fit` learns all categories in one task and forgets those before. Each `partial_fit` is a task of its own: new
    categories are added, known ones continue, and no example is stored in between.

    Args:
        preset: name of the settings to start from (`lifelong_cvae.preset`).
        settings: further settings by name, such as `{"epochs": 10}`.
        image_shape: (height, width) or (height, width, channels) for images, `[n, h, w, c]`, `[n, h, w]` or
            flattened `[n, h * w * c]`; default None for vectors `[n, d]`.
        mean: mean by which vectors are standardized, one number or `[d]`; default that of the first task.
        scale: scale by which vectors are standardized, given together with `mean`.
        random_state: seed, generator, or None for another seed at every call of `fit`.

    Attributes:
        classes_: known categories, sorted, and those that `partial_fit` was told of.
        n_features_in_: number of values of an example.
        state_: the learner, for all other functions of the library, such as `lifelong_cvae.save`. Its categories are
            named by the text of their labels.
    """

    def __init__(
        self,
        preset: str = "vectors",
        *,
        settings: Mapping[str, Any] | None = None,
        image_shape: Sequence[int] | None = None,
        mean: Any = None,
        scale: Any = None,
        random_state: Any = None,
    ):
        self.preset = preset
        self.settings = settings
        self.image_shape = image_shape
        self.mean = mean
        self.scale = scale
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> LifelongClassifier:
        """Learns the categories of `y` in one task; nothing remains of what was learned before.

        Args:
            X: examples, `[n, d]` finite numbers.
            y: labels `[n]`, at least two examples each.

        Raises:
            ValueError: bad examples or labels.
        """
        examples, labels = self._check(X, y, reset=True)
        return self._begin(examples, labels, labels)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> LifelongClassifier:
        """Learns the categories of `y` as one more task.

        Args:
            X: as in `fit`.
            y: as in `fit`. Categories may be new or known.
            classes: labels that are expected later. They are listed in `classes_`, with probability 0 until learned.

        Raises:
            ValueError: bad examples or labels, or labels outside `classes`.
        """
        is_new = not hasattr(self, "state_")
        examples, labels = self._check(X, y, reset=is_new)
        if classes is not None and not np.isin(labels, classes).all():
            raise InputError(f"y: expected labels among classes {list(classes)}, got others")
        announced = labels if classes is None else classes
        if is_new:
            return self._begin(examples, labels, announced)
        return self._learn(self.state_, examples, labels, np.union1d(self.classes_, announced))

    def predict(self, X: Any) -> np.ndarray:
        """Names the category of each example, `[n]`."""
        likelihoods = self._log_posteriors(X)
        return self.classes_[likelihoods.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Computes p(c|x), `[n, classes]` in the order of `classes_`."""
        return np.exp(self._log_posteriors(X))

    def decision_function(self, X: Any) -> np.ndarray:
        """Computes log p(c|x) `[n, classes]` in nats; with two classes log p(c_1|x) - log p(c_0|x), `[n]`."""
        values = self._log_posteriors(X)
        return values[:, 1] - values[:, 0] if values.shape[1] == 2 else values

    def score_samples(self, X: Any) -> np.ndarray:
        """Computes the log evidence of each example in nats, log mean_c p(x|c): `[n]`."""
        evidence = np.asarray(recognizer.evidence(self._known().state, self._examples(X), rng=self._rng()), np.float64)
        return logsumexp(evidence, axis=1) - np.log(evidence.shape[1])

    def sample(self, n: int, category: Any, *, random_state: Any = None) -> np.ndarray:
        """Imagines examples of a category, `[n, d]` or `[n, h, w, c]`.

        Args:
            n: number of examples.
            category: a known label.
            random_state: seed or generator of the samples; default that of `fit`.
        """
        state = self._known().state
        rng = self._rng() if random_state is None else jax.random.key(_seed(random_state))
        name = str(category)
        return np.asarray(imagine(state, [name], n, rng=rng)[name])

    def predict_unknown(self, X: Any, part: float = 0.01) -> np.ndarray:
        """Flags examples of no known category, bool `[n]`.

        Args:
            X: as in `fit`.
            part: fraction of examples of known categories that may be flagged, in [0, 1).
        """
        known, examples = self._known(), self._examples(X)
        found = recognizer.recognize_with_evidence(known, examples, rng=self._rng())
        return open_set.unknown(known, found.log_evidence, found.names, scores=found.scores, rate=part)

    def forget(self, category: Any) -> LifelongClassifier:
        """Deletes a category (`lifelong_cvae.drop`)."""
        check_is_fitted(self)
        self.state_ = ridge_sums.drop(self.state_, str(category))
        self.classes_ = self.classes_[self.classes_ != category]
        self._prepared = {}
        return self

    def _check(self, X: Any, y: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        examples, labels = validate_data(self, X, y, reset=reset, **self._options())
        check_classification_targets(labels)
        values, counts = np.unique(labels, return_counts=True)
        if counts.min() < MIN_IMAGES:
            rare = values[counts.argmin()]
            raise InputError(f"y: expected at least {MIN_IMAGES} examples of each class, got 1 sample of {rare!r}")
        return self._reshape(examples), labels

    def _examples(self, X: Any) -> np.ndarray:
        return self._reshape(validate_data(self, X, reset=False, **self._options()))

    def _options(self) -> dict[str, Any]:
        """Returns how scikit-learn checks examples: vectors as float64, images in their own type."""
        is_image = self.image_shape is not None
        return {"dtype": None if is_image else np.float64, "ensure_2d": not is_image, "allow_nd": is_image}

    def _reshape(self, examples: np.ndarray) -> np.ndarray:
        if self.image_shape is None or examples.ndim > 2:
            return examples
        return examples.reshape(len(examples), *self.image_shape)

    def _begin(self, examples: np.ndarray, labels: np.ndarray, classes: Any) -> LifelongClassifier:
        """Learns the first task, in a new state."""
        classes, self._seed = np.unique(classes), _seed(self.random_state)
        config = find_preset(self.preset).with_settings(dict(self.settings or {}))
        shape = examples.shape[1:] if self.image_shape is None else self.image_shape
        options = {} if self.image_shape is not None else {"mean": self.mean, "scale": self.scale}
        state = init(config, shape, rng=self._rng(), capacity=len(classes), **options)
        return self._learn(state, examples, labels, classes)

    def _learn(
        self, state: LifelongState, examples: np.ndarray, labels: np.ndarray, classes: np.ndarray
    ) -> LifelongClassifier:
        task = {str(label): examples[labels == label] for label in np.unique(labels)}
        self.state_, _ = learn(state, task, rng=self._rng())
        self.classes_ = classes
        self._prepared = {}
        return self

    def _rng(self) -> jax.Array:
        return jax.random.key(self._seed)

    def _known(self) -> recognizer.Recognizer:
        """Returns the recognizer, prepared by the first call after each task."""
        check_is_fitted(self)
        if "recognizer" not in self._prepared:
            self._prepared["recognizer"] = recognizer.make_recognizer(self.state_)
        return self._prepared["recognizer"]

    def _log_posteriors(self, X: Any) -> np.ndarray:
        """Returns log p(c|x), float64 `[n, classes]` in the order of `classes_`."""
        known = self._known()
        found = np.asarray(recognizer.log_likelihoods(known, self._examples(X), rng=self._rng()))
        columns = {name: index for index, name in enumerate(self.state_.names)}
        values = np.full((len(found), len(self.classes_)), -np.inf)
        for index, label in enumerate(self.classes_):
            if str(label) in columns:
                values[:, index] = found[:, columns[str(label)]]
        return log_softmax(values, axis=1)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {**state, "_prepared": {}} if "_prepared" in state else state


def _seed(random_state: Any) -> int:
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
