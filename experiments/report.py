"""Writes the report of a run: one HTML file with its images, accuracies, confusions and settings.

    python -m experiments.report --workdir=runs/digits

writes report.html into the workdir of a run that has finished, is still learning, or was stopped. `learn` writes the
same file at its end. Takes a few seconds. Run it from a checkout of the repository.
"""

from __future__ import annotations

from experiments import launcher

launcher.define_workdir()


def main() -> None:
    """Calls `html_report.report_run` with the flags."""
    # Imported here, so that --help and wrong flags are answered before JAX is imported.
    from lifelong_cvae.runs import html_report

    print(f"wrote {html_report.report_run(launcher.workdir())}")


if __name__ == "__main__":
    launcher.run(main)
