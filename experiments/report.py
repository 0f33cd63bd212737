"""Writes a run as one HTML file that can be sent: what it learned when, what it draws, what it confuses.

    python -m experiments.report --workdir=runs/digits

writes report.html into the workdir, of a run that has finished or is under way. `learn` does so at its end.
Takes a few seconds. Run it from a checkout of the repository.
"""

from __future__ import annotations

from experiments import launcher

launcher.define_workdir()


def main() -> None:
    """Flags to one call of `report.of_run`."""
    # Here, so that --help and flags that are wrong are answered before JAX is imported.
    from lifelong_cvae.runs import html_report

    print(f"wrote {html_report.report_run(launcher.workdir())}")


if __name__ == "__main__":
    launcher.run(main)
