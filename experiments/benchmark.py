"""Measures parts of the library, side by side in one process.

    python -m experiments.benchmark --what=playback --output=benchmark.json

`playback`: a training step with 10 and with 100 small earlier categories played back (a minute on two CPU
cores). `agreement`: how far the devices of this machine are from its CPU, in what they learn, say and draw.
`memory`: what a process holds while it learns 50 categories (five minutes). Run it from a checkout of the
repository.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from experiments import launcher
from lifelong_cvae.evaluation import timing

FLAGS = flags.FLAGS
launcher.define_seed()
flags.DEFINE_enum("what", "playback", list(timing.BENCHMARKS), "What to measure.")
flags.DEFINE_string("output", "benchmark.json", "File to write.")


def main() -> None:
    """Flags to one call of `timing.benchmark`."""
    values = timing.benchmark(FLAGS.what, Path(FLAGS.output), seed=FLAGS.seed)
    for name, value in values.items():
        if isinstance(value, float):
            print(f"{name}: {value:.4g}")


if __name__ == "__main__":
    launcher.run(main)
