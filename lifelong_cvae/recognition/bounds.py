"""Bounds on log p(x|c) for every category, in batches of images."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lifelong_cvae import sharding
from lifelong_cvae.config import DETERMINISTIC_BOUNDS, RecognitionConfig
from lifelong_cvae.images import concat_unpadded, padded_batches, to_float
from lifelong_cvae.model import cvae, elbo
from lifelong_cvae.model.networks import Networks
from lifelong_cvae.model.vectors import log_volume
from lifelong_cvae.stacked import StackedCategories, category_groups, group_capacity, stack_categories
from lifelong_cvae.state import LifelongState

# Smallest number of images per batch.
MIN_BATCH = 8


def all_evidence(
    state: LifelongState,
    stacks: Sequence[StackedCategories] | None,
    rows: Any,
    *,
    rng: jax.Array | None,
    mesh: Mesh | None,
) -> jax.Array:
    """Computes `recognition.evidence` of rows for every category. Also works inside a `jit` of the caller.

    Args:
        state: state of the learner.
        stacks: its stacked categories, one stack per group of `stacked.category_groups`; None stacks them here.
        rows: images `[n, pixels]`.
        rng: key of the samples, for bounds that are sampled.
        mesh: devices that share the images and the categories.
    """
    if state.config.recognition.bound in DETERMINISTIC_BOUNDS:
        rng = None  # not used
    columns = []
    batch_bounds = partial(batch_evidence, networks=state.networks, settings=state.config.recognition, mesh=mesh)
    mixed, shards = sharding.device_put(state.params["mixed"], mesh), sharding.axis_size(mesh, sharding.CATEGORY_AXIS)
    for index, names in enumerate(category_groups(state)):
        if stacks and mesh is None:
            stack = stacks[index]
        else:
            stack = stack_categories(state, names, shards=shards, capacity=group_capacity(state)).on_mesh(mesh)
        parts = []
        for start, batch in padded_batches(rows, MIN_BATCH, state.config.recognition.eval_batch_size):
            batch_rng = None if rng is None else jax.random.fold_in(rng, start)
            parts.append(batch_bounds(mixed, stack, *sharding.device_put((batch, batch_rng), mesh)))
        columns.append(concat_unpadded(parts, len(rows), len(names)))
    traced = isinstance(columns[0], jax.core.Tracer)
    if len(columns) > 1:
        columns = [jnp.concatenate(columns, axis=1) if traced else jax.device_put(np.concatenate(columns, axis=1))]
    if state.standardization is None:
        return columns[0]
    evidence = (columns[0] if traced else np.asarray(columns[0])) + log_volume(state.standardization)
    return evidence if traced else jax.device_put(evidence)


@partial(jax.jit, static_argnames=("networks", "settings", "mesh"))
def batch_evidence(
    mixed: Any,
    stack: StackedCategories,
    rows: jax.Array,
    rng: jax.Array | None,
    *,
    networks: Networks,
    settings: RecognitionConfig,
    mesh: Mesh | None,
) -> jax.Array:
    """Computes the bounds of a batch, `[batch, capacity]`, with the same noise for all categories."""
    with jax.default_matmul_precision("float32"):
        x = to_float(sharding.constrain(rows, mesh, sharding.DATA_AXIS))
        activations = cvae.mixed_activations(cvae.CategoryModel(mixed, {}, networks), "encoder", x)

        def bound(category: Any) -> jax.Array:
            return elbo.evidence_bound(cvae.CategoryModel(mixed, category, networks), x, activations, settings, rng=rng)

        return sharding.constrain(stack.map_categories(bound, mesh=mesh).T, mesh)
