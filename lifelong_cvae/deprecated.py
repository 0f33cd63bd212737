"""Names of version 0.1 that 0.2 still accepts, and the tables from old to new.

Each accepted name logs one line. The tables also translate checkpoints and run directories that 0.1 wrote, without a
log line.
"""

from __future__ import annotations

import functools
import logging

# Old public name to new one.
PUBLIC_NAMES = {"recognise": "recognize", "recogniser": "make_recognizer"}

_logger = logging.getLogger("lifelong_cvae")


@functools.cache
def warn(old: str, new: str) -> None:
    """Logs once per process that `old` is now called `new`."""
    _logger.warning("%s is deprecated and will be removed in version 0.3: use %s", old, new)
