"""Learns one category of images after another.

    python -m experiments.learn --workdir=runs/digits

learns the ten digits of the embedded data set (two minutes on two CPU cores; at least 95 % of the
test images are recognized) and writes config.json, metrics.jsonl, result.json, checkpoints/, figures/ and
report.html into the workdir. Run it from a checkout of the repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from tqdm import tqdm

from experiments import launcher, processes
from lifelong_cvae import InputError, preset
from lifelong_cvae.config import CHECKPOINT_EVERY, RECOGNIZERS
from lifelong_cvae.presets import PRESETS

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from lifelong_cvae.data import SourceOptions
    from lifelong_cvae.runs.config import RunConfig

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Folder of the run: new, or with --resume the one to go on with.", required=True)
launcher.define_data()
flags.DEFINE_enum("preset", "default", list(PRESETS), "Settings to start from.")
launcher.define_settings()
launcher.define_seed()
processes.define()
flags.DEFINE_list("categories", None, "Which categories, and in which order; default all, in label order.")
flags.DEFINE_integer("order_seed", None, "A seeded random order of the categories instead.", lower_bound=0)
flags.DEFINE_integer("categories_per_task", 1, "Categories that arrive at once.", lower_bound=1)
flags.DEFINE_integer("images_per_category", None, "Training images of each category; default all.", lower_bound=1)
flags.DEFINE_integer("full_categories", 0, "So many categories have all their images in any case.", lower_bound=0)
flags.DEFINE_enum(
    "recognizer",
    None,
    RECOGNIZERS,
    "Recognizer whose accuracy is reported as accuracy; default the preset's. That of elbo stands beside it.",
)
flags.DEFINE_bool(
    "resume",
    False,
    "Go on with the run in --workdir; its settings hold, --categories may go on after its own.",
)
flags.DEFINE_enum("keep", "last", ["last", "all"], "Checkpoints to keep: of the last three tasks, or of all.")
flags.DEFINE_float(
    "checkpoint_every",
    CHECKPOINT_EVERY,
    "Seconds after which a task that is being learned is saved. A run that is sent SIGTERM saves first.",
    lower_bound=0,
)
flags.DEFINE_bool("figures", True, "Draw figures (the extra `figures`).")
flags.DEFINE_bool(
    "tensorboard",
    None,
    "Write events for TensorBoard into the workdir; default where the extra `tensorboard` is installed.",
)
flags.DEFINE_bool("report", None, "Write report.html into the workdir; default where the extra `report` is installed.")


def main() -> None:
    """Flags to one call of `run.learn`, in each of the processes that learn together."""
    with processes.joined() as mesh:
        _learn(Path(FLAGS.workdir), mesh)


def _learn(workdir: Path, mesh: Mesh | None) -> None:
    # Here, so that --help and flags that are wrong are answered before JAX is imported.
    from lifelong_cvae.data import hold_out, open_source
    from lifelong_cvae.distributed import is_main_process, run_on_main
    from lifelong_cvae.runs import runner
    from lifelong_cvae.runs.config import read_run_config

    recorded = read_run_config(workdir) if FLAGS.resume else None
    options = launcher.options(recorded and recorded.options)
    dataset = _value("dataset", recorded)
    # The first process prepares what is not there yet.
    opened = run_on_main(lambda: open_source(dataset, options)) or open_source(dataset, options)
    source = hold_out(opened, _value("validation_fraction", recorded))
    run_config = _run_config(source.categories, options, recorded)
    result = runner.run(
        workdir,
        run_config,
        source,
        resume=FLAGS.resume,
        keep_all=FLAGS.keep == "all",
        checkpoint_every=FLAGS.checkpoint_every,
        draw=FLAGS.figures,
        tensorboard=FLAGS.tensorboard,
        write_report=FLAGS.report,
        log_fn=tqdm.write,
        should_stop=launcher.asked_to_stop(),
        mesh=mesh,
    )
    if is_main_process():
        print(
            f"recognized {100 * result['accuracy']:.2f} % of the {run_config.evaluate_on} images of "
            f"{len(result['categories'])} categories; {result['seconds_total']:.0f} seconds; see {workdir}"
        )


def _value(name: str, recorded: RunConfig | None) -> Any:
    """A flag; when resuming, what the run was begun with, unless the flag is given."""
    return getattr(recorded, name) if recorded and not FLAGS[name].present else FLAGS[name].value


def _run_config(available: tuple[str, ...], options: SourceOptions, recorded: RunConfig | None) -> RunConfig:
    from lifelong_cvae.data import make_tasks
    from lifelong_cvae.runs.config import RunConfig

    if FLAGS.full_categories and _value("images_per_category", recorded) is None:
        raise InputError("--full_categories without --images_per_category: all categories are full then")
    names = set(RunConfig.__dataclass_fields__) - {"tasks", "options", "config"}
    values = {name: _value(name, recorded) for name in names}
    config = preset(FLAGS.preset) if FLAGS["preset"].present or not recorded else recorded.config
    stream = ("categories", "order_seed", "categories_per_task")
    if recorded and not any(FLAGS[name].present for name in stream):
        chosen = recorded.tasks
    else:
        chosen = make_tasks(available, **{name: FLAGS[name].value for name in stream})
    settings = launcher.settings_of(FLAGS.set)
    if FLAGS.recognizer is not None:
        settings["recognizer"] = FLAGS.recognizer
    return RunConfig(tasks=chosen, options=options, config=config.with_settings(settings), **values)


if __name__ == "__main__":
    launcher.run(main)
