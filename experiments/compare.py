"""Compares strategies: a grid of whole runs, and tables of their figures.

    python -m experiments.compare --dataset=mnist5k --strategies=all --seeds=1

writes a JSON file per run, comparison.json, comparison.md and over_time.png into results/STUDY/DATASET, or
into --workdir. It can be broken off: a run whose file is there is not run again. Studies: `strategies` (each
as it is), `few_images` (10, 30, 100, 300 or all images in each new category), `circle` (turns of the circle,
and each term on remembered pairs left out in turn), `size` (parameters a category). Run it from a checkout
of the repository; it needs the extras `evaluation` and `figures`.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from experiments import launcher
from experiments.studies import grids

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Folder of the figures; default results/STUDY/DATASET.")
launcher.define_data()
launcher.define_settings()
launcher.define_judging()
flags.DEFINE_enum("study", "strategies", list(grids.STUDIES), "What to compare.")
flags.DEFINE_list("strategies", None, "Presets to compare; all: every strategy of the study, as without the flag.")
flags.DEFINE_list("seeds", ["1", "2", "3"], "A run for each; also seeds of the order of the categories.")
flags.DEFINE_integer("categories_per_task", 1, "Categories that arrive at once.", lower_bound=1)
flags.DEFINE_bool("figures", True, "Draw figures (the extra `figures`).")


def main() -> None:
    """Flags to one call of `comparison.compare`."""
    everything = FLAGS.strategies in (None, ["all"])
    tables = grids.compare(
        Path(FLAGS.workdir or Path("results") / FLAGS.study / Path(FLAGS.dataset.split(":")[-1]).stem),
        FLAGS.study,
        FLAGS.dataset,
        options=launcher.options(),
        strategies=None if everything else FLAGS.strategies,
        categories_per_task=FLAGS.categories_per_task,
        settings=launcher.settings_of(FLAGS.set),
        seeds=launcher.whole_numbers("seeds", FLAGS.seeds),
        validation_fraction=FLAGS.validation_fraction,
        evaluate_on=FLAGS.evaluate_on,
        samples=FLAGS.samples,
        classifiers_dir=Path(FLAGS.judges),
        draw=FLAGS.figures,
    )
    print(tables)


if __name__ == "__main__":
    launcher.run(main)
