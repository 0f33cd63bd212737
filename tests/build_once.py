"""Folders that are filled once for all pytest workers."""

import fcntl
import os
import shutil


def build_once(tmp_path_factory, name, build):
    """Returns a folder that the first worker that needs it fills. Tests only read it.

    Args:
        tmp_path_factory: fixture of pytest.
        name: name of the folder, unique among the tests.
        build: called with the empty folder. If it raises, the next worker calls it again.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each worker has a subfolder
    folder, finished = root / name, root / f"{name}.finished"
    with (root / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            build(folder)
            finished.touch()
    return folder
