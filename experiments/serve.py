"""Opens a page to play with what a run has learned: draw, imagine, teach it a new category.

    python -m experiments.serve --workdir=runs/digits

serves http://127.0.0.1:8000/ to browsers on this machine, until Ctrl+C. What was taught on the page is saved
into taught/ in the workdir when it is asked for, and is there again the next time. Run it from a checkout of
the repository.
"""

from __future__ import annotations

from absl import flags

from experiments import launcher

FLAGS = flags.FLAGS
launcher.define_workdir()
launcher.define_seed()
flags.DEFINE_integer("port", 8000, "Port of the page; 0: a free one.", lower_bound=0, upper_bound=65535)
flags.DEFINE_bool("taught", True, "Go on with what was taught and saved before, where there is such.")


def main() -> None:
    """Flags to one call of `live.open_page`."""
    # Here, so that --help and flags that are wrong are answered before JAX is imported.
    from lifelong_cvae import webapp

    webapp.open_page(launcher.workdir(), port=FLAGS.port, seed=FLAGS.seed, taught=FLAGS.taught)


if __name__ == "__main__":
    launcher.run(main)
