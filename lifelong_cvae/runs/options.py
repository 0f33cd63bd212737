"""Options of a run that do not affect what it learns."""

from collections.abc import Callable
from dataclasses import dataclass

from jax.sharding import Mesh

from lifelong_cvae.config import CHECKPOINT_EVERY


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that do not affect what it learns.

    Attributes:
        keep_all: keep the checkpoints of all tasks, not only of the last three.
        checkpoint_every: seconds between checkpoints within a task, written at the end of a chunk of steps.
        draw: draw figures; needs matplotlib.
        tensorboard: write TensorBoard events; None writes them if tensorboardX is installed.
        write_report: write `report.html` at the end; None writes it if Jinja2 is installed.
        log_fn: called with a line after every task and for every damaged checkpoint.
        should_stop: polled after every chunk and every task. If it is true in any process, the run saves and stops.
        mesh: devices for learning and recognition (`sharding.make_mesh`).
        lookahead: number of tasks that are trained side by side where the mixed part does not learn
            (`learn_many`); results are the same but for rounding. The images of all of them are in memory at once.
        compile_ahead: compile the large programs in threads while the first images are read and learned. It is not
            done with a mesh.
    """

    keep_all: bool = False
    checkpoint_every: float = CHECKPOINT_EVERY
    draw: bool = True
    tensorboard: bool | None = None
    write_report: bool | None = None
    log_fn: Callable[[str], None] = print
    should_stop: Callable[[], bool] = lambda: False
    mesh: Mesh | None = None
    lookahead: int = 1
    compile_ahead: bool = True
