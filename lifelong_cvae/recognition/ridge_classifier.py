"""Closed-form recognizer: the ridge regression of a state, solved from its sums (`ridge_sums`)."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.images import Shape, concat_unpadded, pad_rows, power_of_two
from lifelong_cvae.model.types import own_types
from lifelong_cvae.model.vectors import is_vector, to_rows
from lifelong_cvae.recognition import ridge_sums
from lifelong_cvae.ridge import features, leave_one_out, regression
from lifelong_cvae.ridge.features import Features
from lifelong_cvae.state import LifelongState

# From so many categories on, and so many per image, scores are computed without the weights.
MANY_CATEGORIES, CATEGORIES_PER_IMAGE = 100, 4
# Smallest number of images for which such a program is compiled.
MIN_IMAGES = 8


class RidgeClassifier(flax.struct.PyTreeNode):
    """A solved regression from images to one score per category.

    Targets are 1 for the true category and 0 for the others.

    Attributes:
        weights: float32 `[features, ridge_sums.num_columns]`, categories in the order of `state.names`.
        intercept: float32 `[ridge_sums.num_columns]`.
        categories: number of categories.
        own_mean: mean score of a category's own images for it, averaged over the categories.
        dictionary: from `ridge_sums.dictionary`.
        expand: random matrix, from `features.expansion_matrix`.
        image_shape: shape of an image.
        settings: settings of the features.
        max_value: as in `LifelongState`.
    """

    weights: jax.Array
    intercept: jax.Array
    own_mean: jax.Array
    dictionary: Any
    expand: jax.Array
    categories: int = flax.struct.field(pytree_node=False)
    image_shape: Shape = flax.struct.field(pytree_node=False)
    settings: ClosedFormConfig = flax.struct.field(pytree_node=False)
    max_value: float | None = flax.struct.field(pytree_node=False, default=None)


@own_types()
def solve(state: LifelongState) -> RidgeClassifier:
    """Solves the regression of a state.

    Takes about a second; the result serves for many images. It does not depend on the order of the categories.

    Raises:
        InputError: there is no category, or the state has no sums.
    """
    return _solve(state)[0]


def _solve(state: LifelongState) -> tuple[RidgeClassifier, regression.Factored]:
    """Returns the result of `solve`, and the factor that it was solved with."""
    ridge_sums.check_sums(state)
    names, settings = sorted(state.names), state.config.closed_form
    vectors = ridge_sums.sums_by_category(state, names, "all")
    gram, ridge = ridge_sums.common_gram(state, "all"), state.params["ridge"]["ridge"]
    # The order of the names, in which nothing depends on that of learning, is that of the solution.
    order = [*map(names.index, state.names), *range(len(names), vectors.shape[1])]
    rounding = ridge_sums.rounding(state)
    solution, factored = regression.solve(gram, vectors, ridge, order=np.asarray(order), rounding=rounding)
    classifier = RidgeClassifier(
        **solution._asdict(),
        dictionary=ridge_sums.dictionary(state),
        expand=features.expansion_matrix(settings, state.image_shape),
        categories=len(names),
        image_shape=state.image_shape,
        settings=settings,
        max_value=state.max_value,
    )
    return classifier, factored


@own_types()
def scores(classifier: RidgeClassifier, images: Any) -> jax.Array:
    """Computes the regression scores of images, `[n, categories]`.

    Args:
        classifier: from `solve`.
        images: uint8 or float in [0, 1], `[n, h, w, c]`, or `[n, h, w]` for one channel.

    Raises:
        InputError: images of a wrong type, shape or range.
    """
    rows = _rows(classifier, images)
    return _scores(classifier, _feature_batches(classifier, rows), len(rows))


@own_types()
def extract_features(classifier: RidgeClassifier, images: Any) -> Features:
    """Computes the features of images. Arguments as in `scores`."""
    rows = _rows(classifier, images)
    return Features(tuple(_feature_batches(classifier, rows)), len(rows))


@own_types()
def scores_from_features(classifier: RidgeClassifier, phi: Features) -> jax.Array:
    """Computes the regression scores `[n, categories]` of images with the features phi."""
    return _scores(classifier, phi.batches, phi.count)


@own_types()
def leave_one_out_scores(
    state: LifelongState, phi: Mapping[str, Features], totals: Mapping[str, int]
) -> tuple[dict[str, np.ndarray], RidgeClassifier] | None:
    """Computes scores of images that the regression has learned, each by a regression without this image.

    Args:
        state: state whose sums contain the images.
        phi: features of the images by category.
        totals: number of images of the visit that they are from, by category.

    Returns:
        The scores `[n, categories]` by category, and the regression on all images. None where the scores would have
        too few digits (`leave_one_out.MAX_LEVERAGE`), and where there are many categories (`held_out_scores`).

    Raises:
        InputError: as in `solve`.
    """
    if _has_many_categories(state, phi):
        return None
    classifier, factored = _solve(state)
    size, found = ridge_sums.num_features(state), {}
    for name, part in phi.items():
        rows = np.asarray(concat_unpadded(part.batches, part.count, size))
        leverage = leave_one_out.leverages(factored, rows, 1 / totals[name])
        if leverage.max() > leave_one_out.MAX_LEVERAGE:
            return None
        fitted = np.asarray(scores_from_features(classifier, part))
        found[name] = leave_one_out.scores(fitted, leverage, state.names.index(name))
    return found, classifier


def _has_many_categories(state: LifelongState, phi: Mapping[str, Features]) -> bool:
    """Returns whether there are so many categories, and so few images, that weights are not solved for."""
    count = sum(part.count for part in phi.values())
    return count > 0 and len(state.names) >= max(MANY_CATEGORIES, CATEGORIES_PER_IMAGE * count)


@own_types()
def held_out_scores(state: LifelongState, phi: Mapping[str, Features]) -> tuple[dict[str, Any], jax.Array]:
    """Computes scores of images that the regression has not learned, given their features by category.

    Where there are many categories, and few images, the weights are not solved for (`regression.scores`).

    Returns:
        The scores `[n, categories]` by category, and `RidgeClassifier.own_mean`.

    Raises:
        InputError: as in `solve`.
    """
    if not _has_many_categories(state, phi):
        classifier = solve(state)
        return {name: scores_from_features(classifier, part) for name, part in phi.items()}, classifier.own_mean
    ridge_sums.check_sums(state)
    size, names = ridge_sums.num_features(state), sorted(state.names)
    rows = np.concatenate([concat_unpadded(part.batches, part.count, size) for part in phi.values()])
    gram, vectors = ridge_sums.common_gram(state, "all"), ridge_sums.sums_by_category(state, names, "all")
    padded, options = pad_rows(rows, power_of_two(len(rows), MIN_IMAGES)), {"rounding": ridge_sums.rounding(state)}
    values, own_mean = regression.scores(gram, vectors, state.params["ridge"]["ridge"], padded, **options)
    values = np.asarray(values)[:, [names.index(name) for name in state.names]]
    ends = np.cumsum([part.count for part in phi.values()])
    return {n: values[end - part.count : end] for (n, part), end in zip(phi.items(), ends, strict=True)}, own_mean


def _rows(classifier: RidgeClassifier, images: Any) -> Any:
    standardization = classifier.dictionary if is_vector(classifier.image_shape) else None
    return to_rows(images, classifier.image_shape, standardization, max_value=classifier.max_value)


def _feature_batches(classifier: RidgeClassifier, rows: Any) -> Iterator[jax.Array]:
    """Returns the features of padded batches of rows `[n, pixels]`."""
    options = {"image_shape": classifier.image_shape, "settings": classifier.settings}
    return features.feature_batches(classifier.dictionary, classifier.expand, rows, **options)


def _scores(classifier: RidgeClassifier, batches: Iterable[jax.Array], count: int) -> jax.Array:
    """Computes the scores of batches of features."""
    parts = [_product(phi, classifier.weights, classifier.intercept) for phi in batches]
    return concat_unpadded(parts, count, classifier.categories)


# Compiled separately from the features, which would otherwise be recompiled for every size of weights.
@jax.jit
def _product(phi: jax.Array, weights: jax.Array, intercept: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("float32"):
        return phi.astype(jnp.float32) @ weights + intercept[None]
