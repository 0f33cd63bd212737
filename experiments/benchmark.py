"""Measures parts of the library, side by side in one process, on whatever device there is.

    python -m experiments.benchmark --what=roofline --output=benchmark.json

`roofline`: training, recognizing and imagining against the rate of one large matrix product (a minute on two
CPU cores). `playback`: a training step with 10 and with 100 small earlier categories played back (a minute).
`agreement`: how far the devices of this machine are from its CPU, in what they learn, say and draw. `memory`:
what a process holds while it learns 50 categories (five minutes). `twins`: training steps a second, ours,
plain Flax's and PyTorch's (two minutes). `twins_ten_categories`: how long each takes to learn all categories
of --dataset, in a fresh process of its own. `accuracy`: how long ours takes with --preset, and what it
recognizes then. `together`: several categories in one task, against one by one (two minutes). `growth`: a
thousand small categories, learned and recognized (ten minutes). Run it from a checkout of the repository.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
from absl import flags

from experiments import launcher
from experiments.benchmarks import registry
from experiments.benchmarks.config import BenchmarkConfig
from experiments.studies import tables
from lifelong_cvae import preset
from lifelong_cvae.data import open_source
from lifelong_cvae.presets import PRESETS

FLAGS = flags.FLAGS
launcher.define_data()
launcher.define_seed()
launcher.define_settings()
flags.DEFINE_enum("preset", "default", list(PRESETS), "Settings to start from.")
flags.DEFINE_enum("what", "playback", list(registry.BENCHMARKS), "What to measure.")
flags.DEFINE_enum(
    "precision",
    "default",
    ["default", "float32", "tensorfloat32", "bfloat16"],
    "Of matrix products in training, on the devices that have a choice; --set=compute=bfloat16 computes "
    "networks in bfloat16.",
)
flags.DEFINE_string("output", "benchmark.json", "File to write.")


def main() -> None:
    """Flags to one call of `benchmark`; prints its figures as the documents show them."""
    setting = BenchmarkConfig(
        seed=FLAGS.seed,
        config=preset(FLAGS.preset).with_settings(launcher.settings_of(FLAGS.set)),
        open_source=lambda: open_source(FLAGS.dataset, launcher.options()),
        recorded={name: FLAGS[name].value for name in ("preset", "set", "precision")},
    )
    precision = None if FLAGS.precision == "default" else FLAGS.precision
    with jax.default_matmul_precision(precision):
        values = registry.benchmark(FLAGS.what, Path(FLAGS.output), setting)
    sys.stdout.write(tables.benchmark_markdown(values))


if __name__ == "__main__":
    launcher.run(main)
