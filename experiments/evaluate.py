"""Evaluates what a run has learned: recognition, density, generation.

    python -m experiments.evaluate --workdir=runs/digits

writes evaluation.json into the workdir. The judge, a small classifier of real images, is trained on the
first call (a minute or two on two CPU cores for 60,000 images) and kept in --judges. Run it from a checkout
of the repository.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from experiments import launcher
from lifelong_cvae import run

FLAGS = flags.FLAGS
launcher.define_workdir()
launcher.define_seed()
launcher.define_judging()
flags.DEFINE_integer("cycles", 0, "Turns of the circle before an image is judged.", lower_bound=0)


def main() -> None:
    """Flags to one call of `run.evaluate`."""
    values = run.evaluate(
        launcher.workdir(), Path(FLAGS.judges), samples=FLAGS.samples, cycles=FLAGS.cycles, seed=FLAGS.seed
    )
    recognition, density, generation = (values[key] for key in ("recognition", "density", "generation"))
    print(
        f"accuracy {100 * recognition['accuracy']:.2f} %; importance-weighted bound "
        f"{density['importance_bound']:.1f} nats; Fréchet distance {generation['frechet_distance']:.1f} "
        f"(floor {generation['frechet_floor']:.1f}); the judge agrees with "
        f"{100 * generation['agreement']:.1f} %; nearest training image at "
        f"{generation['nearest']['ratio']:.2f} times the distance of held-out images', "
        f"{generation['nearest']['ratio_reconstructed']:.2f} times that of their reconstructions"
    )


if __name__ == "__main__":
    launcher.run(main)
