"""Sums of the images of each category, from which the regression is solved (`ridge_classifier`).

`params["ridge"]` holds the parts common to all categories: the dictionary of the features, the ridge penalty and, with
`gram_sharing=mixed`, the Gram matrix. The subtree of a category holds the sum of its features and, with
`gram_sharing=own`, its own Gram matrix. Every sum is exact, so neither the order of the categories nor their grouping
into tasks changes a bit of the regression.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import numpy as np

from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import Shape, power_of_two
from lifelong_cvae.model.rows import Rows
from lifelong_cvae.model.types import own_types
from lifelong_cvae.ridge import features, initial_sums, penalty, sums, vector_sums
from lifelong_cvae.ridge.features import Features
from lifelong_cvae.state import LifelongState, drop_category

# Error of a sum of float32 products, with a margin.
VECTOR_ROUNDING = 1e-5
# Fewest columns of categories. The order in which a product adds depends on its shape; of one shape, a run that is
# extended up to this number of categories has the same bits as one that learns all of them at once.
MIN_COLUMNS = 16


class Part(NamedTuple):
    """Images of a category: those that `update` adds, or leaves to `add_held_out`.

    Attributes:
        rows: the images, `[n, pixels]`.
        total: number that their sums are divided by: that of the visit's images, held out or not.
        phi: their features; None if they are not known yet. Those of held-out images are.
    """

    rows: Any
    total: int
    phi: Features | None = None


def update(state: LifelongState, images: Mapping[str, np.ndarray]) -> tuple[LifelongState, dict[str, Part]]:
    """Adds the sums of a task's images, but for held-out ones. The first task also makes the dictionary.

    Every visit of a category adds its mean over the visit's images, so a category counts once per visit.

    Args:
        state: state with the task's categories.
        images: images of the task by category, `[n, pixels]` with n >= 1.

    Returns:
        The state, and the held-out images by category, which `add_held_out` adds.
    """
    settings, shape = state.config.closed_form, state.image_shape
    if not settings.has_features:
        return state, {}
    common, held_out = state.params["ridge"], {}
    if not any(np.any(leaf) for leaf in jax.tree.leaves(common["dictionary"])):
        common = {**common, "dictionary": features.make_dictionary(settings, shape)}
    state, parts = state.replace(params={**state.params, "ridge": common}), {}
    extract = _extractor(state)
    for name, rows in images.items():
        mask = initial_sums.held_out_mask(len(rows))
        fit, unseen = Rows(rows, np.flatnonzero(~mask)), Rows(rows, np.flatnonzero(mask))
        shifted = with_shifts(fit[:], shape) if settings.shift_images else fit
        parts[name] = Part(shifted, len(shifted) // max(len(fit), 1) * len(rows))
        held_out[name] = Part(unseen, len(rows), Features(tuple(extract(unseen)), len(unseen)))
    return _add_sums(state, parts), held_out


def dictionary(state: LifelongState) -> features.Dictionary:
    """Returns the dictionary of filters that features are computed with, or vectors' standardization."""
    return state.params["ridge"]["dictionary"] if state.standardization is None else state.standardization


def _extractor(state: LifelongState) -> Callable[[np.ndarray], Iterator[jax.Array]]:
    """Returns the function from rows to batches of their features."""
    settings, shape = state.config.closed_form, state.image_shape
    expand = features.expansion_matrix(settings, shape)
    return partial(features.feature_batches, dictionary(state), expand, image_shape=shape, settings=settings)


def add_held_out(state: LifelongState, held_out: Mapping[str, Part]) -> LifelongState:
    """Adds the sums of the held-out images of a task.

    Args:
        state: state after `update`.
        held_out: from `update`.
    """
    return _add_sums(state, held_out, held_out=True)


def _computed_sums(
    state: LifelongState, parts: Mapping[str, Part]
) -> Iterator[tuple[sums.ExactSum, dict[str, sums.ExactSum]]]:
    """Yields Gram matrices `[packed]`, and vectors `[features + 1]` of the categories that each covers.

    With a common Gram matrix, one covers all categories of a task of vectors; otherwise each covers one category.
    """
    if not parts:
        return
    size, extract = num_features(state), _extractor(state)
    if state.standardization is None:
        for name, part in parts.items():
            batches = extract(part.rows) if part.phi is None else part.phi.batches
            gram, vector = sums.compute_sums(batches, len(part.rows), part.total, num_features=size)
            yield gram, {name: vector}
            del gram  # before the next one is made, since Gram matrices are large
        return
    groups = [parts] if state.config.closed_form.gram_sharing == "mixed" else [{n: part} for n, part in parts.items()]
    for group in groups:
        rows, totals = ({name: part[index] for name, part in group.items()} for index in (0, 1))
        yield vector_sums.compute_sums(extract, rows, totals, num_features=size)


def with_shifts(rows: np.ndarray, image_shape: Shape) -> np.ndarray:
    """Appends copies of images `[n, pixels]`, shifted by a pixel in four directions: `[5 n, pixels]`."""
    images = rows.reshape(-1, *image_shape)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    height, width, _ = image_shape
    shifts = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
    return np.concatenate([padded[:, y : y + height, x : x + width] for y, x in shifts]).reshape(-1, rows.shape[1])


def _strided_sums(
    state: LifelongState, gram: sums.ExactSum, vectors: Mapping[str, sums.ExactSum]
) -> tuple[sums.ExactSum, dict[str, sums.ExactSum]]:
    """Returns sums over held-out images as `select_ridge` needs them: of every `SEARCH_STRIDE`-th feature."""
    stride = penalty.SEARCH_STRIDE
    strided = {name: sums.strided_vector(vector, stride) for name, vector in vectors.items()}
    return sums.strided_gram(gram, num_features(state), stride), strided


def _add_sums(state: LifelongState, parts: Mapping[str, Part], *, held_out: bool = False) -> LifelongState:
    """Adds the sums of images to those over all images, and to those over held-out ones if they are such."""
    if not parts:
        return state
    common, categories = state.params["ridge"], state.params["categories"]
    own = {name: categories[name]["ridge"] for name in parts}
    for gram, vectors in _computed_sums(state, parts):
        common, own = _add(common, own, gram, vectors, part="all")
        if held_out:
            common, own = _add(common, own, *_strided_sums(state, gram, vectors), part="held_out")
        del gram
    categories = categories | {name: {**categories[name], "ridge": ridge} for name, ridge in own.items()}
    return state.replace(params={**state.params, "categories": categories, "ridge": common})


def _add(
    common: dict[str, Any],
    own: dict[str, dict[str, Any]],
    gram: sums.ExactSum,
    vectors: Mapping[str, sums.ExactSum],
    *,
    part: str,
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Adds vectors to those of their categories, and a Gram matrix to the common or the category's one."""

    def put(subtree: dict[str, Any], key: str, total: sums.ExactSum) -> dict[str, Any]:
        return {**subtree, key: {**subtree[key], part: total}}

    first, *others = vectors
    owner = common if "gram" in common else own[first]
    # Together, which is one program.
    total_gram, total = sums.add((owner["gram"][part], own[first]["sum"][part]), (gram, vectors[first]))
    own = own | {first: put(own[first], "sum", total)}
    own |= {name: put(own[name], "sum", sums.add(own[name]["sum"][part], vectors[name])) for name in others}
    if "gram" in common:
        return put(common, "gram", total_gram), own
    return common, own | {first: put(own[first], "gram", total_gram)}


def held_out_mask(state: LifelongState, count: int) -> np.ndarray:
    """Returns the mask of images that are held out for calibration, bool `[count]`.

    Neither the networks nor the regression are trained on these images. Nothing is held out without a regression.
    """
    return initial_sums.held_out_mask(count) & state.config.closed_form.has_features


@own_types()
def select_ridge(state: LifelongState) -> LifelongState:
    """Selects the ridge penalty by the sums over held-out images.

    Raises:
        InputError: as in `check_sums`.
    """
    check_sums(state)
    names, stride = sorted(state.names), penalty.SEARCH_STRIDE
    all_gram = sums.strided_gram(common_gram(state, "all"), num_features(state), stride)
    grams = all_gram, common_gram(state, "held_out")
    fit_vectors = sums.select_features(sums_by_category(state, names, "all"), stride)
    held_out_vectors = sums_by_category(state, names, "held_out")
    fit_vectors -= held_out_vectors
    ridge = penalty.select_ridge(*grams, fit_vectors, held_out_vectors, rounding=rounding(state))
    return with_ridge(state, ridge)


def with_ridge(state: LifelongState, ridge: Any) -> LifelongState:
    """Returns the state with another ridge penalty."""
    common = {**state.params["ridge"], "ridge": jax.device_put(np.float32(ridge))}
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
        return with_ridge(dropped, penalty.FIRST_RIDGE)
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


def check_sums(state: LifelongState) -> None:
    """Checks that a regression can be solved from the sums of a state.

    Raises:
        InputError: there is no category, or the state has no sums, or those of an earlier version.
    """
    check_dictionary(state.config.closed_form)
    if not state.config.closed_form.has_features:
        raise InputError(
            "regression: expected a state learned with random_features or second_filters above 0, got 0; "
            "recognizer elbo without a shortlist needs no features"
        )
    if not state.names:
        raise InputError("expected at least one category, got none")


def num_features(state: LifelongState) -> int:
    """Returns the number of features of an image."""
    return features.feature_sizes(state.config.closed_form, state.image_shape).features


def rounding(state: LifelongState) -> float:
    """Returns the relative error of sums: those of images are exact, those of vectors float32."""
    return 0.0 if state.standardization is None else VECTOR_ROUNDING


def common_gram(state: LifelongState, part: str) -> sums.ExactSum:
    """Returns the Gram matrix of all categories."""
    if state.config.closed_form.gram_sharing == "mixed":
        return state.params["ridge"]["gram"][part]
    return reduce(sums.add, (state.params["categories"][name]["ridge"]["gram"][part] for name in state.names))


def sums_by_category(state: LifelongState, names: Sequence[str], part: str) -> np.ndarray:
    """Returns the sums of features by category, int64 `[features + 1, num_columns]`, padded with zeros."""
    subtrees = [state.params["categories"][name]["ridge"]["sum"][part] for name in names]
    columns = np.stack([sums.decode(subtree) for subtree in subtrees], axis=1)
    return np.pad(columns, ((0, 0), (0, num_columns(state) - len(names))))


def num_columns(state: LifelongState) -> int:
    """Returns the number of columns for which programs are compiled: the categories, and padding."""
    return power_of_two(max(len(state.names), state.capacity), MIN_COLUMNS)
