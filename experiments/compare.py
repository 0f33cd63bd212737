"""Compares strategies in a grid of runs, and writes tables of their figures.

    python -m experiments.compare --dataset=mnist5k --strategies=all --seeds=1

writes cells.json (the figures of every run), comparison.json, comparison.md and over_time.png to
results/STUDY/DATASET, or to --workdir. While it runs, each finished run has a JSON file of its own. An interrupted
study can be resumed with the same command: finished runs are not repeated. Studies: `strategies` (each unchanged),
`few_images` (10, 30, 100, 300 or all images in each new category), `circle` (turns of the circle, and each replay term
left out in turn), `memory` (the mixed part frozen or learning under playback), `memory_few` (the same with 100 images
of each category), `size` (parameters per category). Run it from a checkout of the repository; it needs the extras
`evaluation` and `figures`.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from experiments import common_flags, launcher
from experiments.studies import grids

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Folder of the figures; default results/STUDY/DATASET.")
common_flags.define_data()
common_flags.define_settings()
common_flags.define_evaluation()
flags.DEFINE_enum("study", "strategies", list(grids.STUDIES), "Study to run.")
flags.DEFINE_list("strategies", None, "Presets to compare; default, or all: every strategy of the study.")
flags.DEFINE_list("seeds", ["1", "2", "3"], "Seeds of the runs and of the order of the categories.")
flags.DEFINE_integer("categories_per_task", 1, "Categories that arrive at once.", lower_bound=1)
flags.DEFINE_bool("figures", True, "Draw curves (needs the extra `figures`).")


def main() -> None:
    """Calls `grids.compare` with the flags, and prints the tables."""
    all_strategies = FLAGS.strategies in (None, ["all"])
    tables = grids.compare(
        common_flags.path("workdir") or Path("results") / FLAGS.study / Path(FLAGS.dataset.split(":")[-1]).stem,
        FLAGS.study,
        FLAGS.dataset,
        options=common_flags.source_options(),
        strategies=None if all_strategies else FLAGS.strategies,
        categories_per_task=FLAGS.categories_per_task,
        settings=common_flags.parse_settings(FLAGS.set),
        seeds=common_flags.parse_whole_numbers("seeds", FLAGS.seeds),
        validation_fraction=FLAGS.validation_fraction,
        evaluate_on=FLAGS.evaluate_on,
        samples=FLAGS.samples,
        classifiers_dir=common_flags.path("judges"),
        draw=FLAGS.figures,
    )
    print(tables)


if __name__ == "__main__":
    launcher.run(main)
