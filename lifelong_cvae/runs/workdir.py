"""The folder of a run: begun or gone on with by one process at a time, and never from what is damaged."""

from __future__ import annotations

import contextlib
import fcntl
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lifelong_cvae import checkpoints
from lifelong_cvae.checkpoints import orbax_store
from lifelong_cvae.checkpoints.task import load_task, save_task
from lifelong_cvae.data import Source
from lifelong_cvae.distributed import broadcast_from_main, run_on_main
from lifelong_cvae.errors import DamageError, InputError
from lifelong_cvae.files import (
    device_description,
    draft_path,
    keep_lines,
    package_versions,
    read_lines,
    with_digest,
    write_json,
)
from lifelong_cvae.runs.config import RunConfig, read_config_file, read_run_config
from lifelong_cvae.state import LifelongState
from lifelong_cvae.training.train import TaskProgress

LOCK = ".lock"
WITHIN = "within_task"
# Left where a run died before it had begun.
REMAINS = (LOCK, draft_path(Path("config.json")).name)


class RunProgress(NamedTuple):
    """Where a run stands."""

    state: LifelongState
    history: list[dict[str, Any]]  # a line of metrics.jsonl for each task that is learned


def resume_command(workdir: Path) -> str:
    """The command that goes on with a run."""
    return f"python -m experiments.learn --workdir={shlex.quote(str(workdir))} --resume"


def load_state(workdir: Path) -> LifelongState:
    """The newest state of the run in a folder.

    Raises:
        InputError: there is no run, it has not finished a task, or its newest checkpoint is damaged; then it
            says which command goes on from an earlier one.
    """
    read_run_config(workdir)
    try:
        return checkpoints.load(workdir / "checkpoints")
    except DamageError as error:
        raise InputError(f"{error}; {resume_command(workdir)} would go on from the newest that is not") from error


@contextlib.contextmanager
def lock_workdir(workdir: Path) -> Iterator[None]:
    """Holds a folder that exists: one process writes into it. The lock ends with its owner, however it dies.

    Raises:
        InputError: another process is writing there.
    """
    with (workdir / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{workdir}: another process is writing there, wait for its end") from error
        yield


@contextlib.contextmanager
def open_run(
    workdir: Path,
    run_config: RunConfig,
    source: Source,
    fresh: LifelongState,
    *,
    resumes: bool,
    log_fn: Callable[[str], None],
) -> Iterator[RunProgress]:
    """The folder of a run, begun or gone on with, and locked as long as this lasts.

    The first process does it; the others read what it has found.

    Args:
        workdir: the folder.
        run_config: what to do.
        source: the images.
        fresh: a state that knows nothing.
        resumes: whether the run is to go on.
        log_fn: told a line for each checkpoint that is damaged.

    Raises:
        InputError: it cannot be begun or gone on with; nothing has been changed then.
    """
    with contextlib.ExitStack() as held:

        def begun() -> RunProgress:
            if resumes:
                read_run_config(workdir)
            else:
                check_new_workdir(workdir)
                workdir.mkdir(parents=True, exist_ok=True)
            held.enter_context(lock_workdir(workdir))
            begins = resume_run(workdir, run_config, source, fresh, log_fn=log_fn) if resumes else None
            return begins or start_run(workdir, run_config, source, fresh)

        found = run_on_main(begun)
        learned = broadcast_from_main(found and len(found.history))
        yield found or _follow(workdir, learned, fresh)


def _follow(workdir: Path, learned: int, fresh: LifelongState) -> RunProgress:
    """Where a run stands that another process goes on with, after so many tasks."""
    state = checkpoints.load(workdir / "checkpoints", step=learned) if learned else fresh
    return RunProgress(state, read_lines(workdir / "metrics.jsonl")[:learned])


def check_new_workdir(workdir: Path) -> None:
    """Raises InputError where a folder holds something already."""
    if workdir.exists() and (not workdir.is_dir() or any(path.name not in REMAINS for path in workdir.iterdir())):
        raise InputError(f"{workdir} holds something already: a new folder is expected, or --resume to go on")


def start_run(workdir: Path, run_config: RunConfig, source: Source, fresh: LifelongState) -> RunProgress:
    """A run that starts in a folder that is free, and its own, from a state that knows nothing."""
    check_new_workdir(workdir)
    _write_config(workdir, run_config, source)
    return RunProgress(fresh, [])


def resume_run(
    workdir: Path, run_config: RunConfig, source: Source, fresh: LifelongState, *, log_fn: Callable[[str], None]
) -> RunProgress:
    """A run that goes on from its newest checkpoint that is not damaged; those that are, are moved aside.

    Raises:
        InputError: it was begun otherwise, or its lines are damaged; nothing has been changed then.
    """
    recorded = read_config_file(workdir)
    before = RunConfig.from_dict(recorded)
    now = _flat_settings(run_config)
    for name, value in _flat_settings(before).items():
        if now[name] != value:
            raise InputError(f"{workdir} was begun with {name}={value}: --resume cannot change it to {now[name]}")
    if run_config.tasks[: len(before.tasks)] != before.tasks:
        raise InputError(
            f"{workdir} was begun with the tasks {_tasks_text(before.tasks)}: "
            "more can be added after them, nothing else"
        )
    if recorded.get("fingerprint") != source.fingerprint:
        raise InputError(f"{source.name} is not the data that {workdir} was begun with: its images have changed")
    damaged: list[DamageError] = []
    folder = workdir / "checkpoints"
    found = orbax_store.read_newest(folder, lambda step: checkpoints.load(folder, step=step), damaged.append)
    learned, state = found or (0, fresh)
    history = keep_lines(workdir / "metrics.jsonl", learned)
    for error in damaged:
        quarantine(folder, error, log_fn)
    _write_config(workdir, run_config, source)
    return RunProgress(state, history)


def quarantine(folder: Path, error: DamageError, log_fn: Callable[[str], None]) -> None:
    """Takes a damaged checkpoint out of a folder, and says so."""
    log_fn(f"{error}; moved to {orbax_store.move_checkpoint(folder, error.step, folder.parent / 'damaged')}")


class TaskCheckpointer:
    """What is saved of a task while it is learned.

    Args:
        workdir: of the run.
        task: its number, from 1.
        state: before the task.
        names: the categories of the task.
        log_fn: told a line for each checkpoint that is damaged.
    """

    def __init__(
        self,
        workdir: Path,
        task: int,
        state: LifelongState,
        names: Sequence[str],
        *,
        log_fn: Callable[[str], None],
    ):
        self._state, self._names, self._say = state, names, log_fn
        self._all = workdir / WITHIN
        self._folder = self._all / str(task)
        self._teacher: str | None = None

    def load(self) -> TaskProgress | None:
        """Where the task was when the run ended; what is of another task, or of another state, is removed.

        The first process removes it; the others then read what is left.
        """
        found = run_on_main(self._load)
        there = broadcast_from_main(found is not None)
        return load_task(self._folder, self._state, self._names) if there and found is None else found

    def _load(self) -> TaskProgress | None:
        if not self._all.is_dir():
            return None
        for path in self._all.iterdir():
            if path != self._folder:
                shutil.rmtree(path)
        found = load_task(
            self._folder,
            self._state,
            self._names,
            damaged=lambda error: quarantine(self._folder, error, self._say),
        )
        if found is None:
            shutil.rmtree(self._all)
        return found

    def save(self, at: TaskProgress) -> None:
        """Saves where the task is."""
        if self._teacher is None:
            self._teacher = checkpoints.digest(self._state)
        save_task(self._folder, at, self._teacher)


def clear_task_checkpoints(workdir: Path) -> None:
    """Removes what was saved within a task, once it is learned and has a checkpoint of its own."""
    shutil.rmtree(workdir / WITHIN, ignore_errors=True)


def _flat_settings(run_config: RunConfig) -> dict[str, Any]:
    """All that a resumed run must share with the one it goes on with, flat: name to value."""
    plain = run_config.to_dict()
    del plain["tasks"]
    plain.update(plain.pop("options"))
    for section in plain.pop("config").values():
        plain.update(section)
    return plain


def _write_config(workdir: Path, run_config: RunConfig, source: Source) -> None:
    values = {
        **run_config.to_dict(),
        "image_shape": list(source.image_shape),
        "fingerprint": source.fingerprint,
        "versions": package_versions(),
        "device": device_description(),
    }
    write_json(workdir / "config.json", with_digest(values))


def _tasks_text(tasks: Sequence[Sequence[str]]) -> str:
    return "; ".join(", ".join(names) for names in tasks)
