"""The live page: a state that is played with in a browser."""

from __future__ import annotations

from pathlib import Path

from lifelong_cvae import checkpoint, extras, resuming, storage


def open_page(workdir: Path, *, port: int, seed: int = 0, taught: bool = True) -> None:
    """Serves the page of a run at 127.0.0.1 until the process is told to end.

    Args:
        workdir: of the run.
        port: 0: a free one.
        seed: of what is learned and imagined there.
        taught: whether what was taught and saved before is gone on with, where there is such.

    Raises:
        InputError: there is no run, its checkpoint is damaged, the port is taken, or packages are missing.
    """
    for module in ("starlette", "uvicorn"):
        extras.required(True, module, purpose="serving a page", extra="live")
    from lifelong_cvae.live.server import serve
    from lifelong_cvae.live.session import FOLDER, Session

    state = resuming.load_state(workdir)
    if taught and storage.steps(workdir / FOLDER):
        state = checkpoint.load(workdir / FOLDER)
        print(f"going on with what was taught: {', '.join(state.names)}")
    serve(Session(state, workdir, seed=seed), port)
