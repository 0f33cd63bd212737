"""Learns one category of images after another.

    python -m experiments.learn --workdir=runs/digits

learns the ten digits of the embedded data set and writes config.json, metrics.jsonl, result.json, checkpoints/,
figures/ and report.html into the run directory. It recognizes at least 95 % of the test images, in two minutes on two
CPU cores. Run it from a checkout of the repository.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Any

from absl import flags
from tqdm import tqdm

from experiments import common_flags, launcher, processes, signals
from lifelong_cvae import InputError, preset
from lifelong_cvae.config import CHECKPOINT_EVERY
from lifelong_cvae.errors import Stopped
from lifelong_cvae.presets import PRESETS

if TYPE_CHECKING:
    from pathlib import Path

    from jax.sharding import Mesh

    from lifelong_cvae.data import SourceOptions
    from lifelong_cvae.runs.config import RunConfig

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Run directory: a new one, or with --resume that of the run.", required=True)
common_flags.define_data()
flags.DEFINE_enum("preset", "default", list(PRESETS), "Settings to start from.")
common_flags.define_settings()
common_flags.define_seed()
processes.define()
flags.DEFINE_list(
    "categories",
    None,
    'Categories in order of learning; default all, in label order. Quote names that hold commas: a,"b, c".',
)
flags.DEFINE_integer("order_seed", None, "Seed of a random order of the categories.", lower_bound=0)
flags.DEFINE_integer("categories_per_task", 1, "Number of categories per task.", lower_bound=1)
flags.DEFINE_integer(
    "lookahead",
    1,
    "Tasks that are trained side by side where the mixed part does not learn: faster on an accelerator. Results are "
    "the same but for rounding.",
    lower_bound=1,
)
flags.DEFINE_integer("images_per_category", None, "Training images per category; default all.", lower_bound=1)
flags.DEFINE_integer("full_categories", 0, "Number of first categories that keep all their images.", lower_bound=0)
common_flags.define_recognizer(
    "Recognizer whose accuracy is reported as `accuracy`; default that of the preset. The accuracy of elbo is always "
    "reported too."
)
flags.DEFINE_bool(
    "resume", False, "Resume the run in --workdir with its settings. --categories may add categories after its own."
)
flags.DEFINE_enum("keep", "last", ["last", "all"], "Checkpoints to keep: of the last three tasks, or of all.")
flags.DEFINE_float(
    "checkpoint_every",
    CHECKPOINT_EVERY,
    "Seconds between checkpoints within a task. A run that receives SIGTERM or Ctrl-C saves first.",
    lower_bound=0,
)
flags.DEFINE_bool("figures", True, "Draw figures (extra `figures`).")
flags.DEFINE_bool(
    "tensorboard",
    None,
    "Write TensorBoard events into the run directory; default if the extra `tensorboard` is installed.",
)
flags.DEFINE_bool(
    "report", None, "Write report.html into the run directory; default if the extra `report` is installed."
)


def main() -> None:
    """Calls `runner.run` in each of the processes that learn together."""
    stop = signals.StopRequest()
    try:
        with processes.connect() as mesh:
            _learn(common_flags.workdir(), mesh, stop)
    except KeyboardInterrupt:
        launcher.fail(
            f"interrupted before learning began, nothing was changed in {FLAGS.workdir}: start again with the same "
            "flags, --resume included if it was among them",
            code=stop.exit_code,
        )
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        launcher.leave(stop.exit_code)


def _learn(workdir: Path, mesh: Mesh | None, stop: signals.StopRequest) -> None:
    # A GPU takes a second to start: meanwhile the rest is imported and images are read.
    threading.Thread(target=_start_device).start()
    # Imported here so that --help and flag errors do not wait for JAX.
    from lifelong_cvae.data import absolute_spec, hold_out, open_source
    from lifelong_cvae.distributed import is_main_process, run_on_main
    from lifelong_cvae.runs import runner
    from lifelong_cvae.runs.config import read_run_config

    recorded = read_run_config(workdir) if FLAGS.resume else None
    source_options = common_flags.source_options(recorded and recorded.options)
    dataset = absolute_spec(_flag_or_recorded("dataset", recorded))
    # The main process prepares the data set first if that is needed.
    source = run_on_main(lambda: open_source(dataset, source_options)) or open_source(dataset, source_options)
    source = hold_out(source, _flag_or_recorded("validation_fraction", recorded))
    config = _run_config(source.categories, source_options, recorded, dataset=dataset)
    stop.wait()
    options = runner.RunOptions(
        keep_all=FLAGS.keep == "all",
        lookahead=FLAGS.lookahead,
        checkpoint_every=FLAGS.checkpoint_every,
        draw=FLAGS.figures,
        tensorboard=FLAGS.tensorboard,
        write_report=FLAGS.report,
        log_fn=tqdm.write,
        should_stop=stop,
        mesh=mesh,
    )
    result = runner.run(workdir, config, source, options, resume=FLAGS.resume)
    stop.end()
    if is_main_process():
        print(
            f"accuracy {100 * result['accuracy']:.2f} % on the {config.evaluate_on} images of "
            f"{len(result['categories'])} categories after {result['seconds_total']:.0f} seconds; see {workdir}"
        )


def _start_device() -> None:
    import jax

    with contextlib.suppress(Exception):  # reported where the device is used
        jax.block_until_ready(jax.device_put(0))


def _flag_or_recorded(name: str, recorded: RunConfig | None) -> Any:
    """Returns the value of a flag; when resuming, the recorded value unless the flag is given."""
    return getattr(recorded, name) if recorded and not FLAGS[name].present else FLAGS[name].value


def _run_config(
    available: tuple[str, ...], options: SourceOptions, recorded: RunConfig | None, *, dataset: str
) -> RunConfig:
    from lifelong_cvae.data import make_tasks
    from lifelong_cvae.runs.config import RunConfig

    if FLAGS.full_categories and _flag_or_recorded("images_per_category", recorded) is None:
        raise InputError("--full_categories: expected --images_per_category with it, got none")
    names = set(RunConfig.__dataclass_fields__) - {"dataset", "tasks", "options", "config"}
    values = {name: _flag_or_recorded(name, recorded) for name in names}
    config = preset(FLAGS.preset) if FLAGS["preset"].present or not recorded else recorded.config
    stream = ("categories", "order_seed", "categories_per_task")
    if recorded and not any(FLAGS[name].present for name in stream):
        tasks = recorded.tasks
    else:
        tasks = make_tasks(available, **{name: FLAGS[name].value for name in stream})
    settings = common_flags.parse_settings(FLAGS.set)
    if FLAGS.recognizer is not None:
        settings["recognizer"] = FLAGS.recognizer
    return RunConfig(dataset=dataset, tasks=tasks, options=options, config=config.with_settings(settings), **values)


if __name__ == "__main__":
    launcher.run(main)
