"""Recognizes images among the categories that a run has learned.

    python -m experiments.recognize --workdir=runs/digits --images=pictures/ --output=answers.csv

writes a row per image, in the order given: index, category, probability, log_evidence (nats), unknown. It takes a few
seconds. Run it from a checkout of the repository.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from experiments import launcher
from lifelong_cvae.config import REJECT_RATE

FLAGS = flags.FLAGS
launcher.define_workdir()
launcher.define_seed()
flags.DEFINE_string(
    "images",
    None,
    "Images: an .npz with `images`, an IDX file, a PNG or JPEG, or a folder of these. Pictures are scaled like those "
    "that the run was trained on, if it had an --image_size.",
    required=True,
)
launcher.define_recognizer("Recognizer; default that of the run.")
flags.DEFINE_integer(
    "candidates",
    None,
    "Compute the evidence of this number of categories per image only, chosen by a fast rule. Faster for many "
    "categories; for the recognizers elbo and combined. Default all categories.",
)
flags.DEFINE_float(
    "reject",
    REJECT_RATE,
    "Fraction of the images of known categories that may be called unknown; 0 rejects nothing.",
    lower_bound=0,
    upper_bound=0.999,
)
flags.DEFINE_string("output", None, "CSV file to write.", required=True)


def main() -> None:
    """Calls `columns.write_predictions`."""
    # Imported here so that --help and flag errors do not wait for JAX.
    from lifelong_cvae.data.files import read_images
    from lifelong_cvae.runs import columns
    from lifelong_cvae.runs.config import read_run_config
    from lifelong_cvae.runs.workdir import load_state

    state = load_state(launcher.workdir())
    images = read_images(
        Path(FLAGS.images),
        channels=state.image_shape[-1],
        image_size=read_run_config(launcher.workdir()).options.image_size,
    )
    columns.write_predictions(
        state,
        images,
        Path(FLAGS.output),
        recognizer=FLAGS.recognizer,
        candidates=FLAGS.candidates,
        seed=FLAGS.seed,
        reject=FLAGS.reject,
    )


if __name__ == "__main__":
    launcher.run(main)
