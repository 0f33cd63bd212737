"""Comparisons: which runs a study is made of, and running them into a folder."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax

from lifelong_cvae import growth
from lifelong_cvae.config import Config
from lifelong_cvae.data import hold_out, open_source, tasks
from lifelong_cvae.errors import InputError
from lifelong_cvae.evaluation.judge import cached
from lifelong_cvae.evaluation.study import Cell, run_cells, table
from lifelong_cvae.plan import Plan

SIZES = (50_000, 100_000, 200_000, 400_000, 1_000_000)
FEW, FULL_CATEGORIES = 100, 3
# Rank of the map to the pixels, as a part of the width of a category's layers.
RANK_OF_WIDTH = {"frozen": 0.75, "playback": 0.75, "free": 0.75, "none": 0.45}


def sized(config: Config, image_shape: Sequence[int], parameters: int) -> Config:
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
        learner = partial(growth.init, with_width(width), image_shape)
        return growth.parameters_per_category(jax.eval_shape(lambda rng: learner(rng=rng), jax.random.key(0)))

    # Wider than the number of parameters is too wide in any case.
    width = bisect.bisect_right(range(1, parameters), parameters, key=size)
    if width < 1:
        raise InputError(f"{parameters} parameters a category: at least {size(1)} are expected")
    return with_width(width)


def size_study(plan: Plan, image_shape: Sequence[int]) -> list[Cell]:
    """With and without a mixed part, over parameters a category, all images and few of them.

    Few: `FEW` training images in each category after the first `FULL_CATEGORIES`.
    """
    cells = []
    for parameters, mode, images in itertools.product(
        SIZES, (plan.config.learning.mixed_mode, "none"), ("all", FEW)
    ):
        config = sized(plan.config.with_settings({"mixed_mode": mode}), image_shape, parameters)
        few = {} if images == "all" else {"images_per_category": images, "full_categories": FULL_CATEGORIES}
        labels = {"parameters": parameters, "mixed part": mode, "images": images}
        cells.append(Cell(replace(plan, config=config, **few), labels))
    return cells


def compare(
    folder: Path,
    study: str,
    dataset: str,
    config: Config,
    *,
    order_seeds: Sequence[int],
    seed: int,
    validation_fraction: float,
    evaluate_on: str,
    samples: int,
    judges: Path,
) -> str:
    """Runs a study into a folder, and returns its table, which `comparison.md` holds too.

    Args:
        folder: takes a JSON file per run.
        study: one of `STUDIES`.
        dataset: as `--dataset` names it.
        config: settings that the study varies.
        order_seeds: the orders in which categories arrive.
        seed: of all else.
        validation_fraction: part of each training category to hold out.
        evaluate_on: `test` or `validation`.
        samples: imagined images of each category.
        judges: folder that keeps trained judges.

    Raises:
        InputError: bad data or settings.
    """
    if not order_seeds:
        raise InputError("order_seeds: at least one is expected")
    source = hold_out(open_source(dataset), validation_fraction)
    judge = cached(source, judges)
    cells = []
    for order_seed in order_seeds:
        plan = Plan(
            dataset=dataset,
            tasks=tasks(source.categories, order_seed=order_seed),
            validation_fraction=validation_fraction,
            seed=seed,
            evaluate_on=evaluate_on,
            config=config,
        )
        for cell in STUDIES[study](plan, source.image_shape):
            cells.append(replace(cell, labels={**cell.labels, "order seed": order_seed}))
    results = run_cells(cells, folder, source, judge, samples=samples)
    text = table(results)
    (folder / "comparison.md").write_text(text, encoding="utf-8")
    return text


STUDIES = {"size": size_study}
