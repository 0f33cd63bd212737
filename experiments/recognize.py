"""Recognizes images among the categories that a run has learned.

    python -m experiments.recognize --workdir=runs/digits --images=pictures/ --output=answers.csv

writes a row per image, in the order given: index, category, probability, log_evidence (nats), unknown, file. It takes a
few seconds. Run it from a checkout of the repository.
"""

from __future__ import annotations

import sys

from absl import flags

from experiments import common_flags, launcher
from lifelong_cvae.config import REJECT_RATE

FLAGS = flags.FLAGS
common_flags.define_workdir()
common_flags.define_seed()
flags.DEFINE_string(
    "images",
    None,
    "Images: an .npz with `images`, an IDX file, a picture, or a folder of pictures. Pictures are scaled like those "
    "that the run was trained on, if it had an --image_size. Vectors: an .npz with `images` [n, d].",
    required=True,
)
common_flags.define_recognizer("Recognizer; default that of the run.")
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
    from lifelong_cvae.data.pictures import read_images, read_vectors
    from lifelong_cvae.runs import columns
    from lifelong_cvae.runs.config import read_run_config
    from lifelong_cvae.runs.workdir import load_state

    state, path = load_state(common_flags.workdir()), common_flags.path("images")
    if state.networks.is_vector:
        images, files, skipped = read_vectors(path)
    else:
        image_size = read_run_config(common_flags.workdir()).options.image_size
        images, files, skipped = read_images(path, channels=state.image_shape[-1], image_size=image_size)
    if skipped:
        print(skipped, file=sys.stderr)
    columns.write_predictions(
        state,
        images,
        common_flags.path("output"),
        files=files,
        recognizer=FLAGS.recognizer,
        candidates=FLAGS.candidates,
        seed=FLAGS.seed,
        reject=FLAGS.reject,
    )


if __name__ == "__main__":
    launcher.run(main)
