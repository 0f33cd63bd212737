"""State of a lifelong learner, and how it grows: add, drop and freeze categories.

    params = {"mixed": ..., "categories": {name: subtree, ...}, "ridge": ...}

The parameters are one dict. Everything that a category owns lies under its name, so that a new category appends a
subtree and dropping one deletes a key.
"""

import dataclasses
import hashlib
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae import deprecated
from lifelong_cvae.config import Config
from lifelong_cvae.errors import InputError, check, check_name
from lifelong_cvae.images import Shape, check_image_shape
from lifelong_cvae.model import cvae, vectors
from lifelong_cvae.model.networks import PARTS_BESIDE_NETWORKS, Networks, build_networks
from lifelong_cvae.model.types import own_types
from lifelong_cvae.ridge import initial_sums

# Parts of a category's subtree that are fitted or counted after training, not trained.
FITTED_PARTS = (*PARTS_BESIDE_NETWORKS, "ridge")


class LifelongState(flax.struct.PyTreeNode):
    """Everything that a learner knows: an immutable pytree without any image.

    Attributes:
        params: `{"mixed": ..., "categories": {name: {encoder, decoder, scale, prior, low_rank_noise, contrast,
            rms_uncertainty, thresholds, images, ridge}}, "ridge": ...}`. The keys `ridge` need
            `random_features` above 0.
        names: categories in order of learning.
        visits: number of times that each category has been learned.
        base_categories_left: number of further categories during which the mixed part learns.
        image_shape: (height, width, channels), or (d,) of vectors.
        config: settings.
        max_value: pixel value that stands for white; None if that of the type (`images.flatten_images`).
        capacity: number of categories for which programs are compiled (`stacked`), if there are fewer.
    """

    params: dict[str, Any]
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)
    visits: tuple[int, ...] = flax.struct.field(pytree_node=False)
    base_categories_left: int = flax.struct.field(pytree_node=False)
    image_shape: Shape = flax.struct.field(pytree_node=False)
    config: Config = flax.struct.field(pytree_node=False)
    max_value: float | None = flax.struct.field(pytree_node=False, default=None)
    capacity: int = flax.struct.field(pytree_node=False, default=0)

    @property
    def networks(self) -> Networks:
        """Modules that `params` belong to."""
        return build_networks(self.config.network, self.image_shape, has_mixed=self.config.has_mixed)

    @property
    def training_networks(self) -> Networks:
        """The same modules, computing in the type that is used for training."""
        return dataclasses.replace(self.networks, compute_dtype=self.config.learning.compute_dtype)

    @property
    def standardization(self) -> vectors.Standardization | None:
        """Mean and scale of vectors (`model.vectors`); None for images."""
        return self.params.get("standardization")

    def rows(self, images: Any, *, refuse_dark: bool = True, what: str = "images") -> Any:
        """Checks images or vectors, and brings them to the rows that the networks read (`vectors.to_rows`)."""
        options = {"max_value": self.max_value, "refuse_dark": refuse_dark, "what": what}
        return vectors.to_rows(images, self.image_shape, self.standardization, **options)

    @property
    def mixed_learns(self) -> bool:
        """True if the mixed part is trained in the next task."""
        mode = self.config.learning.mixed_mode
        return mode in ("playback", "free") or (mode == "frozen" and self.base_categories_left > 0)

    @property
    def childhood_left(self) -> int:
        """Deprecated name of `base_categories_left`."""
        deprecated.warn("LifelongState.childhood_left", "LifelongState.base_categories_left")
        return self.base_categories_left

    def visit(self, name: str) -> int:
        """Returns how many times a known category has been learned."""
        return self.visits[self.names.index(name)]

    def model(self, name: str) -> cvae.CategoryModel:
        """Returns the model of one category: the mixed part and the category's own parameters.

        Raises:
            InputError: the category is unknown.
        """
        (name,) = check_known(self, [name])
        return cvae.CategoryModel(self.params["mixed"], self.params["categories"][name], self.networks)

    def path(self, name: str) -> cvae.CategoryModel:
        """Deprecated name of `model`."""
        deprecated.warn("LifelongState.path", "LifelongState.model")
        return self.model(name)


@own_types()
def init(
    config: Config,
    image_shape: Sequence[int],
    *,
    rng: jax.Array,
    max_value: float | None = None,
    mean: Any = None,
    scale: Any = None,
    capacity: int = 0,
) -> LifelongState:
    """Creates a state without categories.

    Args:
        config: settings.
        image_shape: (height, width, channels), or (height, width) for one channel; (d,) for vectors.
        rng: key of the mixed part's initial parameters.
        max_value: pixel value that stands for white; default that of the first task (`images.find_max_value`).
        mean: mean by which vectors are standardized, `[d]` or one number; default that of the first task.
        scale: scale by which vectors are standardized, given together with `mean`.
        capacity: expected number of categories. Programs are then compiled once for that many, and not again each time
            that the number of categories passes a power of two. More may be learned.

    Raises:
        InputError: the shape, the value, the capacity, `mean` or `scale` is invalid, or a setting is not for vectors.
    """
    check(capacity >= 0 and int(capacity) == capacity, f"capacity: expected a number of at least 0, got {capacity}")
    check(max_value is None or max_value > 0, f"max_value: expected a number above 0, got {max_value}")
    shape = check_image_shape(image_shape)
    config = config.for_shape(shape)
    networks = build_networks(config.network, shape, has_mixed=config.has_mixed)
    params = {"mixed": _init_mixed(networks, rng=rng), "categories": {}}
    if vectors.is_vector(shape):
        check(max_value is None, "max_value: expected images, got the shape of vectors")
        params["standardization"] = vectors.given_standardization(shape, mean, scale)
    else:
        check(mean is None and scale is None, "mean and scale: expected vectors, got the shape of images")
    if config.closed_form.has_features:
        params["ridge"] = initial_sums.empty_common_sums(config.closed_form, shape)
    return LifelongState(
        params=params,
        names=(),
        visits=(),
        base_categories_left=config.learning.base_categories if config.has_mixed else 0,
        image_shape=shape,
        config=config,
        max_value=None if max_value is None else float(max_value),
        capacity=int(capacity),
    )


def category_rng(rng: jax.Array, name: str, visit: int) -> jax.Array:
    """Derives the key of one category and visit from a hash of the name, never from its position."""
    return jax.random.fold_in(jax.random.fold_in(rng, name_hash(name)), visit)


def name_hash(name: str) -> int:
    """Returns a stable 32-bit hash of a category's name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


@own_types()
def add_category(
    state: LifelongState, name: str, mean_image: jax.Array | None = None, *, rng: jax.Array
) -> LifelongState:
    """Appends a category with fresh parameters. All other parameters are the same arrays as before.

    Args:
        state: state before.
        name: name of the new category.
        mean_image: initial output of the decoder, `[pixels]`; default gray, or the mean of all vectors.
        rng: the seed's key.

    Raises:
        InputError: the name is not printable, or known already.
    """
    name = check_name(name)
    if name in state.names:
        raise InputError(f"expected the name of a new category, got {name!r}, which is known already")
    if mean_image is None:
        middle = 0.0 if state.networks.is_vector else 0.5
        mean_image = jnp.full((state.networks.pixels,), middle, jnp.float32)
    return append_subtree(state, name, _init_subtree(state, mean_image, rng=category_rng(rng, name, 0)))


def append_subtree(state: LifelongState, name: str, subtree: Any) -> LifelongState:
    """Appends a new category with the parameters `subtree`."""
    categories = {**state.params["categories"], name: subtree}
    return state.replace(
        params={**state.params, "categories": categories}, names=(*state.names, name), visits=(*state.visits, 0)
    )


def _init_subtree(state: LifelongState, mean_image: jax.Array, *, rng: jax.Array) -> Any:
    settings = state.config.closed_form
    subtree = dict(_init_category(state.networks, state.params["mixed"], mean_image, rng=rng))
    if settings.has_features:
        subtree["ridge"] = initial_sums.empty_category_sums(settings, state.image_shape)
    return subtree


@partial(jax.jit, static_argnums=0)
def _init_mixed(networks: Networks, *, rng: jax.Array) -> dict[str, Any]:
    return networks.init_mixed(rng=rng)


@partial(jax.jit, static_argnums=0)
def _init_category(networks: Networks, mixed: Any, mean_image: jax.Array, *, rng: jax.Array) -> Any:
    return networks.init_category(mixed, mean_image, rng=rng)


def drop_category(state: LifelongState, name: str) -> LifelongState:
    """Deletes a category's subtree. All other parameters are the same arrays as before.

    Raises:
        InputError: the category is unknown.
    """
    (name,) = check_known(state, [name])
    index = state.names.index(name)
    return state.replace(
        params={**state.params, "categories": {k: v for k, v in state.params["categories"].items() if k != name}},
        names=state.names[:index] + state.names[index + 1 :],
        visits=state.visits[:index] + state.visits[index + 1 :],
    )


def freeze_mask(params: dict[str, Any], names: Collection[str], *, train_mixed: bool) -> dict[str, Any]:
    """Returns the mask for `optax.selective_transform`: True for each leaf that a task must not change.

    Args:
        params: parameter dict.
        names: categories of the task. Their `FITTED_PARTS` are frozen too, since they are not trained.
        train_mixed: whether the mixed part is trained.
    """

    def is_frozen(path: tuple[Any, ...], _: Any) -> bool:
        keys = [part.key for part in path]
        if keys[0] == "mixed":
            return not train_mixed
        return keys[0] != "categories" or keys[1] not in names or keys[2] in FITTED_PARTS

    return jax.tree_util.tree_map_with_path(is_frozen, params)


@own_types()
def category_shapes(state: LifelongState) -> Any:
    """Returns the shapes and types of the subtree that one more category appends."""
    pixels = jax.ShapeDtypeStruct((state.networks.pixels,), jnp.float32)
    rng = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(partial(_init_subtree, state), pixels, rng=rng)


def parameters_per_category(state: LifelongState) -> int:
    """Returns the number of values that one more category appends."""
    return sum(leaf.size for leaf in jax.tree.leaves(category_shapes(state)))


def add_image_counts(state: LifelongState, images: Mapping[str, np.ndarray]) -> LifelongState:
    """Adds the number of a task's images `[n, pixels]` to the image counts of its categories."""
    categories = dict(state.params["categories"])
    for name, rows in images.items():
        count = state.model(name).part("images", None)
        if count is not None:
            total = np.asarray(count) + np.float32(len(rows))
            categories[name] = {**categories[name], "images": jax.device_put(total)}
    return state.replace(params={**state.params, "categories": categories})


def find_name(state: LifelongState, name: str) -> str:
    """Returns a name as the state has it, found in Unicode's form NFC; an unknown name in that form."""
    if name in state.names:
        return name
    normal = unicodedata.normalize("NFC", name)
    return next((known for known in state.names if unicodedata.normalize("NFC", known) == normal), normal)


def check_known(state: LifelongState, names: Sequence[str]) -> tuple[str, ...]:
    """Returns names as the state has them.

    Raises:
        InputError: a name is that of no category of the state.
    """
    known, found = set(state.names), []
    for name in names:
        is_text = isinstance(name, str)
        found.append(name if is_text and name in known else find_name(state, name) if is_text else None)
        if found[-1] not in known:
            raise InputError(f"unknown category: expected one of {', '.join(state.names) or '(none)'}, got {name!r}")
    return tuple(found)
