"""Closed-form recognizer: sums of features, updated after each task, and the ridge regression solved from them.

`params["ridge"]` holds the parts common to all categories: the dictionary of the features, the ridge penalty and, with
`gram_sharing=mixed`, the Gram matrix. The subtree of a category holds the sum of its features and, with
`gram_sharing=own`, its own Gram matrix. Every sum is exact, so neither the order of the categories nor their grouping
into tasks changes a bit of the regression.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from lifelong_cvae.ridge import features, regression, sums
from lifelong_cvae.stacked import MIN_CAPACITY
from lifelong_cvae.state import LifelongState, drop_category

# Gram matrix `[packed]` and vector `[features + 1]` of a category.
CategorySums = tuple[sums.ExactSum, sums.ExactSum]


class RidgeClassifier(flax.struct.PyTreeNode):
    """A solved regression from images to one score per category.

    Targets are 1 for the true category and 0 for the others.

    Attributes:
        weights: float32 `[features, categories]`, categories in the order of `state.names`.
        intercept: float32 `[categories]`.
        own_means: mean score of a category's own images for it, float32 `[categories]`.
        dictionary: from `features.make_dictionary`.
        expand: random matrix, from `features.expansion_matrix`.
        image_shape: shape of an image.
        settings: settings of the features.
        max_value: as in `LifelongState`.
    """

    weights: jax.Array
    intercept: jax.Array
    own_means: jax.Array
    dictionary: Any
    expand: jax.Array
    image_shape: Shape = flax.struct.field(pytree_node=False)
    settings: ClosedFormConfig = flax.struct.field(pytree_node=False)
    max_value: float | None = flax.struct.field(pytree_node=False, default=None)


def update(state: LifelongState, images: Mapping[str, np.ndarray]) -> tuple[LifelongState, dict[str, Any]]:
    """Adds the sums of a task's images. The first task also makes the dictionary.

    Every visit of a category adds its mean over the visit's images, so a category counts once per visit.

    Args:
        state: state after training.
        images: images of the task by category, `[n, pixels]` with n >= 1.

    Returns:
        The state, and the sums of held-out images by category, to be left out by `solve`.
    """
    settings, shape = state.config.closed_form, state.image_shape
    if not settings.has_features:
        return state, {}
    common, categories, held_out = state.params["ridge"], dict(state.params["categories"]), {}
    if sum(state.visits) == len(images):
        common = {**common, "dictionary": features.make_dictionary(settings, shape)}
    options = {"image_shape": shape, "settings": settings}
    compute = partial(sums.compute_sums, common["dictionary"], features.expansion_matrix(settings, shape), **options)
    for name, rows in images.items():
        mask = regression.held_out_mask(len(rows))
        fit = with_shifts(rows[~mask], shape) if settings.shift_images else rows[~mask]
        copies = len(fit) // max(np.count_nonzero(~mask), 1)
        fit_sums, held_out[name] = compute(fit, copies * len(rows)), compute(rows[mask], len(rows))
        gram, vector = _sums_by_part(fit_sums, held_out[name], _num_features(state))
        added = {"sum": vector, "gram": gram} if settings.gram_sharing == "own" else {"sum": vector}
        categories[name] = {**categories[name], "ridge": _add_sums(categories[name]["ridge"], added)}
        if settings.gram_sharing == "mixed":
            common = _add_sums(common, {"gram": gram})
    return state.replace(params={**state.params, "categories": categories, "ridge": common}), held_out


def with_shifts(rows: np.ndarray, image_shape: Shape) -> np.ndarray:
    """Appends copies of images `[n, pixels]`, shifted by a pixel in four directions: `[5 n, pixels]`."""
    images = rows.reshape(-1, *image_shape)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    height, width, _ = image_shape
    shifts = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
    return np.concatenate([padded[:, y : y + height, x : x + width] for y, x in shifts]).reshape(-1, rows.shape[1])


def _sums_by_part(fit: CategorySums, held_out: CategorySums, num_features: int) -> tuple[dict[str, Any], ...]:
    """Returns Gram matrix and vector by part; of held-out images, as `select_ridge` needs them."""
    stride = regression.SEARCH_STRIDE
    gram, vector = (sums.add(*pair) for pair in zip(fit, held_out, strict=True))
    return (
        {"all": gram, "held_out": sums.strided_gram(held_out[0], num_features, stride)},
        {"all": vector, "held_out": sums.strided_vector(held_out[1], stride)},
    )


def _add_sums(subtree: dict[str, Any], added: dict[str, dict[str, sums.ExactSum]]) -> dict[str, Any]:
    def add(key: str) -> dict[str, sums.ExactSum]:
        return {part: jax.device_put(sums.add(subtree[key][part], value)) for part, value in added[key].items()}

    return {**subtree, **{key: add(key) for key in added}}


def held_out_mask(state: LifelongState, count: int) -> np.ndarray:
    """Returns the mask of images that are held out for calibration, bool `[count]`.

    Neither the networks nor the regression are trained on these images. Nothing is held out without a regression.
    """
    return regression.held_out_mask(count) & state.config.closed_form.has_features


@own_types()
def solve(state: LifelongState, *, without: Mapping[str, Any] | None = None) -> RidgeClassifier:
    """Solves the regression of a state on the host.

    Takes about a second; the result serves for many images. It does not depend on the order of the categories.

    Args:
        state: state of the learner.
        without: sums from `update` that are left out.

    Raises:
        InputError: there is no category, or the state has no sums.
    """
    _check_sums(state)
    without, num_features = without or {}, _num_features(state)
    gram = sums.gram_blocks(_grams(state, "all"), num_features, subtracted=[gram for gram, _ in without.values()])
    names = sorted(state.names)
    vectors = _vectors(state, names, "all")
    for name, (_, vector) in without.items():
        vectors[:, names.index(name)] -= sums.decode(vector)
    solution = regression.solve(gram, vectors, float(state.params["ridge"]["ridge"]))
    order = [names.index(name) for name in state.names]
    settings = state.config.closed_form
    return RidgeClassifier(
        weights=jax.device_put(solution.weights[:, order]),
        intercept=jax.device_put(solution.intercept[order]),
        own_means=jax.device_put(solution.own_means[order]),
        dictionary=state.params["ridge"]["dictionary"],
        expand=features.expansion_matrix(settings, state.image_shape),
        image_shape=state.image_shape,
        settings=settings,
        max_value=state.max_value,
    )


@own_types()
def select_ridge(state: LifelongState) -> LifelongState:
    """Selects the ridge penalty by the sums over held-out images.

    Raises:
        InputError: as in `solve`.
    """
    _check_sums(state)
    names, stride = sorted(state.names), regression.SEARCH_STRIDE
    total = [sums.strided_gram(gram, _num_features(state), stride) for gram in _grams(state, "all")]
    held_out, size = _grams(state, "held_out"), -(-_num_features(state) // stride)
    vectors = sums.select_features(_vectors(state, names, "all"), stride)
    held_out_vectors = _vectors(state, names, "held_out")
    ridge = regression.select_ridge(
        sums.gram_blocks(total, size, subtracted=held_out),
        sums.gram_blocks(held_out, size),
        vectors - held_out_vectors,
        held_out_vectors,
    )
    common = {**state.params["ridge"], "ridge": jnp.float32(ridge)}
    return state.replace(params={**state.params, "ridge": common})


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
    return select_ridge(dropped)


def check_dictionary(settings: ClosedFormConfig) -> None:
    """Checks that this version computes the features.

    Raises:
        InputError: the settings are those of a checkpoint or run that an earlier version wrote.
    """
    if settings.dictionary == "first_task":
        raise InputError(
            "regression: expected features of this version, got dictionary=first_task of an earlier one: use "
            "recognizer elbo, or learn from the images again in a new run"
        )


def _check_sums(state: LifelongState) -> None:
    check_dictionary(state.config.closed_form)
    if not state.config.closed_form.has_features:
        raise InputError(
            "regression: expected a state learned with random_features above 0, got random_features=0; "
            "recognizer elbo without a shortlist needs no features"
        )
    if not state.names:
        raise InputError("expected at least one category, got none")


def _num_features(state: LifelongState) -> int:
    return features.feature_sizes(state.config.closed_form, state.image_shape).features


def _grams(state: LifelongState, part: str) -> list[sums.ExactSum]:
    """Returns the Gram matrices whose sum is that of all categories."""
    if state.config.closed_form.gram_sharing == "own":
        return [state.params["categories"][name]["ridge"]["gram"][part] for name in state.names]
    return [state.params["ridge"]["gram"][part]]


def _vectors(state: LifelongState, names: Sequence[str], part: str) -> np.ndarray:
    """Returns the sums of features of each category, int64 `[features + 1, categories]`."""
    subtrees = (state.params["categories"][name]["ridge"]["sum"][part] for name in names)
    return np.stack([sums.decode(subtree) for subtree in subtrees], axis=1)


@own_types()
def scores(classifier: RidgeClassifier, images: Any) -> jax.Array:
    """Computes the regression scores of images, `[n, categories]`.

    Args:
        classifier: from `solve`.
        images: uint8 or float in [0, 1], `[n, h, w, c]`, or `[n, h, w]` for one channel.

    Raises:
        InputError: images of a wrong type, shape or range.
    """
    rows = flatten_images(images, classifier.image_shape, max_value=classifier.max_value)
    return _scores(classifier, _feature_batches(classifier, rows), len(rows))


@own_types()
def extract_features(classifier: RidgeClassifier, images: Any) -> jax.Array:
    """Computes the features of images, int8 `[n, features]`. Arguments as in `scores`."""
    rows = flatten_images(images, classifier.image_shape, max_value=classifier.max_value)
    return concat_unpadded(list(_feature_batches(classifier, rows)), len(rows), classifier.weights.shape[0])


@own_types()
def scores_from_features(classifier: RidgeClassifier, phi: jax.Array) -> jax.Array:
    """Computes the regression scores `[n, categories]` of images with the features phi `[n, features]`."""
    batches = (batch for _, batch in padded_batches(np.asarray(phi), *features.BATCH_SIZES))
    return _scores(classifier, batches, len(phi))


def _feature_batches(classifier: RidgeClassifier, rows: Any) -> Iterator[jax.Array]:
    """Yields the features of padded batches of rows `[n, pixels]`."""
    extract = partial(_extract, image_shape=classifier.image_shape, settings=classifier.settings)
    for _, batch in padded_batches(rows, *features.BATCH_SIZES):
        yield extract(classifier.dictionary, classifier.expand, batch)


def _scores(classifier: RidgeClassifier, batches: Iterable[jax.Array], count: int) -> jax.Array:
    """Computes the scores of batches of features. Categories are padded, so that few sizes are compiled."""
    categories = classifier.weights.shape[1]
    missing = power_of_two(categories, MIN_CAPACITY) - categories
    weights = jax.device_put(np.pad(classifier.weights, ((0, 0), (0, missing))))
    intercept = jax.device_put(np.pad(classifier.intercept, (0, missing)))
    return concat_unpadded([_product(phi, weights, intercept) for phi in batches], count, categories)


# Compiled separately from the features, which would otherwise be recompiled for every size of weights.
@jax.jit
def _product(phi: jax.Array, weights: jax.Array, intercept: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("float32"):
        return phi.astype(jnp.float32) @ weights + intercept[None]


@partial(jax.jit, static_argnames=("image_shape", "settings"))
def _extract(
    dictionary: Any, expand: jax.Array, rows: jax.Array, *, image_shape: Shape, settings: ClosedFormConfig
) -> jax.Array:
    return features.extract(dictionary, expand, rows, image_shape=image_shape, settings=settings).astype(jnp.int8)
