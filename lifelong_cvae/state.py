"""The state of a lifelong learner, and how it grows: append, drop and freeze categories."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.config import Config
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import Shape, check_image_shape
from lifelong_cvae.model import cvae
from lifelong_cvae.model.networks import PARTS_BESIDE_NETWORKS, Networks, build_networks
from lifelong_cvae.ridge import regression

# Parts of a category's subtree that are fitted or counted when a task ends, not trained.
FITTED_PARTS = (*PARTS_BESIDE_NETWORKS, "closed_form")


class LifelongState(flax.struct.PyTreeNode):
    """What a learner knows: an immutable pytree that holds no image.

    Attributes:
        params: `{"mixed": ..., "categories": {name: {encoder, decoder, scale, prior, factors, contrast,
            thresholds, images, closed_form}}, "closed_form": ...}`; `closed_form` with such a recogniser.
        names: the categories in the order of learning.
        visits: how often each of them has been learned.
        childhood_left: categories during which the mixed part will still learn.
        image_shape: (height, width, channels).
        config: the settings.
    """

    params: dict[str, Any]
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)
    visits: tuple[int, ...] = flax.struct.field(pytree_node=False)
    childhood_left: int = flax.struct.field(pytree_node=False)
    image_shape: Shape = flax.struct.field(pytree_node=False)
    config: Config = flax.struct.field(pytree_node=False)

    @property
    def networks(self) -> Networks:
        """The modules that `params` belong to."""
        return build_networks(self.config.network, self.image_shape, has_mixed=self.config.has_mixed)

    @property
    def trained_networks(self) -> Networks:
        """The same, computing in the type that training does."""
        return dataclasses.replace(self.networks, compute=self.config.learning.compute)

    @property
    def mixed_learns(self) -> bool:
        """Whether the mixed part takes part in the next task."""
        mode = self.config.learning.mixed_mode
        return mode in ("playback", "free") or (mode == "frozen" and self.childhood_left > 0)

    def visit(self, name: str) -> int:
        """How often a known category has been learned."""
        return self.visits[self.names.index(name)]

    def path(self, name: str) -> cvae.CategoryModel:
        """All that a category reads: the mixed part and its own parameters.

        Raises:
            InputError: the category is unknown.
        """
        check_known(self, [name])
        return cvae.CategoryModel(self.params["mixed"], self.params["categories"][name], self.networks)


def init(config: Config, image_shape: Sequence[int], *, rng: jax.Array) -> LifelongState:
    """A learner that has seen nothing yet.

    Args:
        config: the settings.
        image_shape: (height, width, channels), or (height, width) for one channel.
        rng: source of the mixed part's initial values.

    Raises:
        InputError: the shape is not one of images.
    """
    shape = check_image_shape(image_shape)
    networks = build_networks(config.network, shape, has_mixed=config.has_mixed)
    params = {"mixed": _init_mixed(networks, rng=rng), "categories": {}}
    if config.closed_form.random_features:
        params["closed_form"] = regression.empty_common_sums(config.closed_form, shape)
    return LifelongState(
        params=params,
        names=(),
        visits=(),
        childhood_left=config.learning.childhood if config.has_mixed else 0,
        image_shape=shape,
        config=config,
    )


def category_rng(rng: jax.Array, name: str, visit: int) -> jax.Array:
    """Randomness of one category and visit: a hash of the name, never the position in the order."""
    return jax.random.fold_in(jax.random.fold_in(rng, name_hash(name)), visit)


def name_hash(name: str) -> int:
    """A stable hash of a category's name, 32 bits."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def add_category(
    state: LifelongState, name: str, mean_image: jax.Array | None = None, *, rng: jax.Array
) -> LifelongState:
    """Appends a category with fresh parameters; nothing else changes.

    Args:
        state: what is known so far.
        name: of the new category.
        mean_image: `[pixels]` in [0, 1], what the decoder draws at first; grey unless given.
        rng: the seed's key.

    Raises:
        InputError: the name is not printable, or known already.
    """
    check_name(name)
    if name in state.names:
        raise InputError(f"category {name!r} is known already: a new name is expected")
    mean_image = jnp.full((state.networks.pixels,), 0.5, jnp.float32) if mean_image is None else mean_image
    fresh = _init_subtree(state, mean_image, rng=category_rng(rng, name, 0))
    categories = {**state.params["categories"], name: fresh}
    return state.replace(
        params={**state.params, "categories": categories},
        names=(*state.names, name),
        visits=(*state.visits, 0),
    )


def _init_subtree(state: LifelongState, mean_image: jax.Array, *, rng: jax.Array) -> Any:
    """What a new category owns."""
    settings = state.config.closed_form
    fresh = _init_category(state.networks, state.params["mixed"], mean_image, rng=rng)
    return {**fresh, "closed_form": regression.empty_category_sums(settings)} if settings.random_features else fresh


@partial(jax.jit, static_argnums=0)
def _init_mixed(networks: Networks, *, rng: jax.Array) -> dict[str, Any]:
    return networks.init_mixed(rng=rng)


@partial(jax.jit, static_argnums=0)
def _init_category(networks: Networks, mixed: Any, mean_image: jax.Array, *, rng: jax.Array) -> Any:
    return networks.init_category(mixed, mean_image, rng=rng)


def category_shapes(state: LifelongState) -> Any:
    """Shapes and types of what one more category appends."""
    pixels = jax.ShapeDtypeStruct((state.networks.pixels,), jnp.float32)
    rng = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(partial(_init_subtree, state), pixels, rng=rng)


def add_image_counts(state: LifelongState, rows: Mapping[str, np.ndarray]) -> LifelongState:
    """The state with the images of a task added to the number that its categories have had."""
    categories = dict(state.params["categories"])
    for name, values in rows.items():
        had = state.path(name).own("images", None)
        if had is not None:
            categories[name] = {**categories[name], "images": had + len(values)}
    return state.replace(params={**state.params, "categories": categories})


def drop_category(state: LifelongState, name: str) -> LifelongState:
    """Forgets a category: its subtree goes, everything else stays bitwise as it was.

    Raises:
        InputError: the category is unknown.
    """
    check_known(state, [name])
    index = state.names.index(name)
    return state.replace(
        params={
            **state.params,
            "categories": {k: v for k, v in state.params["categories"].items() if k != name},
        },
        names=state.names[:index] + state.names[index + 1 :],
        visits=state.visits[:index] + state.visits[index + 1 :],
    )


def freeze_mask(params: dict[str, Any], names: Collection[str], *, train_mixed: bool) -> dict[str, Any]:
    """For `optax.partition`: `train` or `freeze` for each leaf of the whole parameter dict.

    Args:
        params: the whole dict.
        names: the categories that learn. What is fitted, not trained (`SETTLED`), is frozen here.
        train_mixed: whether the mixed part learns.
    """

    def label(path: tuple[Any, ...], _: Any) -> str:
        keys = [part.key for part in path]
        if keys[0] == "closed_form":
            return "freeze"
        if keys[0] == "mixed":
            return "train" if train_mixed else "freeze"
        return "train" if keys[1] in names and keys[2] not in FITTED_PARTS else "freeze"

    return jax.tree_util.tree_map_with_path(label, params)


def parameters_per_category(state: LifelongState) -> int:
    """Number of values that one more category appends."""
    return sum(leaf.size for leaf in jax.tree.leaves(category_shapes(state)))


def check_name(name: Any) -> None:
    """Raises InputError unless `name` is a non-empty text of printable characters."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise InputError(f"category name {name!r}: a non-empty text of printable characters is expected")


def check_known(state: LifelongState, names: Sequence[str]) -> None:
    """Raises InputError unless all names are categories of the state."""
    there = set(state.names)
    for name in names:
        if name not in there:
            known = ", ".join(state.names) or "none yet"
            raise InputError(f"unknown category {name!r}: known are {known}")
