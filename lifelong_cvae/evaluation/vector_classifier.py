"""Logistic regression that evaluates imagined vectors, in the place of the reference classifier of images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from lifelong_cvae.data import Source
from lifelong_cvae.images import every_nth

# Inverse penalties per vector, among which every tenth training vector selects.
STRENGTHS = tuple(10.0 ** (exponent / 2) for exponent in range(-1, 6))
HELD_OUT_EVERY = 10
MAX_ITERATIONS = 500
# Principal directions of the standardized training vectors that serve as features.
FEATURES = 256


@dataclass(frozen=True)
class VectorClassifier:
    """A trained logistic regression on standardized vectors, with the interface of `ReferenceClassifier`.

    Attributes:
        model: fitted pipeline of scikit-learn.
        strength: selected inverse penalty per vector.
        directions: principal directions of the standardized training vectors, `[d, features]`.
    """

    model: Any
    strength: float
    directions: np.ndarray

    def features(self, vectors: Any) -> np.ndarray:
        """Projects standardized vectors `[n, d]` on the principal directions, float32 `[n, features]`."""
        return np.asarray(self.model[0].transform(_floats(vectors)) @ self.directions, np.float32)

    def features_and_predictions(self, vectors: Any) -> tuple[np.ndarray, np.ndarray]:
        """Computes features and predicted categories of vectors."""
        return self.features(vectors), self.model.predict(_floats(vectors))

    def fitting_capacity(self, vectors: Mapping[str, Any], real: Mapping[str, Any], *, rng: jax.Array) -> float:
        """Computes the accuracy on real vectors of the same regression trained on others, as a fraction.

        Args:
            vectors: vectors by category to train on, `[n, d]`.
            real: vectors by category to test on, `[m, d]`. The accuracy is over all of them together.
            rng: not used; the regression needs no random numbers.
        """
        del rng
        return float(logistic_regression(self.strength, *flatten(vectors)).score(*flatten(real)))


def train_classifier(source: Source) -> VectorClassifier:
    """Trains a logistic regression on all training vectors of a source."""
    x, names = flatten({name: source.read("train", name) for name in source.categories})
    strength = select_strength(logistic_regression, x, names)
    model = logistic_regression(strength, x, names)
    directions = np.linalg.eigh(np.cov(model[0].transform(x), rowvar=False).reshape(x.shape[1], -1))[1]
    return VectorClassifier(model, strength, directions[:, ::-1][:, :FEATURES])


def logistic_regression(strength: float, x: np.ndarray, names: np.ndarray) -> Any:
    """Fits a logistic regression to standardized vectors.

    Args:
        strength: inverse of the penalty relative to the mean loss per vector.
        x: vectors `[n, d]`.
        names: their categories `[n]`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(C=strength / len(x), max_iter=MAX_ITERATIONS)
    return make_pipeline(StandardScaler(), regression).fit(x, names)


def select_strength(fit: Callable[[float, np.ndarray, np.ndarray], Any], x: np.ndarray, names: np.ndarray) -> float:
    """Selects from `STRENGTHS` by accuracy on every `HELD_OUT_EVERY`-th vector.

    Args:
        fit: from a strength, vectors and categories to a fitted classifier.
        x: vectors `[n, d]`.
        names: their categories `[n]`.
    """
    held_out = every_nth(len(x), HELD_OUT_EVERY)
    fit_to = x[~held_out], names[~held_out]
    scores = [fit(strength, *fit_to).score(x[held_out], names[held_out]) for strength in STRENGTHS]
    return STRENGTHS[int(np.argmax(scores))]


def flatten(vectors: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns all vectors, float32 `[n, d]`, and the category of each."""
    parts = [_floats(values) for values in vectors.values()]
    return np.concatenate(parts), np.repeat(np.asarray(list(vectors)), [len(part) for part in parts])


def _floats(vectors: Any) -> np.ndarray:
    return np.asarray(vectors, np.float32)
