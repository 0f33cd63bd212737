"""The closed-form recognizer of a state: its sums, task by task, and the regression that they give.

`params["ridge"]` holds what categories share, the dictionary of the features and the Gram matrix; a
category owns the sum of its features, and with the setting `gram=own` its share of the Gram matrix.
"""

from __future__ import annotations

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
from lifelong_cvae.ridge import features, regression
from lifelong_cvae.stacked import MIN_CAPACITY
from lifelong_cvae.state import LifelongState, category_rng, drop_category


class RidgeClassifier(flax.struct.PyTreeNode):
    """A solved regression: from images to a score for each category, about 1 for the right one, else 0.

    Attributes:
        weights: float32 `[features, categories]`, categories in the order of `state.names`.
        dictionary: of the features.
        expand: the random matrix of the features.
        image_shape: of images.
        settings: of the features.
    """

    weights: jax.Array
    dictionary: Any
    expand: jax.Array
    image_shape: Shape = flax.struct.field(pytree_node=False)
    settings: ClosedFormConfig = flax.struct.field(pytree_node=False)


def update(state: LifelongState, rows: Mapping[str, np.ndarray], *, rng: jax.Array) -> LifelongState:
    """The state with the sums of a task's images; the first task also gives the dictionary.

    Args:
        state: after the task's training.
        rows: category to its images `[n, pixels]`, at least one of each.
        rng: the seed's key.
    """
    settings, shape = state.config.closed_form, state.image_shape
    if not settings.random_features:
        return state
    common, categories = state.params["ridge"], dict(state.params["categories"])
    if set(rows) == set(state.names) and set(state.visits) == {1}:
        pool = np.concatenate([rows[name] for name in sorted(rows)])
        dictionary_rng = category_rng(rng, "dictionary of the closed-form recogniser", 0)
        learned = features.fit_dictionary(pool, shape, settings, rng=dictionary_rng)
        common = {**regression.empty_common_sums(settings, shape), "dictionary": learned}
    expand = features.expansion_matrix(common["dictionary"], settings, shape)
    for name, images in rows.items():
        gram, vector = regression.compute_sums(
            common["dictionary"], expand, images, image_shape=shape, settings=settings
        )
        own = _add(categories[name]["ridge"], {"sum": vector})
        if settings.gram_sharing == "own":
            own = _add(own, {"gram": gram})
        else:
            common = _add(common, {"gram": gram})
        categories[name] = {**categories[name], "ridge": own}
    return state.replace(params={**state.params, "categories": categories, "ridge": common})


def held_out_mask(state: LifelongState, count: int) -> np.ndarray:
    """Which of so many images of a category calibrate, and train neither expert: bool `[count]`.

    None where there is no regression.
    """
    return regression.held_out_mask(count) & bool(state.config.closed_form.random_features)


def _add(tree: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return {**tree, **{key: jax.tree.map(jnp.add, tree[key], value) for key, value in more.items()}}


def solve(state: LifelongState) -> RidgeClassifier:
    """Solves the regression of a state, on the host: about a second, once for many images.

    Raises:
        InputError: nothing has been learned yet, or the state keeps no sums.
    """
    gram, vectors = _total_sums(state)
    return _make_classifier(state, regression.solve(gram, vectors, float(state.params["ridge"]["ridge"])))


def select_ridge(state: LifelongState) -> tuple[LifelongState, RidgeClassifier]:
    """The state with the ridge that its sums ask for, and the regression without what they hold out.

    Raises:
        InputError: as for `solve`.
    """
    gram, vectors = _total_sums(state)
    chosen, weights = regression.select_ridge(gram, vectors)
    common = {**state.params["ridge"], "ridge": jnp.float32(chosen)}
    return state.replace(params={**state.params, "ridge": common}), _make_classifier(state, weights)


def drop(state: LifelongState, name: str) -> LifelongState:
    """Forgets a category: its subtree goes, and what other categories own stays bitwise as it was.

    With the setting `gram=own` the regression is as if the category had never come; with `mixed` its share
    of the Gram matrix stays, and goes on telling which features are common. Temperatures that were chosen
    beside it stay in any case.

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
    """Gram matrix `[packed]` and vectors `[features, categories]`, by part, on the host."""
    if not state.config.closed_form.random_features:
        raise InputError(
            "recognizer closed_form: the run was learned with random_features=0 and keeps no sums; "
            "recognizer elbo is expected"
        )
    if not state.names:
        raise InputError("no category: at least one is expected")
    owned = [state.params["categories"][name]["ridge"] for name in state.names]
    if state.config.closed_form.gram_sharing == "own":
        gram = jax.tree.map(lambda *shares: np.sum(shares, axis=0), *(own["gram"] for own in owned))
    else:
        gram = jax.device_get(state.params["ridge"]["gram"])
    vectors = jax.tree.map(lambda *columns: np.stack(columns, axis=1), *(own["sum"] for own in owned))
    return gram, vectors


def _make_classifier(state: LifelongState, weights: np.ndarray) -> RidgeClassifier:
    settings, dictionary = state.config.closed_form, state.params["ridge"]["dictionary"]
    return RidgeClassifier(
        weights=jax.device_put(weights),
        dictionary=dictionary,
        expand=features.expansion_matrix(dictionary, settings, state.image_shape),
        image_shape=state.image_shape,
        settings=settings,
    )


def scores(classifier: RidgeClassifier, images: Any) -> jax.Array:
    """What the regression says of images, `[n, categories]`.

    Args:
        classifier: what `solve` gives.
        images: uint8 or float in [0, 1], `[n, h, w, c]`, or `[n, h, w]` for one channel.

    Raises:
        InputError: bad images.
    """
    rows, weights = flatten_images(images, classifier.image_shape), _padded_weights(classifier)
    parts = [_product(phi, weights) for phi in _features_of(classifier, rows)]
    return concat_unpadded(parts, len(rows), classifier.weights.shape[1])


def extract_features(classifier: RidgeClassifier, images: Any) -> jax.Array:
    """Features of images, `[n, features]`; arguments as above."""
    rows = flatten_images(images, classifier.image_shape)
    return concat_unpadded(list(_features_of(classifier, rows)), len(rows), classifier.weights.shape[0])


def scores_from_features(classifier: RidgeClassifier, phi: jax.Array) -> jax.Array:
    """What the regression says of images with the features phi `[n, features]`: `[n, categories]`."""
    weights = _padded_weights(classifier)
    parts = [_product(block, weights) for _, block in padded_batches(np.asarray(phi), *features.BATCH_SIZES)]
    return concat_unpadded(parts, len(phi), classifier.weights.shape[1])


def _features_of(classifier: RidgeClassifier, rows: Any) -> Iterator[jax.Array]:
    """Features of rows, block by block, padded."""
    extract = partial(_features, image_shape=classifier.image_shape, settings=classifier.settings)
    for _, block in padded_batches(rows, *features.BATCH_SIZES):
        yield extract(classifier.dictionary, classifier.expand, block)


def _padded_weights(classifier: RidgeClassifier) -> jax.Array:
    """Weights for a number of categories that is a power of two, so that few numbers are compiled for."""
    categories = classifier.weights.shape[1]
    missing = power_of_two(categories, MIN_CAPACITY) - categories
    return jax.device_put(np.pad(classifier.weights, ((0, 0), (0, missing))))


# Apart from the features, which would otherwise be compiled for every size of weights.
@jax.jit
def _product(phi: jax.Array, weights: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("float32"):
        return phi @ weights


_features = jax.jit(features.extract, static_argnames=("image_shape", "settings"))
