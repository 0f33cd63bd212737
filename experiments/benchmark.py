"""Measures parts of the library on the devices of this machine, and writes the figures as JSON.

    python -m experiments.benchmark --what=roofline

Values of --what (minutes on two CPU cores in brackets):

`roofline`: training, recognizing and imagining relative to the rate of one large matrix product (1).
`playback`: a training step that replays 10 and 100 small earlier categories (1).
`agreement`: differences of each device from the CPU in learning, evidence and imagined images.
`memory`: resident memory of a process that learns 50 categories (5).
`twins`: training steps per second of ours, plain Flax and PyTorch (2).
`twins_ten_categories`: seconds that each of them takes to learn all categories of --dataset in a fresh process.
`accuracy`: seconds to learn --dataset with --preset in a fresh process, and the accuracy.
`together`: several categories in one task, compared with one task each (2).
`growth`: a thousand small categories, learned one after another and recognized (10).
`thousand`: a thousand categories of a thousand images, learned in one task; for an accelerator.
`vectors`: vectors of --dataset, one category a task in three orders, beside joint methods (10).
`thousand_vectors`: a thousand small categories of vectors, in one task and one by one (20).
`accelerator`: whole runs on --dataset, `thousand`, `roofline`, `agreement`, `together` and `twins`, each in a process
of its own, in at most 9 minutes. Figures are written after each.

Run it from a checkout of the repository.
"""

from __future__ import annotations

import sys

import jax
from absl import flags

from experiments import common_flags, launcher
from experiments.benchmarks import registry
from experiments.benchmarks.config import BenchmarkConfig
from experiments.studies import tables
from lifelong_cvae import preset
from lifelong_cvae.data import open_source
from lifelong_cvae.presets import PRESETS

FLAGS = flags.FLAGS
common_flags.define_data()
common_flags.define_seed()
common_flags.define_settings()
flags.DEFINE_enum("preset", "default", list(PRESETS), "Settings to start from.")
flags.DEFINE_enum("what", "playback", list(registry.BENCHMARKS), "Benchmark to run.")
flags.DEFINE_enum(
    "precision",
    "default",
    ["default", "float32", "tensorfloat32", "bfloat16"],
    "Precision of matrix products in training, on devices that have a choice; --set=compute_dtype=bfloat16 computes "
    "networks in bfloat16.",
)
flags.DEFINE_string("output", "runs/benchmark.json", "File to write. Its folder is created.")


def main() -> None:
    """Runs the benchmark that the flags name, and prints its figures as Markdown tables."""
    benchmark_config = BenchmarkConfig(
        seed=FLAGS.seed,
        config=preset(FLAGS.preset).with_settings(common_flags.parse_settings(FLAGS.set)),
        open_source=lambda: open_source(FLAGS.dataset, common_flags.source_options()),
        flags={name: FLAGS[name].value for name in ("dataset", "preset", "set", "precision")},
    )
    precision = None if FLAGS.precision == "default" else FLAGS.precision
    with jax.default_matmul_precision(precision):
        values = registry.run_benchmark(FLAGS.what, common_flags.path("output"), benchmark_config)
    sys.stdout.write(tables.benchmark_markdown(values))


if __name__ == "__main__":
    launcher.run(main)
