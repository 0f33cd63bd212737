"""A run directory: created, locked and resumed; damaged checkpoints are skipped."""

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lifelong_cvae import checkpoints
from lifelong_cvae.checkpoints import orbax_store
from lifelong_cvae.checkpoints.task import load_task, save_task
from lifelong_cvae.data import Source, hold_out, open_source
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
from lifelong_cvae.runs.lock import LOCK, lock_workdir
from lifelong_cvae.state import LifelongState
from lifelong_cvae.training.train import TaskProgress

TASK_CHECKPOINTS = "within_task"
# Files left by a process that died before its run had started.
LEFTOVERS = (LOCK, draft_path(Path("config.json")).name)


class RunProgress(NamedTuple):
    """Progress of a run."""

    state: LifelongState
    history: list[dict[str, Any]]  # a line of metrics.jsonl for each learned task


def open_run_source(workdir: Path, dataset: str | None = None) -> tuple[RunConfig, Source]:
    """Opens the images of a run, training images that it held out as the split `validation`.

    Args:
        workdir: run directory.
        dataset: where the images are now; default where they were.

    Raises:
        InputError: no run, or its images cannot be opened or are other ones.
    """
    values = read_config_file(workdir)
    config = RunConfig.from_dict(values)
    try:
        source = open_source(dataset or config.dataset, config.options)
    except InputError as error:
        raise InputError(f"{error}; if the images have moved, name their place by --dataset") from error
    check_same_images(workdir, values, source)
    return config, hold_out(source, config.validation_fraction)


def check_same_images(workdir: Path, values: Mapping[str, Any], source: Source) -> None:
    """Raises InputError unless a source has the fingerprint and the white that `config.json` holds."""
    if values.get("fingerprint") != source.fingerprint:
        raise InputError(f"{workdir}: expected the recorded images of {values['dataset']}, got other images")
    white, recorded = source.max_value, values.get("max_value")
    if white != recorded:  # version 0.1 took almost black images for what they are
        raise InputError(f"{workdir}: expected the recorded max_value={recorded}, got {white}; start a new run")


def resume_command(workdir: Path) -> str:
    """Returns the command that resumes a run."""
    return f"python -m experiments.learn --workdir={shlex.quote(str(workdir))} --resume"


def load_state(workdir: Path) -> LifelongState:
    """Loads the newest state of a run.

    Raises:
        InputError: there is no run, it has not finished a task, or its newest checkpoint is damaged. The message
            then names the command that resumes from an earlier one.
    """
    read_run_config(workdir)
    try:
        return checkpoints.load(workdir / "checkpoints")
    except DamageError as error:
        command = resume_command(workdir)
        raise InputError(f"{error}; resume from the newest undamaged checkpoint with {command}") from error


@contextlib.contextmanager
def open_run(
    workdir: Path,
    config: RunConfig,
    source: Source,
    fresh: LifelongState,
    *,
    resume: bool,
    log_fn: Callable[[str], None],
) -> Iterator[RunProgress]:
    """Starts or resumes a run, and locks its directory for the duration of the context.

    The main process does this; the others read the result.

    Args:
        workdir: directory of the run.
        config: configuration of the run.
        source: images.
        fresh: state without categories.
        resume: whether to resume the run.
        log_fn: called with a line for each damaged checkpoint.

    Raises:
        InputError: the run cannot be started or resumed. Nothing has been changed then.
    """
    with contextlib.ExitStack() as stack:

        def open_on_main() -> RunProgress:
            if resume:
                read_run_config(workdir)
            else:
                check_new_workdir(workdir)
                workdir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock_workdir(workdir))
            if resume:
                return resume_run(workdir, config, source, fresh, log_fn=log_fn)
            return start_run(workdir, config, source, fresh)

        progress = run_on_main(open_on_main)
        num_learned = broadcast_from_main(progress and len(progress.history))
        yield progress or _read_progress(workdir, num_learned, fresh)


def _read_progress(workdir: Path, num_learned: int, fresh: LifelongState) -> RunProgress:
    """Reads the progress after `num_learned` tasks, which another process has opened."""
    state = checkpoints.load(workdir / "checkpoints", step=num_learned) if num_learned else fresh
    return RunProgress(state, read_lines(workdir / "metrics.jsonl")[:num_learned])


def check_new_workdir(workdir: Path) -> None:
    """Raises InputError unless the directory is missing or empty."""
    if workdir.exists() and (not workdir.is_dir() or any(path.name not in LEFTOVERS for path in workdir.iterdir())):
        raise InputError(f"{workdir}: expected a new or empty directory, or --resume, got one that is not empty")


def start_run(workdir: Path, config: RunConfig, source: Source, fresh: LifelongState) -> RunProgress:
    """Starts a run in a locked, empty directory."""
    check_new_workdir(workdir)
    _write_config(workdir, config, source)
    return RunProgress(fresh, [])


def resume_run(
    workdir: Path, config: RunConfig, source: Source, fresh: LifelongState, *, log_fn: Callable[[str], None]
) -> RunProgress:
    """Resumes a run from its newest undamaged checkpoint. Damaged ones are moved to `damaged/`.

    Raises:
        InputError: configuration or data differ from the recorded ones, or metrics.jsonl is damaged. Nothing has
            been changed then.
    """
    values = read_config_file(workdir)
    recorded = RunConfig.from_dict(values)
    settings = _flat_settings(config)
    for name, value in _flat_settings(recorded).items():
        if settings[name] != value:
            raise InputError(f"{workdir}, --resume: expected the recorded {name}={value}, got {settings[name]}")
    if config.tasks[: len(recorded.tasks)] != recorded.tasks:
        raise InputError(
            f"{workdir}, --resume: expected the recorded tasks {_format_tasks(recorded.tasks)}, and possibly more "
            f"after them, got {_format_tasks(config.tasks)}"
        )
    check_same_images(workdir, values, source)
    damaged: list[DamageError] = []
    folder = workdir / "checkpoints"
    newest = orbax_store.read_newest(folder, lambda step: checkpoints.load(folder, step=step), damaged.append)
    num_learned, state = newest or (0, fresh)
    history = keep_lines(workdir / "metrics.jsonl", num_learned)
    for error in damaged:
        quarantine(folder, error, log_fn)
    _write_config(workdir, config, source)
    return RunProgress(state, history)


def quarantine(folder: Path, error: DamageError, log_fn: Callable[[str], None]) -> None:
    """Moves a damaged checkpoint to `damaged/` and logs it."""
    log_fn(f"{error}; moved to {orbax_store.move_checkpoint(folder, error.step, folder.parent / 'damaged')}")


class TaskCheckpointer:
    """Saves and loads the progress of one task.

    Args:
        workdir: directory of the run.
        task: number of the task, from 1.
        state: state before the task.
        names: categories of the task.
        log_fn: called with a line for each damaged checkpoint.
    """

    def __init__(
        self, workdir: Path, task: int, state: LifelongState, names: Sequence[str], *, log_fn: Callable[[str], None]
    ):
        self._state, self._names, self._log_fn = state, names, log_fn
        self._root = workdir / TASK_CHECKPOINTS
        self._folder, self._last_folder = self._root / str(task), self._root / str(task - 1)
        self._teacher_digest: str | None = None

    def load(self) -> TaskProgress | None:
        """Loads the progress of an interrupted task, None if there is none.

        Progress of another task or state is deleted by the main process; the others then read what is left. That of
        the task before stays, since the checkpoint after it may still be in the making.
        """
        progress = run_on_main(self._load_on_main)
        exists = broadcast_from_main(progress is not None)
        return load_task(self._folder, self._state, self._names) if exists and progress is None else progress

    def _load_on_main(self) -> TaskProgress | None:
        if not self._root.is_dir():
            return None
        for path in self._root.iterdir():
            if path not in (self._folder, self._last_folder):
                orbax_store.delete_folder(path)
        progress = load_task(
            self._folder,
            self._state,
            self._names,
            on_damage=lambda error: quarantine(self._folder, error, self._log_fn),
        )
        if progress is None and self._folder.exists():
            orbax_store.delete_folder(self._folder)
        return progress

    def save(self, progress: TaskProgress) -> None:
        """Saves the progress of the task, in place of the last one."""
        if self._teacher_digest is None:
            self._teacher_digest = checkpoints.digest(self._state)
        save_task(self._folder, progress, self._teacher_digest)


def clear_task_checkpoints(workdir: Path) -> None:
    """Deletes the progress of tasks, once the last one has a checkpoint of its own."""
    if (workdir / TASK_CHECKPOINTS).exists():
        orbax_store.delete_folder(workdir / TASK_CHECKPOINTS)


def _flat_settings(config: RunConfig) -> dict[str, Any]:
    """Returns all values that a resumed run must share with the recorded one, by name."""
    plain = config.to_dict()
    del plain["tasks"], plain["dataset"]  # the same images may have moved
    options = plain.pop("options")
    plain.update({name: value for name, value in options.items() if not name.startswith("tfds_")})
    for section in plain.pop("config").values():
        plain.update(section)
    return plain


def _write_config(workdir: Path, config: RunConfig, source: Source) -> None:
    values = {
        **config.to_dict(),
        "image_shape": list(source.image_shape),
        "pixel_values": source.values and str(source.values),
        "max_value": source.max_value,
        "fingerprint": source.fingerprint,
        "versions": package_versions(),
        "device": device_description(),
    }
    write_json(workdir / "config.json", with_digest(values))


def _format_tasks(tasks: Sequence[Sequence[str]]) -> str:
    return "; ".join(", ".join(names) for names in tasks)
