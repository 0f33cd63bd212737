"""Keeps the full text of errors that a launcher reports in one line."""

import os
import tempfile
import traceback
from pathlib import Path


def record(error: BaseException | None) -> str:
    """Appends the traceback of an error to a file of this process, and returns the file's name."""
    file = Path(tempfile.gettempdir(), f"lifelong_cvae_error_{os.getpid()}.log")
    try:
        with file.open("a", encoding="utf-8") as stream:
            stream.write("".join(traceback.format_exception(error)) if error else "unknown error\n")
    except OSError as problem:
        return f"no file ({problem})"
    return str(file)
