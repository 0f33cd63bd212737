"""The figures of a run: what it imagines, how that changes from task to task, what the circle does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae import plotting, sampling
from lifelong_cvae.data import Source
from lifelong_cvae.data.files import read_npz
from lifelong_cvae.errors import InputError
from lifelong_cvae.files import atomic_write
from lifelong_cvae.images import flatten_images, to_float
from lifelong_cvae.model import cvae, mixture_prior
from lifelong_cvae.state import LifelongState, category_rng

IMAGES_PER_ROW = 10
TURNS = (0, 1, 2, 3, 5, 10)
# A walk through a latent space reaches so many standard deviations to both sides of the mean.
WALK_REACH = 2.0


def sample_grid(state: LifelongState, *, rng: jax.Array) -> dict[str, jax.Array]:
    """A row of imagined images `[n, h, w, c]` of each category."""
    return sampling.imagine(state, state.names, IMAGES_PER_ROW, rng=rng)


def save_imagined_grid(workdir: Path, images: Mapping[str, jax.Array], task: int) -> None:
    """A grid of what is imagined after a task; the images stay beside it, for `drawn_after`."""
    file = _imagined_file(workdir, task)
    plotting.image_grid(images, file, title=f"imagined after task {task}")
    rows = np.stack([np.rint(255 * np.asarray(row)).astype(np.uint8) for row in images.values()])
    with atomic_write(file.with_suffix(".npz")) as draft:
        np.savez_compressed(draft, rows=rows, names=np.asarray(list(images)))


def load_imagined_grid(workdir: Path, task: int) -> dict[str, np.ndarray]:
    """What `imagined` drew after a task: uint8 `[n, h, w, c]` of each category; empty where nothing was."""
    try:
        names, rows = read_npz(_imagined_file(workdir, task).with_suffix(".npz"), ("names", "rows"))
    except InputError:  # a run that was drawn without figures, or died before this one
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
    """All figures of a run that has learned its last task.

    Args:
        workdir: of the run.
        state: the last one.
        source: the images; `split` of it is drawn.
        split: `test` or `validation`.
        history: lines of metrics.jsonl.
        rng: the seed's key.
    """
    folder = workdir / "figures"
    plotting.accuracy_matrix([line["accuracy_per_category"] for line in history], folder / "accuracy.png")
    plot_over_tasks(workdir, state, len(history))
    plot_reconstructions(state, source, split, folder / "reconstructions.png")
    plot_circle(state, source, split, folder / "circle.png", rng=rng)
    plot_latent_walk(state, folder / "walk.png")
    if len(state.names) > 1:
        plot_interpolation(state, folder / "interpolation.png", rng=rng)


def plot_over_tasks(workdir: Path, state: LifelongState, tasks: int) -> None:
    """What the model draws after each task, a row for each: the same latents, image by image."""
    rows = {}
    for task in range(1, tasks + 1):
        blank = np.zeros((1, *state.image_shape), np.uint8)
        if drawn := load_imagined_grid(workdir, task):
            rows[f"after task {task}"] = np.stack([drawn.get(name, blank)[0] for name in state.names])
    if rows:
        title = "the first image that each category imagines"
        plotting.image_grid(rows, workdir / "figures/over_tasks.png", title=title)


def plot_reconstructions(state: LifelongState, source: Source, split: str, file: Path) -> None:
    """Images of a split and what their categories make of them."""
    rows = {}
    for name in state.names:
        images = source.read(split, name)[:IMAGES_PER_ROW]
        rows[name] = images = np.pad(images, [(0, IMAGES_PER_ROW - len(images)), (0, 0), (0, 0), (0, 0)])
        rows[f"{name}, reconstructed"] = sampling.reconstruct(state, name, images)
    plotting.image_grid(rows, file, title=f"{split} images and reconstructions")


def plot_circle(state: LifelongState, source: Source, split: str, file: Path, *, rng: jax.Array) -> None:
    """An image of each category before and after turns of the circle: a real one, and an imagined one."""
    rows = circle_images(state, state.names, source, split, rng=rng)
    turns = ", ".join(map(str, TURNS))
    plotting.image_grid(rows, file, title=f"after {turns} turns of the circle")


def circle_images(
    state: LifelongState, names: Sequence[str], source: Source, split: str, *, rng: jax.Array
) -> dict[str, np.ndarray]:
    """A real and an imagined image of each name after TURNS turns of the circle, `[turns, h, w, c]`."""
    rows = {}
    for name in names:
        model = state.model(name)
        x = to_float(jnp.asarray(flatten_images(source.read(split, name)[:1], state.image_shape)))
        drawn = sampling.imagine(state, [name], 1, rng=rng)[name].reshape(1, -1)
        key = category_rng(rng, name, 0)
        for kind, image in (("real", x), ("imagined", drawn)):
            rows[f"{name}, {kind}"] = _run_circle(model, image, rng=key).reshape(-1, *state.image_shape)
    return rows


def plot_latent_walk(state: LifelongState, file: Path) -> None:
    """A walk through each category's latent space: along the direction in which p(z|c) is widest."""
    steps = np.linspace(-WALK_REACH, WALK_REACH, IMAGES_PER_ROW)
    rows = {}
    for name in state.names:
        model = state.model(name)
        mean, covariance = mixture_prior.mean_and_covariance(model.prior)
        variances, directions = np.linalg.eigh(covariance)
        z = mean + np.sqrt(variances[-1]) * steps[:, None] * directions[:, -1]
        drawn = _draw(model, jnp.asarray(z, jnp.float32))
        rows[name] = np.asarray(drawn).reshape(-1, *state.image_shape)
    plotting.image_grid(rows, file, title="along the widest direction of each latent space")


def plot_interpolation(state: LifelongState, file: Path, *, rng: jax.Array) -> None:
    """From an imagined image of each category to one of the next.

    Latent spaces of different categories have nothing in common, so images are mixed first; what is drawn
    is how the two categories see the mixture, their logits weighed as it is.
    """
    drawn = sampling.imagine(state, state.names, 1, rng=rng)
    weights = jnp.linspace(0, 1, IMAGES_PER_ROW)[:, None]
    rows = {}
    for first, second in zip(state.names, (*state.names[1:], state.names[0]), strict=True):
        ends = [drawn[name].reshape(1, -1) for name in (first, second)]
        images = _between(state.model(first), state.model(second), *ends, weights)
        rows[f"{first} to {second}"] = np.asarray(images).reshape(-1, *state.image_shape)
    plotting.image_grid(rows, file, title="from one category to another")


@jax.jit
def _between(
    first: cvae.CategoryModel, second: cvae.CategoryModel, start: jax.Array, end: jax.Array, weights: jax.Array
) -> jax.Array:
    """Images `[steps, pixels]` from `start` to `end` `[1, pixels]`; weights of the second `[steps, 1]`."""
    mixture = (1 - weights) * start + weights * end
    logits = [model.contrast * cvae.decode(model, cvae.encode(model, mixture).mean) for model in (first, second)]
    return jax.nn.sigmoid((1 - weights) * logits[0] + weights * logits[1])


_draw = jax.jit(cvae.sample_image)


def _run_circle(model: cvae.CategoryModel, x: jax.Array, *, rng: jax.Array) -> np.ndarray:
    """An image `[1, pixels]` after each of TURNS turns of one circle, as the category draws it."""
    shown = [x]
    for turn in range(max(TURNS)):
        x, drawn = _turn(model, x, jax.random.fold_in(rng, turn))
        shown.append(drawn)
    return np.concatenate([shown[turns] for turns in TURNS])


@jax.jit
def _turn(model: cvae.CategoryModel, x: jax.Array, rng: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The image that goes on in the circle, and what is drawn of it."""
    z, x = cvae.circulate(model, jnp.zeros((len(x), model.networks.latent_size)), x, 1, rng=rng)
    return x, cvae.sample_image(model, z)


def _imagined_file(workdir: Path, task: int) -> Path:
    return workdir / f"figures/imagined_{task:03d}.png"
