"""Serves a live page: draw images, see them recognized, imagine categories, and teach new ones.

    python -m experiments.serve --workdir=runs/digits

serves http://127.0.0.1:8000/ to browsers on this machine, until Ctrl+C. The page opens after about ten seconds. Its
button "Save" writes a checkpoint into taught/ in the workdir, from which the next call continues. Run it from a
checkout of the repository.
"""

from __future__ import annotations

from absl import flags

from experiments import common_flags, launcher

FLAGS = flags.FLAGS
common_flags.define_workdir()
common_flags.define_seed()
flags.DEFINE_integer("port", 8000, "Port of the page; 0 selects a free one.", lower_bound=0, upper_bound=65535)
flags.DEFINE_bool("taught", True, "Continue from the state that was last saved on the page, if there is one.")


def main() -> None:
    """Calls `webapp.open_page` with the flags."""
    # Imported here, so that --help and wrong flags are answered before JAX is imported.
    from lifelong_cvae import webapp

    webapp.open_page(common_flags.workdir(), port=FLAGS.port, seed=FLAGS.seed, taught=FLAGS.taught)


if __name__ == "__main__":
    launcher.run(main)
