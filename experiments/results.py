"""Updates the tables of a document from the figures in results/.

    python -m experiments.results

replaces the text between the marks of RESULTS.md (see experiments/studies/documents.py). With --check it writes
nothing, and exits with 1 if a table is out of date. Run it from a checkout of the repository.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from experiments import common_flags, launcher
from experiments.studies import documents

FLAGS = flags.FLAGS
flags.DEFINE_string("document", "RESULTS.md", "Markdown file.")
flags.DEFINE_bool("check", False, "Write nothing; exit with 1 if a table is out of date.")


def main() -> None:
    """Calls `documents.update_document` with the flags."""
    file = common_flags.path("document")
    changed = documents.update_document(file, Path(), check=FLAGS.check)
    print(f"{file} {'is up to date' if not changed else 'is out of date' if FLAGS.check else 'written'}")
    if changed and FLAGS.check:
        sys.exit(1)


if __name__ == "__main__":
    launcher.run(main)
