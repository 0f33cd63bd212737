"""Evaluates what a run has learned: recognition, density, generation, novelty.

    python -m experiments.evaluate --workdir=runs/digits

writes evaluation.json into the workdir. The judge, a small classifier of real images, is trained on the
first call (a minute or two on two CPU cores for 60,000 images) and kept in --judges. Run it from a checkout
of the repository; it needs the extra `evaluation`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags

from experiments import launcher

FLAGS = flags.FLAGS
launcher.define_workdir()
launcher.define_seed()
launcher.define_judging()
flags.DEFINE_integer("cycles", 0, "Turns of the circle before an image is judged.", lower_bound=0)
flags.DEFINE_string("unknown", None, f"A data set whose images should look novel: {launcher.DATASETS}.")


def main() -> None:
    """Flags to one call of `assessment.evaluate`."""
    # Here, so that --help and flags that are wrong are answered before JAX is imported.
    from lifelong_cvae.runs.evaluate import evaluate_run

    values = evaluate_run(
        launcher.workdir(),
        Path(FLAGS.judges),
        samples=FLAGS.samples,
        cycles=FLAGS.cycles,
        seed=FLAGS.seed,
        unknown=FLAGS.unknown,
    )
    print("\n".join(_lines(values)))


def _lines(values: dict[str, Any]) -> list[str]:
    generation, nearest = values["generation"], values["generation"]["nearest"]
    task, bounds = generation["per_task"], values["density"]
    rows = {
        "Fréchet distance": ("frechet_distance", 1, "", 2),
        "precision": ("precision", 1, "", 3),
        "recall": ("recall", 1, "", 3),
        "density": ("density", 1, "", 3),
        "coverage": ("coverage", 1, "", 3),
        "the judge agrees": ("agreement", 100, " %", 2),
        "fitting capacity": ("fitting_capacity", 100, " %", 2),
    }
    table = [f"{'':<20}{'imagined':>12}{'real images':>14}"]
    for label, (key, factor, unit, digits) in rows.items():
        cells = (f"{factor * generation[kind][key]:.{digits}f}{unit}" for kind in ("imagined", "floor"))
        table.append(f"{label:<20}{next(cells):>12}{next(cells):>14}")
    novelty = ", ".join(f"{kind} {value:.3f}" for kind, value in values["novelty"].items())
    return [
        f"accuracy {100 * values['recognition']['accuracy']:.2f} %",
        f"ELBO {bounds['elbo']:.1f}, importance-weighted bound {bounds['importance_bound']:.1f} nats",
        *table,
        f"per task: Fréchet distance {task['frechet_distance']:.2f}, precision {task['precision']:.3f}, "
        f"recall {task['recall']:.3f} (of distributions)",
        f"nearest training image at {nearest['ratio']:.2f} times the distance of held-out images', "
        f"{nearest['ratio_reconstructed']:.2f} times that of their reconstructions",
        f"novelty, AUROC: {novelty}",
    ]


if __name__ == "__main__":
    launcher.run(main)
