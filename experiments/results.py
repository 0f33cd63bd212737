"""Writes the tables of a document anew from the figures in results/.

    python -m experiments.results

rewrites what stands between the marks of RESULTS.md (see lifelong_cvae/documents.py); with --check it writes
nothing, and exits with 1 where the document is not up to date. Run it from a checkout of the repository.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from experiments import launcher
from experiments.studies import documents

FLAGS = flags.FLAGS
flags.DEFINE_string("document", "RESULTS.md", "The Markdown file.")
flags.DEFINE_bool("check", False, "Write nothing; exit with 1 where the tables are not up to date.")


def main() -> None:
    """Flags to one call of `documents.refresh`."""
    file = Path(FLAGS.document)
    changes = documents.update_document(file, Path(), check=FLAGS.check)
    state = "is not up to date" if changes and FLAGS.check else "written" if changes else "is up to date"
    print(f"{file} {state}")
    if changes and FLAGS.check:
        sys.exit(1)


if __name__ == "__main__":
    launcher.run(main)
