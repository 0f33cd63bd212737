"""Writes the report of a run: one HTML file with its images, accuracies, confusions and settings.

    python -m experiments.report --workdir=runs/digits

writes report.html into the workdir of a run that has finished, is still learning, or was stopped. `learn` writes the
same file at its end. Takes a few seconds. Run it from a checkout of the repository.
"""

from __future__ import annotations

from absl import flags

from experiments import common_flags, launcher

common_flags.define_workdir()
common_flags.define_moved_data()


def main() -> None:
    """Calls `html_report.report_run` with the flags."""
    # Imported here, so that --help and wrong flags are answered before JAX is imported.
    from lifelong_cvae.runs import html_report

    print(f"wrote {html_report.report_run(common_flags.workdir(), flags.FLAGS.dataset)}")


if __name__ == "__main__":
    launcher.run(main)
