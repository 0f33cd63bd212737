"""Compares settings: a grid of whole runs, and a table of their figures.

    python -m experiments.compare --study=size --dataset=idx:DIR --workdir=results/size --order_seeds=1,2,3

writes a JSON file per run and comparison.md into the workdir. It can be broken off: a run whose file is
there is not run again. `size`: with and without a mixed part, over parameters a category, with all images
and with few (about an hour for three orders of MNIST on two CPU cores). Run it from a checkout of the
repository.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from experiments import launcher
from lifelong_cvae import comparison, preset

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Folder of the figures: new, or one to go on with.", required=True)
launcher.define_data_and_settings()
launcher.define_judging()
launcher.define_seed()
flags.DEFINE_enum("study", "size", list(comparison.STUDIES), "What to compare.")
flags.DEFINE_list("order_seeds", ["1"], "Seeds of the random orders in which categories arrive.")


def main() -> None:
    """Flags to one call of `comparison.compare`."""
    print(
        comparison.compare(
            Path(FLAGS.workdir),
            FLAGS.study,
            FLAGS.dataset,
            preset(FLAGS.preset).with_settings(launcher.settings_of(FLAGS.set)),
            order_seeds=launcher.whole_numbers("order_seeds", FLAGS.order_seeds),
            seed=FLAGS.seed,
            validation_fraction=FLAGS.validation_fraction,
            evaluate_on=FLAGS.evaluate_on,
            samples=FLAGS.samples,
            judges=Path(FLAGS.judges),
        )
    )


if __name__ == "__main__":
    launcher.run(main)
