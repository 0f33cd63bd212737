"""The second layer of features: filters that read the responses of the first layer.

    m    = mean responses of both signs in cells of a few pixels
    u    = (m - center) basis                          principal components of m
    v    = u in a patch of cells, scaled to a mean square of about 1
    s_k  = filter_k . v - offset_k

Like the filters of the first layer, all of this is learned from dead leaves: `basis` by principal components, the
filters by k-means (Coates and Ng 2011, "Selecting receptive fields in deep networks"). A component is symmetric or
antisymmetric: in a mirror image it keeps or changes its sign. So every filter has its mirror image in the dictionary.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae.model import cpu
from lifelong_cvae.ridge import dead_leaves
from lifelong_cvae.ridge.dictionary import (
    THRESHOLD,
    contrast_floor,
    fit_filters,
    make_filters,
    normalize_patches,
    to_read_only,
)

# Filters of the first layer that the second one reads, with their mirror images.
MAX_READ = 256
# Side of a cell in pixels, about, and of a patch in cells.
CELL_SIDE, PATCH_SIDE = 3, 3
COMPONENTS = 64
# Added to the mean square of a patch.
CONTRAST_FLOOR = 0.1
PATCHES_PER_FILTER = 40
PATCHES_PER_IMAGE = 100

# `center` [maps], `basis` [maps, components], `filters` [patch, filters] and `offset` [filters].
Layer = dict[str, jax.Array]


def layer_shapes(num_first: int, patch_side: int, count: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a layer's arrays.

    Args:
        num_first: number of filters in the first layer, even.
        patch_side: side of a patch in cells.
        count: number of filters.
    """
    maps = 2 * min(MAX_READ, num_first)
    components = min(COMPONENTS, maps)
    patch = patch_side**2 * components
    return {"center": (maps,), "basis": (maps, components), "filters": (patch, count), "offset": (count,)}


def grid_side(positions: int) -> int:
    """Returns the number of cells along an axis with this number of positions of a filter."""
    return max(1, round(positions / CELL_SIDE))


def respond(layer: Layer, responses: jax.Array) -> jax.Array:
    """Computes the responses of the second layer. Traceable.

    Args:
        layer: from `make_layer`.
        responses: those of the first layer, `[n, down, across, filters]`.

    Returns:
        `[n, rows, columns, filters]`, one row and column for each place of a patch.
    """
    read, half = len(layer["center"]) // 4, responses.shape[-1] // 2
    signs = [jax.nn.relu(signed - THRESHOLD) for signed in (responses, -responses)]
    maps = jnp.concatenate([sign[..., start : start + read] for start in (0, half) for sign in signs], axis=-1)
    rows, columns = (grid_side(length) for length in maps.shape[1:3])
    maps = cpu.average_cells(cpu.average_cells(maps, 1, rows), 2, columns)
    components = (maps - layer["center"].reshape(1, 1, 1, -1)) @ layer["basis"]
    side = round((len(layer["filters"]) / components.shape[-1]) ** 0.5)
    rows, columns = rows - side + 1, columns - side + 1
    shifted = [components[:, y : y + rows, x : x + columns] for y in range(side) for x in range(side)]
    patches = jnp.concatenate(shifted, axis=-1)
    patches *= jax.lax.rsqrt(jnp.square(patches).mean(axis=-1, keepdims=True) + CONTRAST_FLOOR)
    return patches @ layer["filters"] - layer["offset"].reshape(1, 1, 1, -1)


@functools.lru_cache(maxsize=8)
def make_layer(
    seed: int, channels: int, filter_side: int, num_first: int, patch_side: int, count: int
) -> dict[str, np.ndarray]:
    """Learns the second layer from dead leaves (seconds).

    The arrays are shared by all callers and read-only.

    Args:
        seed: seed of the images and of k-means.
        channels: channels of an image.
        filter_side: side of the first layer's filters in pixels.
        num_first: their number, even.
        patch_side: side of a patch in cells.
        count: number of filters, even. Filter count / 2 + k is the mirror image of filter k.
    """
    numbers = np.random.default_rng([seed, channels, filter_side, num_first, patch_side, count])
    first = make_filters(seed, channels, filter_side, num_first)
    maps = _sample_maps(first, -(-PATCHES_PER_FILTER * count // PATCHES_PER_IMAGE), channels, filter_side, numbers)
    center, basis, signs = _fit_components(maps.reshape(-1, maps.shape[-1]))
    patches = _sample_patches((maps - center) @ basis, patch_side, PATCHES_PER_FILTER * count, numbers)
    # A mirror image of a patch: columns in reverse order, and the sign of each component.
    mirror = np.arange(patches.shape[1]).reshape(patch_side, patch_side, -1)[:, ::-1].ravel()
    signs = np.tile(signs, patch_side**2)
    filters, offset = fit_filters(patches, lambda vectors: vectors[:, mirror] * signs, count, numbers)
    return to_read_only({"center": center, "basis": basis, "filters": filters, "offset": offset})


def _sample_maps(
    first: tuple[np.ndarray, np.ndarray], count: int, channels: int, side: int, numbers: np.random.Generator
) -> np.ndarray:
    """Computes mean responses of the first layer to synthetic images, `[count, cells, cells, maps]`.

    Maps come in two halves: those of the filters that are read, and of their mirror images.
    """
    filters, offset = first
    half = len(offset) // 2
    chosen = np.concatenate([np.arange(start, start + min(MAX_READ // 2, half)) for start in (0, half)])
    filters, offset = filters[:, chosen], offset[chosen]
    places = dead_leaves.SIDE - side + 1
    cells = max(1, places // CELL_SIDE)
    width = min(CELL_SIDE, places)
    maps = np.empty((count, cells, cells, 2, 2, len(chosen) // 2), np.float32)
    for index in range(count):
        image = dead_leaves.sample_images(1, channels, numbers)[0]
        windows = np.lib.stride_tricks.sliding_window_view(image, (side, side), axis=(0, 1))
        windows = windows[: cells * width, : cells * width].transpose(0, 1, 3, 4, 2)
        patches = normalize_patches(windows.reshape(-1, side * side * channels), contrast_floor(channels))
        responses = (patches @ filters - offset).reshape(cells, width, cells, width, 2, -1)
        for sign in (0, 1):
            exceeding = np.maximum((1 - 2 * sign) * responses - THRESHOLD, 0)
            maps[index, :, :, :, sign] = exceeding.mean(axis=(1, 3))
    return maps.reshape(count, cells, cells, -1)


def _fit_components(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fits principal components of maps `[n, maps]` and their mirror images.

    Returns:
        center `[maps]`, basis `[maps, components]`, scaled such that the components have a mean square of 1 together,
        and signs `[components]`: 1 for symmetric components, -1 for antisymmetric ones.
    """
    first, second = np.split(maps, 2, axis=1)
    center = (first.mean(axis=0) + second.mean(axis=0)) / 2
    first, second = first - center, second - center
    values, vectors, signs = [], [], []
    for sign in (1, -1):
        # Symmetric and antisymmetric combinations are uncorrelated, since mirror images are equally frequent.
        combined = (first + sign * second) / np.sqrt(2)
        variances, directions = np.linalg.eigh(np.float64(combined.T @ combined) / len(combined))
        values.append(variances)
        vectors.append(np.concatenate([directions, sign * directions]) / np.sqrt(2))
        signs.append(np.full(len(variances), sign))
    values, vectors, signs = np.concatenate(values), np.concatenate(vectors, axis=1), np.concatenate(signs)
    chosen = np.argsort(-values, kind="stable")[:COMPONENTS]
    scale = np.sqrt(max(values[chosen].mean(), 1e-12))
    return np.tile(center, 2), np.float32(vectors[:, chosen] / scale), signs[chosen]


def _sample_patches(components: np.ndarray, side: int, count: int, numbers: np.random.Generator) -> np.ndarray:
    """Samples patches of cells at random places, scaled as in `respond`: `[count, patch]`."""
    windows = np.lib.stride_tricks.sliding_window_view(components, (side, side), axis=(1, 2))
    places = [numbers.integers(0, length, count) for length in windows.shape[:3]]
    patches = windows[tuple(places)].transpose(0, 2, 3, 1).reshape(count, -1)
    return patches / np.sqrt(np.square(patches).mean(axis=1, keepdims=True) + CONTRAST_FLOOR)
