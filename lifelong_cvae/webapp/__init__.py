"""The live page: a state that is played with in a browser."""

from __future__ import annotations

from pathlib import Path

from lifelong_cvae import checkpoints
from lifelong_cvae.checkpoints import orbax_store
from lifelong_cvae.errors import use_package
from lifelong_cvae.runs.workdir import load_state


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
        use_package(module)
    from lifelong_cvae.webapp.server import serve
    from lifelong_cvae.webapp.session import TAUGHT_DIR, Session

    state = load_state(workdir)
    if taught and orbax_store.steps(workdir / TAUGHT_DIR):
        state = checkpoints.load(workdir / TAUGHT_DIR)
        print(f"going on with what was taught: {', '.join(state.names)}")
    serve(Session(state, workdir, seed=seed), port)
