"""Evaluates a run: recognition, density, generation, novelty detection.

    python -m experiments.evaluate --workdir=runs/digits

writes evaluation.json into the run directory. The reference classifier, a small classifier of real images, is trained
on the first call (a minute or two on two CPU cores for 60,000 images) and kept in --judges. Run the command from a
checkout of the repository; it needs the extra `evaluation`.
"""

from __future__ import annotations

from typing import Any

from absl import flags

from experiments import common_flags, launcher

FLAGS = flags.FLAGS
common_flags.define_workdir()
common_flags.define_seed()
common_flags.define_evaluation()
common_flags.define_moved_data()
flags.DEFINE_integer("cycles", 0, "Turns of the circle before an imagined image is evaluated.", lower_bound=0)
flags.DEFINE_string("unknown", None, f"Data set whose images serve as unknown: {common_flags.DATASETS}.")

# Label of a row of the table to key, factor, unit and digits.
ROWS = {
    "Fréchet distance": ("frechet_distance", 1, "", 2),
    "precision": ("precision", 1, "", 3),
    "recall": ("recall", 1, "", 3),
    "density": ("density", 1, "", 3),
    "coverage": ("coverage", 1, "", 3),
    "reference classifier agrees": ("agreement", 100, " %", 2),
    "regression agrees": ("ridge_agreement", 100, " %", 2),
    "fitting capacity": ("fitting_capacity", 100, " %", 2),
    "fitting capacity, ridge": ("ridge_capacity", 100, " %", 2),
}


def main() -> None:
    """Evaluates the run that the flags name, and prints its metrics."""
    # Imported here, so that --help and errors in flags do not wait for JAX.
    from lifelong_cvae.runs.evaluate import evaluate_run

    values = evaluate_run(
        common_flags.workdir(),
        common_flags.path("judges"),
        samples=FLAGS.samples,
        cycles=FLAGS.cycles,
        seed=FLAGS.seed,
        unknown=FLAGS.unknown,
        dataset=FLAGS.dataset,
    )
    print("\n".join(_lines(values)))


def _lines(values: dict[str, Any]) -> list[str]:
    generation, nearest = values["generation"], values["generation"]["nearest"]
    per_task, bounds = generation["per_task"], values["density"]
    table = [f"{'':<28}{'imagined':>12}{'real images':>14}"]
    for label, (key, factor, unit, digits) in ROWS.items():
        if key not in generation["imagined"]:  # vectors lack some
            continue
        imagined, floor = (f"{factor * generation[kind][key]:.{digits}f}{unit}" for kind in ("imagined", "floor"))
        table.append(f"{label:<28}{imagined:>12}{floor:>14}")
    for octave in generation["imagined"].get("spectrum", {}).get("octaves", ()):
        ratios = (generation[kind]["spectrum"]["octaves"][octave] for kind in ("imagined", "floor"))
        table.append(
            f"power, {octave} cycles per image".ljust(28)
            + "".join(f"{ratio:>{width}.2f}" for ratio, width in zip(ratios, (12, 14), strict=True))
        )
    novelty = ", ".join(f"{kind} {value:.3f}" for kind, value in values["novelty"].items())
    return [
        f"accuracy {100 * values['recognition']['accuracy']:.2f} %",
        f"ELBO {bounds['elbo']:.1f}, importance-weighted bound {bounds['importance_bound']:.1f} nats per image",
        *table,
        f"mean over tasks: Fréchet distance {per_task['frechet_distance']:.2f}, "
        f"precision {per_task['precision']:.3f}, recall {per_task['recall']:.3f} (of distributions)",
        f"distance to the nearest training image: {nearest['ratio']:.2f} times that of held-out images, "
        f"{nearest['ratio_reconstructed']:.2f} times that of their reconstructions",
        f"AUROC against unknown images: {novelty}",
    ]


if __name__ == "__main__":
    launcher.run(main)
