"""The closed-form recogniser of a state: its sums, task by task, and the regression that they give.

`params["closed_form"]` holds what categories share, the dictionary of the features and the Gram matrix; a
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

from lifelong_cvae import features, growth, ridge
from lifelong_cvae.config import ClosedFormConfig
from lifelong_cvae.errors import InputError
from lifelong_cvae.growth import LifelongState, category_rng
from lifelong_cvae.images import Shape, as_rows, blocks, power_of_two, unpadded
from lifelong_cvae.stacking import STACK_MINIMUM


class Readout(flax.struct.PyTreeNode):
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


def add(state: LifelongState, rows: Mapping[str, np.ndarray], *, rng: jax.Array) -> LifelongState:
    """The state with the sums of a task's images; the first task also gives the dictionary.

    Args:
        state: after the task's training.
        rows: category to its images `[n, pixels]`, at least one of each.
        rng: the seed's key.
    """
    settings, shape = state.config.closed_form, state.image_shape
    if not settings.random_features:
        return state
    common, categories = state.params["closed_form"], dict(state.params["categories"])
    if set(rows) == set(state.names) and not any(state.visits):
        pool = np.concatenate([rows[name] for name in sorted(rows)])
        dictionary_rng = category_rng(rng, "dictionary of the closed-form recogniser", 0)
        learned = features.learn_dictionary(pool, shape, settings, rng=dictionary_rng)
        common = {**ridge.common_blank(settings, shape), "dictionary": learned}
    expand = features.expansion(common["dictionary"], settings, shape)
    for name, images in rows.items():
        gram, vector = ridge.sums(common["dictionary"], expand, images, image_shape=shape, settings=settings)
        own = _plus(categories[name]["closed_form"], {"sum": vector})
        if settings.gram == "own":
            own = _plus(own, {"gram": gram})
        else:
            common = _plus(common, {"gram": gram})
        categories[name] = {**categories[name], "closed_form": own}
    return state.replace(params={**state.params, "categories": categories, "closed_form": common})


def held_out(state: LifelongState, count: int) -> np.ndarray:
    """Which of so many images of a category calibrate, and train neither expert: bool `[count]`.

    None where there is no regression.
    """
    return ridge.held_out(count) & bool(state.config.closed_form.random_features)


def _plus(tree: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return {**tree, **{key: jax.tree.map(jnp.add, tree[key], value) for key, value in more.items()}}


def solve(state: LifelongState) -> Readout:
    """Solves the regression of a state, on the host: about a second, once for many images.

    Raises:
        InputError: nothing has been learned yet, or the state keeps no sums.
    """
    gram, vectors = _totals(state)
    return _readout(state, ridge.solve(gram, vectors, float(state.params["closed_form"]["ridge"])))


def choose_ridge(state: LifelongState) -> tuple[LifelongState, Readout]:
    """The state with the ridge that its sums ask for, and the regression without what they hold out.

    Raises:
        InputError: as for `solve`.
    """
    gram, vectors = _totals(state)
    chosen, weights = ridge.choose(gram, vectors)
    common = {**state.params["closed_form"], "ridge": jnp.float32(chosen)}
    return state.replace(params={**state.params, "closed_form": common}), _readout(state, weights)


def drop(state: LifelongState, name: str) -> LifelongState:
    """Forgets a category: its subtree goes, and what other categories own stays bitwise as it was.

    With the setting `gram=own` the regression is as if the category had never come; with `mixed` its share
    of the Gram matrix stays, and goes on telling which features are common. Temperatures that were chosen
    beside it stay in any case.

    Raises:
        InputError: the category is unknown.
    """
    dropped = growth.drop(state, name)
    if "closed_form" not in dropped.params or dropped.config.closed_form.gram == "mixed":
        return dropped
    if len(dropped.names) < 2:
        common = {**dropped.params["closed_form"], "ridge": jnp.float32(ridge.FIRST_RIDGE)}
        return dropped.replace(params={**dropped.params, "closed_form": common})
    return choose_ridge(dropped)[0]


def _totals(state: LifelongState) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Gram matrix `[packed]` and vectors `[features, categories]`, by part, on the host."""
    if not state.config.closed_form.random_features:
        raise InputError(
            "recogniser closed_form: the run was learned with random_features=0 and keeps no sums; "
            "recogniser elbo is expected"
        )
    if not state.names:
        raise InputError("no category: at least one is expected")
    owned = [state.params["categories"][name]["closed_form"] for name in state.names]
    if state.config.closed_form.gram == "own":
        gram = jax.tree.map(lambda *shares: np.sum(shares, axis=0), *(own["gram"] for own in owned))
    else:
        gram = jax.device_get(state.params["closed_form"]["gram"])
    vectors = jax.tree.map(lambda *columns: np.stack(columns, axis=1), *(own["sum"] for own in owned))
    return gram, vectors


def _readout(state: LifelongState, weights: np.ndarray) -> Readout:
    settings, dictionary = state.config.closed_form, state.params["closed_form"]["dictionary"]
    return Readout(
        weights=jax.device_put(weights),
        dictionary=dictionary,
        expand=features.expansion(dictionary, settings, state.image_shape),
        image_shape=state.image_shape,
        settings=settings,
    )


def scores(readout: Readout, images: Any) -> jax.Array:
    """What the regression says of images, `[n, categories]`.

    Args:
        readout: what `solve` gives.
        images: uint8 or float in [0, 1], `[n, h, w, c]`, or `[n, h, w]` for one channel.

    Raises:
        InputError: bad images.
    """
    rows, weights = as_rows(images, readout.image_shape), _padded_weights(readout)
    parts = [_product(phi, weights) for phi in _features_of(readout, rows)]
    return unpadded(parts, len(rows), readout.weights.shape[1])


def embed(readout: Readout, images: Any) -> jax.Array:
    """Features of images, `[n, features]`; arguments as above."""
    rows = as_rows(images, readout.image_shape)
    return unpadded(list(_features_of(readout, rows)), len(rows), readout.weights.shape[0])


def scores_of(readout: Readout, phi: jax.Array) -> jax.Array:
    """What the regression says of images with the features phi `[n, features]`: `[n, categories]`."""
    weights = _padded_weights(readout)
    parts = [_product(block, weights) for _, block in blocks(np.asarray(phi), *features.BLOCK_IMAGES)]
    return unpadded(parts, len(phi), readout.weights.shape[1])


def _features_of(readout: Readout, rows: Any) -> Iterator[jax.Array]:
    """Features of rows, block by block, padded."""
    extract = partial(_features, image_shape=readout.image_shape, settings=readout.settings)
    for _, block in blocks(rows, *features.BLOCK_IMAGES):
        yield extract(readout.dictionary, readout.expand, block)


def _padded_weights(readout: Readout) -> jax.Array:
    """Weights for a number of categories that is a power of two, so that few numbers are compiled for."""
    categories = readout.weights.shape[1]
    missing = power_of_two(categories, STACK_MINIMUM) - categories
    return jax.device_put(np.pad(readout.weights, ((0, 0), (0, missing))))


# Apart from the features, which would otherwise be compiled for every size of weights.
@jax.jit
def _product(phi: jax.Array, weights: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("float32"):
        return phi @ weights


_features = jax.jit(features.features, static_argnames=("image_shape", "settings"))
