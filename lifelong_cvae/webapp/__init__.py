"""Live page: categories of a run are drawn, imagined and taught in a browser."""

from pathlib import Path

from lifelong_cvae import checkpoints
from lifelong_cvae.checkpoints import orbax_store
from lifelong_cvae.errors import use_package
from lifelong_cvae.model.vectors import refuse_vectors
from lifelong_cvae.runs.workdir import load_state


def open_page(workdir: Path, *, port: int, seed: int = 0, taught: bool = True) -> None:
    """Serves the live page of a run at 127.0.0.1 until the process is interrupted.

    Args:
        workdir: run directory.
        port: TCP port; 0 selects a free one.
        seed: seed of learning and sampling on the page.
        taught: whether to start from the state that was last saved on the page, if there is one.

    Raises:
        InputError: no run, a run on vectors, a damaged checkpoint, a port in use, or a missing package.
    """
    for module in ("starlette", "uvicorn"):
        use_package(module)
    from lifelong_cvae.webapp.server import serve
    from lifelong_cvae.webapp.session import TAUGHT_DIR, Session

    state = load_state(workdir)
    refuse_vectors(state.image_shape, "serve")
    if taught and orbax_store.steps(workdir / TAUGHT_DIR):
        state = checkpoints.load(workdir / TAUGHT_DIR)
        print(f"loaded {len(state.names)} categories from {workdir / TAUGHT_DIR}: {', '.join(state.names)}")
    serve(Session(state, workdir, seed=seed), port)
