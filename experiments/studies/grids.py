"""Comparisons: which runs a study is made of, and running them into a folder.

A strategy is a preset. `STRATEGIES` says what each idea is worth: everything that is not named there is
the same for all of them.
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

from experiments.studies import plots, tables
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
# In studies with few images the first categories have all of theirs.
FEW, FULL_CATEGORIES = 100, 3
# Rank of the map to the pixels, as a part of the width of a category's layers.
RANK_OF_WIDTH = {"frozen": 0.75, "playback": 0.75, "free": 0.75, "none": 0.45}


def strategies_study(run_config: RunConfig, strategy: str) -> list[Cell]:
    """A strategy as it is; `joint` meets all categories in one task."""
    label: int | str = len(run_config.tasks[0])
    if strategy == "joint":
        label, run_config = "all", replace(run_config, tasks=(tuple(itertools.chain(*run_config.tasks)),))
    return [Cell(run_config, {"strategy": strategy, "categories a task": label})]


def few_images_study(run_config: RunConfig, strategy: str) -> list[Cell]:
    """Few training images in each category after the first `FULL_CATEGORIES`."""
    return [
        Cell(_with_images(run_config, images), {"strategy": strategy, "images a new category": images})
        for images in IMAGES
    ]


def circle_study(run_config: RunConfig, strategy: str) -> list[Cell]:
    """Turns of the circle before a memory serves, and each term on remembered pairs left out in turn.

    Everything else is as `LearningConfig` has it: one turn, all terms.
    """
    all_terms = {
        name: getattr(LearningConfig, name) for name in ("cycles", *(f"{term}_weight" for term in REPLAY_TERMS))
    }
    changes: dict[str, dict[str, Any]] = {f"{turns} turns": {"cycles": turns} for turns in TURNS}
    changes |= {f"without {term}": {f"{term}_weight": 0.0} for term in REPLAY_TERMS}
    return [
        Cell(
            replace(run_config, config=run_config.config.with_settings({**all_terms, **change})),
            {"strategy": strategy, "changed": label},
        )
        for label, change in changes.items()
    ]


def size_study(run_config: RunConfig, strategy: str, image_shape: Sequence[int]) -> list[Cell]:
    """Parameters a category, with all images and with `FEW` in each category after the first ones."""
    return [
        Cell(
            replace(_with_images(run_config, images), config=fit_size(run_config.config, image_shape, parameters)),
            {"parameters": parameters, "strategy": strategy, "images a new category": images},
        )
        for parameters, images in itertools.product(SIZES, ("all", FEW))
    ]


@dataclass(frozen=True)
class Study:
    """What a study varies.

    Attributes:
        strategies: presets that take part unless others are asked for.
        cells: cells of one strategy, from its run_config, its name and the shape of the images.
        columns: kinds of figures in its tables (`tables.COLUMNS`).
    """

    strategies: tuple[str, ...]
    cells: Callable[[RunConfig, str, Sequence[int]], list[Cell]]
    columns: tuple[str, ...] = ("recognition", "generation")


STUDIES = {
    "strategies": Study(STRATEGIES, lambda run_config, name, _: strategies_study(run_config, name)),
    "few_images": Study(("none", "frozen", "full"), lambda run_config, name, _: few_images_study(run_config, name)),
    "circle": Study(("full", "circulatory"), lambda run_config, name, _: circle_study(run_config, name)),
    "size": Study(("frozen", "none"), size_study),
}


def fit_size(config: Config, image_shape: Sequence[int], parameters: int) -> Config:
    """The settings with category widths that give as many parameters a category as possible, not more.

    Args:
        config: settings; those of the mixed part stay.
        image_shape: of the data.
        parameters: the most that a category may append.

    Raises:
        InputError: not even one neuron fits.
    """

    def with_width(width: int) -> Config:
        rank = max(1, round(RANK_OF_WIDTH[config.learning.mixed_mode] * width))
        widths = (width,) * len(config.network.mixed_widths)
        return replace(config, network=replace(config.network, category_widths=widths, rank=rank))

    def size(width: int) -> int:
        learner = partial(init, with_width(width), image_shape)
        return parameters_per_category(jax.eval_shape(lambda rng: learner(rng=rng), jax.random.key(0)))

    # Wider than the number of parameters is too wide in any case.
    width = bisect.bisect_right(range(1, parameters), parameters, key=size)
    if width < 1:
        raise InputError(f"{parameters} parameters a category: at least {size(1)} are expected")
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
    """Runs a study into a folder, which takes a JSON file per run, `comparison.json`, `.md` and figures.

    Args:
        folder: new, or one to go on with.
        study_name: one of `STUDIES`.
        dataset: as `--dataset` names it.
        options: how it is opened.
        strategies: presets; default those of the study.
        categories_per_task: how many arrive at once.
        settings: single settings that replace those of every strategy.
        seeds: a run each; a seed is also that of the order in which categories arrive.
        validation_fraction: part of each training category to hold out.
        evaluate_on: `test` or `validation`.
        samples: imagined images of all categories together.
        classifiers_dir: folder that keeps trained judges.
        draw: whether to draw figures (needs matplotlib).
        log_fn: told a line per run.

    Returns:
        The tables, as `comparison.md` holds them.

    Raises:
        InputError: bad data or settings, the folder holds other runs, or an extra is missing.
    """
    if not seeds:
        raise InputError("seeds: at least one is expected")
    use_package("sklearn")
    if draw:
        use_package("matplotlib")
    chosen = STUDIES[study_name]
    options = SourceOptions() if options is None else options
    source = hold_out(open_source(dataset, options), validation_fraction)
    classifier = functools.cache(lambda: load_or_train(source, classifiers_dir))
    cells = []
    for seed, strategy in itertools.product(seeds, strategies or chosen.strategies):
        run_config = RunConfig(
            dataset=dataset,
            options=options,
            tasks=make_tasks(source.categories, order_seed=seed, categories_per_task=categories_per_task),
            validation_fraction=validation_fraction,
            seed=seed,
            evaluate_on=evaluate_on,
            config=preset(strategy).with_settings(settings),
        )
        for cell in chosen.cells(run_config, strategy, source.image_shape):
            cells.append(replace(cell, labels={**cell.labels, "seed": seed}))
    results = run_cells(cells, folder, source, classifier, samples=samples, log_fn=log_fn)
    floor_figures = floor(folder, source, classifier, evaluate_on, samples=samples)
    return _write(folder, results, floor_figures, chosen.columns, draw=draw)


def _write(
    folder: Path,
    results: Sequence[Mapping[str, Any]],
    floor_figures: Mapping[str, Any],
    columns: Sequence[str],
    *,
    draw: bool,
) -> str:
    rows = tables.aggregate_rows([*results, {**floor_figures, "labels": FLOOR_LABELS}])
    write_json(folder / "comparison.json", {"rows": rows})
    text = "\n".join(tables.markdown(rows, kind) for kind in columns)
    (folder / "comparison.md").write_text(text, encoding="utf-8")
    if draw:
        plots.plot_over_time(results, folder / "over_time.png")
    return text


def _with_images(run_config: RunConfig, images: int | str) -> RunConfig:
    if images == "all":
        return run_config
    return replace(run_config, images_per_category=images, full_categories=FULL_CATEGORIES)
