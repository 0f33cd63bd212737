"""Closed-form recognizer: sums of features, updated after each task, and the ridge regression solved from them.

`params["ridge"]` holds the parts common to all categories: the dictionary of the features, the ridge penalty and, with
`gram_sharing=mixed`, the Gram matrix. The subtree of a category holds the sum of its features and, with
`gram_sharing=own`, its own Gram matrix.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import Shape, concat_unpadded, flatten_images, padded_batches, power_of_two
from lifelong_cvae.model.types import own_types
from lifelong_cvae.ridge import features, regression
from lifelong_cvae.stacked import MIN_CAPACITY
from lifelong_cvae.state import LifelongState, category_rng, drop_category


class RidgeClassifier(flax.struct.PyTreeNode):
    """A solved regression from images to one score per category.

    Targets are 1 for the true category and 0 for the others.

    Attributes:
        weights: float32 `[features, categories]`, categories in the order of `state.names`.
        dictionary: from `features.fit_dictionary`.
        expand: random matrix, from `features.expansion_matrix`.
        image_shape: shape of an image.
        settings: settings of the features.
        max_value: as in `LifelongState`.
    """

    weights: jax.Array
    dictionary: Any
    expand: jax.Array
    image_shape: Shape = flax.struct.field(pytree_node=False)
    settings: ClosedFormConfig = flax.struct.field(pytree_node=False)
    max_value: float | None = flax.struct.field(pytree_node=False, default=None)


def update(state: LifelongState, images: Mapping[str, np.ndarray], *, rng: jax.Array) -> LifelongState:
    """Adds the sums of a task's images. The first task also fits the dictionary.

    Args:
        state: state after training.
        images: images of the task by category, `[n, pixels]` with n >= 1.
        rng: the seed's key.
    """
    settings, shape = state.config.closed_form, state.image_shape
    if not settings.random_features:
        return state
    common, categories = state.params["ridge"], dict(state.params["categories"])
    if set(images) == set(state.names) and set(state.visits) == {1}:
        all_rows = np.concatenate([images[name] for name in sorted(images)])
        dictionary_rng = category_rng(rng, "dictionary of the closed-form recogniser", 0)
        dictionary = features.fit_dictionary(all_rows, shape, settings, rng=dictionary_rng)
        common = {**regression.empty_common_sums(settings, shape), "dictionary": dictionary}
    expand = features.expansion_matrix(common["dictionary"], settings, shape)
    for name, rows in images.items():
        gram, vector = regression.compute_sums(common["dictionary"], expand, rows, image_shape=shape, settings=settings)
        ridge = _add_sums(categories[name]["ridge"], {"sum": vector})
        if settings.gram_sharing == "own":
            ridge = _add_sums(ridge, {"gram": gram})
        else:
            common = _add_sums(common, {"gram": gram})
        categories[name] = {**categories[name], "ridge": ridge}
    return state.replace(params={**state.params, "categories": categories, "ridge": common})


def held_out_mask(state: LifelongState, count: int) -> np.ndarray:
    """Returns the mask of images that are held out for calibration, bool `[count]`.

    Neither the networks nor the regression are trained on these images. Nothing is held out without a regression.
    """
    return regression.held_out_mask(count) & bool(state.config.closed_form.random_features)


def _add_sums(subtree: dict[str, Any], sums: dict[str, Any]) -> dict[str, Any]:
    return {**subtree, **{key: jax.tree.map(jnp.add, subtree[key], value) for key, value in sums.items()}}


@own_types()
def solve(state: LifelongState) -> RidgeClassifier:
    """Solves the regression of a state on the host.

    Takes about a second; the result serves for many images.

    Raises:
        InputError: there is no category, or the state has no sums.
    """
    gram, vectors = _total_sums(state)
    return _make_classifier(state, regression.solve(gram, vectors, float(state.params["ridge"]["ridge"])))


@own_types()
def select_ridge(state: LifelongState) -> tuple[LifelongState, RidgeClassifier]:
    """Selects the ridge penalty, and solves the regression without held-out images.

    Raises:
        InputError: as in `solve`.
    """
    gram, vectors = _total_sums(state)
    ridge, weights = regression.select_ridge(gram, vectors)
    common = {**state.params["ridge"], "ridge": jnp.float32(ridge)}
    return state.replace(params={**state.params, "ridge": common}), _make_classifier(state, weights)


@own_types()
def drop(state: LifelongState, name: str) -> LifelongState:
    """Forgets a category: deletes its subtree. The subtrees of other categories stay bitwise equal.

    With `gram_sharing=own` the regression is as if the category had never been learned. With `mixed` its part of the
    Gram matrix remains and still contributes to the feature statistics. Temperature grids of other categories stay in
    both cases, although the dropped category was among their alternatives.

    Raises:
        InputError: the category is unknown.
    """
    dropped = drop_category(state, name)
    if "ridge" not in dropped.params or dropped.config.closed_form.gram_sharing == "mixed":
        return dropped
    if len(dropped.names) < 2:
        common = {**dropped.params["ridge"], "ridge": jnp.float32(regression.FIRST_RIDGE)}
        return dropped.replace(params={**dropped.params, "ridge": common})
    return select_ridge(dropped)[0]


def _total_sums(state: LifelongState) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the Gram matrix `[packed]` and the vectors `[features, categories]`, by part, on the host."""
    if not state.config.closed_form.random_features:
        raise InputError(
            "regression: expected a state learned with random_features above 0, got random_features=0; "
            "recognizer elbo without a shortlist needs no features"
        )
    if not state.names:
        raise InputError("expected at least one category, got none")
    sums = [state.params["categories"][name]["ridge"] for name in state.names]
    if state.config.closed_form.gram_sharing == "own":
        gram = jax.tree.map(lambda *grams: np.sum(grams, axis=0), *(subtree["gram"] for subtree in sums))
    else:
        gram = jax.device_get(state.params["ridge"]["gram"])
    vectors = jax.tree.map(lambda *columns: np.stack(columns, axis=1), *(subtree["sum"] for subtree in sums))
    return gram, vectors


def _make_classifier(state: LifelongState, weights: np.ndarray) -> RidgeClassifier:
    settings, dictionary = state.config.closed_form, state.params["ridge"]["dictionary"]
    return RidgeClassifier(
        weights=jax.device_put(weights),
        dictionary=dictionary,
        expand=features.expansion_matrix(dictionary, settings, state.image_shape),
        image_shape=state.image_shape,
        settings=settings,
        max_value=state.max_value,
    )


@own_types()
def scores(classifier: RidgeClassifier, images: Any) -> jax.Array:
    """Computes the regression scores of images, `[n, categories]`.

    Args:
        classifier: from `solve` or `select_ridge`.
        images: uint8 or float in [0, 1], `[n, h, w, c]`, or `[n, h, w]` for one channel.

    Raises:
        InputError: images of a wrong type, shape or range.
    """
    weights = _padded_weights(classifier)
    rows = flatten_images(images, classifier.image_shape, max_value=classifier.max_value)
    parts = [_product(phi, weights) for phi in _feature_batches(classifier, rows)]
    return concat_unpadded(parts, len(rows), classifier.weights.shape[1])


@own_types()
def extract_features(classifier: RidgeClassifier, images: Any) -> jax.Array:
    """Computes the features of images, `[n, features]`. Arguments as in `scores`."""
    rows = flatten_images(images, classifier.image_shape, max_value=classifier.max_value)
    return concat_unpadded(list(_feature_batches(classifier, rows)), len(rows), classifier.weights.shape[0])


@own_types()
def scores_from_features(classifier: RidgeClassifier, phi: jax.Array) -> jax.Array:
    """Computes the regression scores `[n, categories]` of images with the features phi `[n, features]`."""
    weights = _padded_weights(classifier)
    parts = [_product(batch, weights) for _, batch in padded_batches(np.asarray(phi), *features.BATCH_SIZES)]
    return concat_unpadded(parts, len(phi), classifier.weights.shape[1])


def _feature_batches(classifier: RidgeClassifier, rows: Any) -> Iterator[jax.Array]:
    """Yields the features of padded batches of rows `[n, pixels]`."""
    extract = partial(_extract, image_shape=classifier.image_shape, settings=classifier.settings)
    for _, batch in padded_batches(rows, *features.BATCH_SIZES):
        yield extract(classifier.dictionary, classifier.expand, batch)


def _padded_weights(classifier: RidgeClassifier) -> jax.Array:
    """Pads the weights to a power of two of categories, so that few sizes are compiled."""
    categories = classifier.weights.shape[1]
    missing = power_of_two(categories, MIN_CAPACITY) - categories
    return jax.device_put(np.pad(classifier.weights, ((0, 0), (0, missing))))


# Compiled separately from the features, which would otherwise be recompiled for every size of weights.
@jax.jit
def _product(phi: jax.Array, weights: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("float32"):
        return phi @ weights


_extract = jax.jit(features.extract, static_argnames=("image_shape", "settings"))
