"""Imagines images of the categories that a run has learned.

    python -m experiments.imagine --workdir=runs/digits --output=imagined.png

writes a labeled grid, or with --output=FILE.npz `images` (uint8 [n, h, w, c]) and `labels` (strings [n]). It takes a
few seconds. Run it from a checkout of the repository.
"""

from __future__ import annotations

from absl import flags

from experiments import common_flags, launcher

FLAGS = flags.FLAGS
common_flags.define_workdir()
common_flags.define_seed()
flags.DEFINE_integer("per_category", 10, "Images per category.", lower_bound=1)
flags.DEFINE_list(
    "categories",
    None,
    'Categories in the order of the output; default all, in order of learning. Quote names that hold commas: a,"b, c".',
)
flags.DEFINE_integer("cycles", 0, "Turns of the circle before an image is kept.", lower_bound=0)
flags.DEFINE_string("output", None, "File to write: .npz or .png.", required=True)


def main() -> None:
    """Calls `columns.write_samples`."""
    # Imported here so that --help and flag errors do not wait for JAX.
    from lifelong_cvae.runs import columns
    from lifelong_cvae.runs.workdir import load_state

    state = load_state(common_flags.workdir())
    columns.write_samples(
        state,
        state.names if FLAGS.categories is None else FLAGS.categories,
        FLAGS.per_category,
        common_flags.path("output"),
        seed=FLAGS.seed,
        cycles=FLAGS.cycles,
    )


if __name__ == "__main__":
    launcher.run(main)
