"""Figures of a run: imagined images, reconstructions, the circle, and walks in latent space."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lifelong_cvae import plotting, sampling
from lifelong_cvae.data import Source
from lifelong_cvae.data.files import read_npz
from lifelong_cvae.errors import InputError
from lifelong_cvae.files import atomic_write
from lifelong_cvae.images import flatten_images, to_float, to_uint8
from lifelong_cvae.model import cvae, mixture_prior
from lifelong_cvae.model.vectors import is_vector
from lifelong_cvae.runs import vector_figures
from lifelong_cvae.state import LifelongState, category_rng

IMAGES_PER_ROW = 10
# Numbers of turns of the circle after which an image is shown.
TURNS = (0, 1, 2, 3, 5, 10)
# Extent of a latent walk to both sides of the mean, in standard deviations.
WALK_REACH = 2.0


def sample_grid(state: LifelongState, *, rng: jax.Array) -> dict[str, jax.Array]:
    """Imagines a row of images `[IMAGES_PER_ROW, h, w, c]` of each category."""
    return sampling.imagine(state, state.names, IMAGES_PER_ROW, rng=rng)


def save_imagined_grid(workdir: Path, images: Mapping[str, jax.Array], task: int) -> None:
    """Writes the images that are imagined after a task as a figure, and as npz for `load_imagined_grid`.

    Args:
        workdir: run directory.
        images: rows of `sample_grid`.
        task: number of the task, from 1.
    """
    file = _imagined_file(workdir, task)
    plotting.image_grid(images, file, title=f"imagined after task {task}")
    rows = np.stack([to_uint8(row) for row in images.values()])
    with atomic_write(file.with_suffix(".npz")) as draft:
        np.savez_compressed(draft, rows=rows, names=np.asarray(list(images)))


def load_imagined_grid(workdir: Path, task: int) -> dict[str, np.ndarray]:
    """Reads the images of `save_imagined_grid`, uint8 `[n, h, w, c]` by category; empty if there are none."""
    try:
        names, rows = read_npz(_imagined_file(workdir, task).with_suffix(".npz"), ("names", "rows"))
    except InputError:  # the run draws no figures, or died before this one
        return {}
    return dict(zip(names.tolist(), rows, strict=True))


def save_final_figures(
    workdir: Path,
    state: LifelongState,
    source: Source,
    split: str,
    history: Sequence[Mapping[str, Any]],
    *,
    rng: jax.Array,
) -> None:
    """Draws all figures of a finished run.

    Args:
        workdir: run directory.
        state: state after the last task.
        source: images, of which those in `split` are shown.
        split: `test` or `validation`.
        history: lines of metrics.jsonl.
        rng: the seed's key.
    """
    folder = workdir / "figures"
    plotting.accuracy_matrix([line["accuracy_per_category"] for line in history], folder / "accuracy.png")
    if is_vector(state.image_shape):
        vector_figures.plot_directions(state, source, split, workdir / vector_figures.FILE, rng=rng)
        return
    plot_over_tasks(workdir, state, len(history))
    plot_reconstructions(state, source, split, folder / "reconstructions.png")
    plot_circle(state, source, split, folder / "circle.png", rng=rng)
    plot_latent_walk(state, folder / "walk.png")
    if len(state.names) > 1:
        plot_interpolation(state, folder / "interpolation.png", rng=rng)


def plot_over_tasks(workdir: Path, state: LifelongState, tasks: int) -> None:
    """Draws the first imagined image of each category after each task, at the same latent points."""
    blank = np.zeros((1, *state.image_shape), np.uint8)
    rows = {}
    for task in range(1, tasks + 1):
        if images := load_imagined_grid(workdir, task):
            rows[f"after task {task}"] = np.stack([images.get(name, blank)[0] for name in state.names])
    if rows:
        title = "first imagined image of each category"
        plotting.image_grid(rows, workdir / "figures/over_tasks.png", title=title)


def plot_reconstructions(state: LifelongState, source: Source, split: str, file: Path) -> None:
    """Draws images of a split and their reconstructions, two rows per category."""
    rows = {}
    for name in state.names:
        images = source.read(split, name, slice(IMAGES_PER_ROW))
        images = np.pad(images, [(0, IMAGES_PER_ROW - len(images)), (0, 0), (0, 0), (0, 0)])
        rows[name] = images
        rows[f"{name}, reconstructed"] = sampling.reconstruct(state, name, images)
    plotting.image_grid(rows, file, title=f"{split} images and reconstructions")


def plot_circle(state: LifelongState, source: Source, split: str, file: Path, *, rng: jax.Array) -> None:
    """Draws a real and an imagined image of each category before and after turns of the circle."""
    rows = circle_images(state, state.names, source, split, rng=rng)
    turns = ", ".join(map(str, TURNS))
    plotting.image_grid(rows, file, title=f"after {turns} turns of the circle")


def circle_images(
    state: LifelongState, names: Sequence[str], source: Source, split: str, *, rng: jax.Array
) -> dict[str, np.ndarray]:
    """Runs a real and an imagined image of each category around the circle: `[TURNS, h, w, c]` by label.

    Args:
        state: the model.
        names: categories.
        source: images, of which the first of each category in `split` is taken.
        split: `test` or `validation`.
        rng: the seed's key.
    """
    rows = {}
    all_imagined = sampling.imagine(state, names, 1, rng=rng)
    for name in names:
        model = state.model(name)
        real = to_float(flatten_images(source.read(split, name, slice(1)), state.image_shape))
        imagined = np.asarray(all_imagined[name]).reshape(1, -1)
        for kind, x in (("real", real), ("imagined", imagined)):
            turns = sampling.circle_images(model, x, max(TURNS), rng=category_rng(rng, name, 0))
            images = np.concatenate([x, np.asarray(turns)[:, 0]])[list(TURNS)]
            rows[f"{name}, {kind}"] = images.reshape(-1, *state.image_shape)
    return rows


def plot_latent_walk(state: LifelongState, file: Path) -> None:
    """Draws a walk through each category's latent space along the direction in which p(z|c) is widest."""
    steps = np.linspace(-WALK_REACH, WALK_REACH, IMAGES_PER_ROW)
    rows = {}
    for name in state.names:
        model = state.model(name)
        mean, stds, directions = mixture_prior.principal_directions(model.prior)
        z = mean + stds[0] * steps[:, None] * directions[0]
        images = _sample_image(model, np.float32(z))
        rows[name] = np.asarray(images).reshape(-1, *state.image_shape)
    plotting.image_grid(rows, file, title="along the widest direction of each latent space")


def plot_interpolation(state: LifelongState, file: Path, *, rng: jax.Array) -> None:
    """Draws a row of images from an imagined image of each category to one of the next.

    Latent spaces of different categories are unrelated, so the two images are mixed, the mixture is reconstructed by
    both categories, and their logits are mixed with the same weight.
    """
    imagined = sampling.imagine(state, state.names, 1, rng=rng)
    weights = np.linspace(0, 1, IMAGES_PER_ROW, dtype=np.float32)[:, None]
    rows = {}
    for first, second in zip(state.names, (*state.names[1:], state.names[0]), strict=True):
        start, end = (np.asarray(imagined[name]).reshape(1, -1) for name in (first, second))
        images = _interpolate(state.model(first), state.model(second), start, end, weights)
        rows[f"{first} to {second}"] = np.asarray(images).reshape(-1, *state.image_shape)
    plotting.image_grid(rows, file, title="from one category to another")


@jax.jit
def _interpolate(
    first: cvae.CategoryModel, second: cvae.CategoryModel, start: jax.Array, end: jax.Array, weights: jax.Array
) -> jax.Array:
    """Interpolates images `[steps, pixels]` from `start` to `end`, weighted by `weights` `[steps, 1]`."""
    mixture = (1 - weights) * start + weights * end
    logits = [model.contrast * cvae.decode(model, cvae.encode(model, mixture).mean) for model in (first, second)]
    return jax.nn.sigmoid((1 - weights) * logits[0] + weights * logits[1])


_sample_image = jax.jit(cvae.sample_image)


def _imagined_file(workdir: Path, task: int) -> Path:
    return workdir / f"figures/imagined_{task:03d}.png"
