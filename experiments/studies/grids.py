"""Grids of runs that make up each study, and `compare`, which runs a study.

A strategy is a preset. The presets of `STRATEGIES` share all settings except those of the ideas that they are named
for.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax

from experiments.studies import plots, store, tables
from experiments.studies.cells import FLOOR_LABELS, Cell, floor, run_cells
from lifelong_cvae.config import REPLAY_TERMS, Config, LearningConfig
from lifelong_cvae.data import SourceOptions, hold_out, make_tasks, open_source
from lifelong_cvae.errors import InputError, use_package
from lifelong_cvae.evaluation.reference_classifier import load_or_train
from lifelong_cvae.files import write_json
from lifelong_cvae.presets import preset
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.state import init, parameters_per_category

STRATEGIES = ("joint", "finetune", "playback", "circulatory", "free", "frozen", "none", "full")
TURNS = (0, 1, 2, 3, 5, 10)
IMAGES = (10, 30, 100, 300, "all")
SIZES = (50_000, 100_000, 200_000, 400_000, 1_000_000)
# Training images per new category in the studies of size and memory, and number of first categories that keep all
# images in those of size and few images.
FEW, FULL_CATEGORIES = 100, 3
# Rank of a category's map to the pixels as a fraction of the width of its layers, by mixed mode.
RANK_OF_WIDTH = {"frozen": 0.75, "playback": 0.75, "free": 0.75, "none": 0.45}


def strategies_study(run_config: RunConfig, strategy: str) -> list[Cell]:
    """Returns one cell with the strategy unchanged. `joint` learns all categories in one task."""
    categories_per_task: int | str = len(run_config.tasks[0])
    if strategy == "joint":
        categories_per_task = "all"
        run_config = replace(run_config, tasks=(tuple(itertools.chain(*run_config.tasks)),))
    return [Cell(run_config, {"strategy": strategy, "categories a task": categories_per_task})]


def few_images_study(run_config: RunConfig, strategy: str) -> list[Cell]:
    """Varies the number of training images in each category after the first `FULL_CATEGORIES`."""
    return [
        Cell(_with_images(run_config, images), {"strategy": strategy, "images a new category": images})
        for images in IMAGES
    ]


def circle_study(run_config: RunConfig, strategy: str) -> list[Cell]:
    """Varies the turns of the circle before replay, and leaves out each replay term in turn.

    The other of these settings have the defaults of `LearningConfig`: one turn, all terms.
    """
    defaults = {
        name: getattr(LearningConfig, name) for name in ("cycles", *(f"{term}_weight" for term in REPLAY_TERMS))
    }
    changes: dict[str, dict[str, Any]] = {f"{turns} turns": {"cycles": turns} for turns in TURNS}
    changes |= {f"without {term}": {f"{term}_weight": 0.0} for term in REPLAY_TERMS}
    return [
        Cell(
            replace(run_config, config=run_config.config.with_settings({**defaults, **change})),
            {"strategy": strategy, "changed": label},
        )
        for label, change in changes.items()
    ]


def size_study(run_config: RunConfig, strategy: str, image_shape: Sequence[int]) -> list[Cell]:
    """Varies the parameters per category, with all images and with `FEW` images per category."""
    return [
        Cell(
            replace(_with_images(run_config, images), config=fit_size(run_config.config, image_shape, parameters)),
            {"parameters": parameters, "strategy": strategy, "images a new category": images},
        )
        for parameters, images in itertools.product(SIZES, ("all", FEW))
    ]


def memory_study(run_config: RunConfig, strategy: str, images: int | str) -> list[Cell]:
    """Freezes the mixed part, or lets it learn under memory playback, with so many images a category."""
    run_config = _with_images(run_config, images, full_categories=0)
    return [
        Cell(
            replace(run_config, config=run_config.config.with_settings({"mixed_mode": mode})),
            {"strategy": strategy, "mixed part": mode, "images a category": images},
        )
        for mode in ("frozen", "playback")
    ]


@dataclass(frozen=True)
class Study:
    """Definition of a study.

    Attributes:
        strategies: presets that take part by default.
        cells: function of a strategy's run config, its name and the image shape that returns its cells.
        columns: kinds of figures in its tables (`tables.COLUMNS`).
    """

    strategies: tuple[str, ...]
    cells: Callable[[RunConfig, str, Sequence[int]], list[Cell]]
    columns: tuple[str, ...] = ("recognition", "generation")


STUDIES = {
    "strategies": Study(STRATEGIES, lambda run_config, name, _: strategies_study(run_config, name)),
    "few_images": Study(("none", "frozen", "full"), lambda run_config, name, _: few_images_study(run_config, name)),
    "circle": Study(("full", "circulatory"), lambda run_config, name, _: circle_study(run_config, name)),
    "memory": Study(("default",), lambda run_config, name, _: memory_study(run_config, name, "all")),
    "memory_few": Study(("default",), lambda run_config, name, _: memory_study(run_config, name, FEW)),
    "size": Study(("frozen", "none"), size_study),
}


def fit_size(config: Config, image_shape: Sequence[int], parameters: int) -> Config:
    """Returns settings with the widest categories that stay within a number of parameters.

    Args:
        config: settings. Those of the mixed part are kept.
        image_shape: shape of an image.
        parameters: maximal number of parameters that a category appends.

    Raises:
        InputError: one neuron per layer needs more parameters.
    """

    def with_width(width: int) -> Config:
        rank = max(1, round(RANK_OF_WIDTH[config.learning.mixed_mode] * width))
        widths = (width,) * len(config.network.mixed_widths)
        return replace(config, network=replace(config.network, category_widths=widths, output_rank=rank))

    def size(width: int) -> int:
        init_state = partial(init, with_width(width), image_shape)
        return parameters_per_category(jax.eval_shape(lambda rng: init_state(rng=rng), jax.random.key(0)))

    # A layer with as many neurons as parameters is always too wide.
    width = bisect.bisect_right(range(1, parameters), parameters, key=size)
    if width < 1:
        raise InputError(f"parameters per category: expected at least {size(1)}, got {parameters}")
    return with_width(width)


def compare(
    folder: Path,
    study_name: str,
    dataset: str,
    *,
    options: SourceOptions | None = None,
    strategies: Sequence[str] | None = None,
    categories_per_task: int = 1,
    settings: Mapping[str, Any],
    seeds: Sequence[int],
    validation_fraction: float,
    evaluate_on: str,
    samples: int,
    classifiers_dir: Path,
    draw: bool = True,
    log_fn: Callable[[str], None] = print,
) -> str:
    """Runs a study, and writes its figures, `comparison.json`, `comparison.md` and curves to a folder.

    Each run writes a JSON file when it ends, so that an interrupted study can be resumed. At the end `store.pack`
    merges these files.

    Args:
        folder: new folder, or one of an interrupted or an earlier call.
        study_name: one of `STUDIES`.
        dataset: value of `--dataset`.
        options: options of opening the data.
        strategies: presets; default those of the study.
        categories_per_task: number of categories that arrive at once.
        settings: settings that replace those of every strategy.
        seeds: seeds of the runs, which also determine the order of the categories.
        validation_fraction: fraction of each training category that is held out.
        evaluate_on: `test` or `validation`.
        samples: imagined images of all categories together.
        classifiers_dir: folder that keeps trained reference classifiers.
        draw: whether to draw curves (needs matplotlib).
        log_fn: receives a line per run.

    Returns:
        The tables, as in `comparison.md`.

    Raises:
        InputError: bad data or settings, a folder with figures of other runs, or a missing extra.
    """
    if not seeds:
        raise InputError("seeds: expected at least one, got none")
    use_package("sklearn")
    if draw:
        use_package("matplotlib")
    study = STUDIES[study_name]
    options = SourceOptions() if options is None else options
    source = hold_out(open_source(dataset, options), validation_fraction)
    classifier = functools.cache(lambda: load_or_train(source, classifiers_dir))
    cells = []
    for seed, strategy in itertools.product(seeds, strategies or study.strategies):
        run_config = RunConfig(
            dataset=dataset,
            options=options,
            tasks=make_tasks(source.categories, order_seed=seed, categories_per_task=categories_per_task),
            validation_fraction=validation_fraction,
            seed=seed,
            evaluate_on=evaluate_on,
            config=preset(strategy).with_settings(settings),
        )
        for cell in study.cells(run_config, strategy, source.image_shape):
            cells.append(replace(cell, labels={**cell.labels, "seed": seed}))
    figures = run_cells(cells, folder, source, classifier, samples=samples, log_fn=log_fn)
    floor_figures = floor(folder, source, classifier, evaluate_on, samples=samples)
    store.pack(folder)
    text = _write_tables(folder, [*figures, {**floor_figures, "labels": FLOOR_LABELS}], study.columns)
    if draw:
        plots.plot_over_time(figures, folder / "over_time.png")
    return text


def _write_tables(folder: Path, figures: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    rows = tables.aggregate_rows(figures)
    write_json(folder / "comparison.json", {"rows": rows})
    text = "\n".join(tables.markdown(rows, kind) for kind in columns)
    (folder / "comparison.md").write_text(text, encoding="utf-8")
    return text


def _with_images(run_config: RunConfig, images: int | str, *, full_categories: int = FULL_CATEGORIES) -> RunConfig:
    if images == "all":
        return run_config
    return replace(run_config, images_per_category=images, full_categories=full_categories)
