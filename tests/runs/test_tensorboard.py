"""Events for TensorBoard that a run writes, read record by record."""

import io
import json
import struct
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2

from lifelong_cvae import plotting
from lifelong_cvae.deprecated import RESULT_KEYS
from lifelong_cvae.errors import MissingExtraError, Stopped
from lifelong_cvae.runs import figures, runner
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.runs.tensorboard import EventWriter
from lifelong_cvae.runs.workdir import load_state
from tests.conftest import full_disk, lines_of, one_line


def read_events(file):
    """Yields the events of a file. A record is its length, a checksum, the event, and a checksum."""
    content, start = file.read_bytes(), 0
    while start < len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        yield event_pb2.Event.FromString(content[start + 12 : start + 12 + length])
        start += 12 + length + 4
    assert start == len(content)


def displayed_values(folder):
    """Values that TensorBoard displays, by tag and step, without those that a later process has purged."""
    values = {}
    for file in sorted(folder.iterdir()):
        for event in read_events(file):
            if event.session_log.status == event_pb2.SessionLog.START:
                for steps in values.values():
                    for step in [step for step in steps if step >= event.step]:
                        del steps[step]
            for value in event.summary.value:
                kind = value.WhichOneof("value")
                values.setdefault(value.tag, {})[event.step] = getattr(value, kind)
    return values


def decode_image(image):
    return np.asarray(Image.open(io.BytesIO(image.encoded_image_string))) / 255


@pytest.fixture(scope="module")
def run_config(small_config):
    config = small_config.with_settings({"mixed_mode": "playback"})
    return RunConfig("mnist5k", (("3",), ("1", "0")), images_per_category=40, config=config)


@pytest.fixture(scope="module")
def first_task(run_config):
    """Configuration of the same run with its first task only."""
    return RunConfig(**{**vars(run_config), "tasks": run_config.tasks[:1]})


def learn(workdir, run_config, source, *, resume=False, **options):
    quiet = {"draw": False, "write_report": False, "log_fn": lambda _: None}
    return runner.run(workdir, run_config, source, runner.RunOptions(**{**quiet, **options}), resume=resume)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, run_config, mnist5k):
    workdir = tmp_path_factory.mktemp("events") / "run"
    learn(workdir, run_config, mnist5k)
    return workdir


def test_run_writes_losses_over_steps_of_all_tasks(finished_run):
    curves, lines = displayed_values(finished_run / "tensorboard"), lines_of(finished_run)
    assert [*curves["loss/real"]] == [10, 20, 30, 40]
    assert [*curves["loss/playback"]] == [30, 40]
    for step, line in [(20, lines[0]), (40, lines[1])]:
        terms = {name: value for name, value in line["terms"].items() if name not in RESULT_KEYS.values()}
        assert "real" in terms
        for name, value in terms.items():
            assert curves[f"loss/{name}"][step] == pytest.approx(value)


def test_run_writes_metrics_at_last_step_of_task(finished_run):
    curves, lines = displayed_values(finished_run / "tensorboard"), lines_of(finished_run)
    for step, line in [(20, lines[0]), (40, lines[1])]:
        assert curves["recognition/accuracy"][step] == pytest.approx(line["accuracy"])
        assert curves["recognition/accuracy_elbo"][step] == pytest.approx(line["accuracy_elbo"])
        assert curves["time/seconds"][step] == pytest.approx(line["seconds"])
        for name, accuracy in line["accuracy_per_category"].items():
            assert curves[f"accuracy_per_category/{name}"][step] == pytest.approx(accuracy)
    assert [*curves["accuracy_per_category/0"]] == [40]


def test_run_writes_imagined_images_after_each_task(finished_run, rng):
    pictures = displayed_values(finished_run / "tensorboard")["imagined"]
    assert [*pictures] == [20, 40]
    expected = plotting.tile_images(figures.sample_grid(load_state(finished_run), rng=rng))[..., 0]
    assert (pictures[40].height, pictures[40].width) == expected.shape
    np.testing.assert_allclose(decode_image(pictures[40]), expected, atol=1 / 255)


@pytest.mark.parametrize("chunks", [1, 3])
def test_resumed_run_displays_each_step_once(finished_run, run_config, mnist5k, tmp_path, chunks):
    calls = iter(range(100))
    with pytest.raises(Stopped):
        learn(tmp_path / "run", run_config, mnist5k, should_stop=lambda: next(calls) == chunks)
    learn(tmp_path / "run", run_config, mnist5k, resume=True)
    curves, expected = displayed_values(tmp_path / "run/tensorboard"), displayed_values(finished_run / "tensorboard")
    assert len(list((tmp_path / "run/tensorboard").iterdir())) == 2
    assert curves.keys() == expected.keys()
    for tag in expected:
        assert curves[tag].keys() == expected[tag].keys()
        if not tag.startswith("time/"):
            assert curves[tag] == expected[tag]


def test_resumed_run_purges_steps_after_last_checkpoint(finished_run, run_config, first_task, mnist5k, tmp_path):
    learn(tmp_path / "run", first_task, mnist5k)
    lost = EventWriter(tmp_path / "run/tensorboard")
    lost.scalars({"loss/real": 1e9}, step=21)
    lost.close()
    learn(tmp_path / "run", run_config, mnist5k, resume=True)
    losses = displayed_values(tmp_path / "run/tensorboard")["loss/real"]
    assert losses == displayed_values(finished_run / "tensorboard")["loss/real"]


def test_run_without_tensorboardx_writes_no_events(first_task, mnist5k, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    learn(tmp_path / "run", first_task, mnist5k)
    assert not (tmp_path / "run/tensorboard").exists()
    assert json.loads((tmp_path / "run/metrics.jsonl").read_text())["steps"] == 20


def test_run_that_requires_tensorboardx_fails_before_it_writes(run_config, mnist5k, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingExtraError) as error:
        learn(tmp_path / "run", run_config, mnist5k, tensorboard=True)
    one_line(error, "tensorboardX", "lifelong_cvae[tensorboard]")
    assert not (tmp_path / "run").exists()


def test_image_keeps_color(tmp_path):
    events, picture = EventWriter(tmp_path / "events"), np.random.default_rng(0).random((5, 7, 3))
    events.image("picture", picture, step=1)
    events.close()
    image = displayed_values(tmp_path / "events")["picture"][1]
    assert image.colorspace == 3
    np.testing.assert_allclose(decode_image(image), picture, atol=1 / 255)


def test_scalars_keep_names_and_earlier_files(tmp_path):
    names = ["accuracy/T-shirt top", "accuracy/été <x>", "accuracy/$a, b$"]
    for step, name in enumerate(names):  # several files within the same second
        events = EventWriter(tmp_path / "events")
        events.scalars({name: 0.5}, step=step)
        events.close()
    values = displayed_values(tmp_path / "events")
    assert values == {name: {step: 0.5} for step, name in enumerate(names)}


def test_scalars_are_on_disk_when_call_returns(tmp_path):
    events = EventWriter(tmp_path / "events")
    events.scalars({"loss/real": 2.0}, step=7)
    assert displayed_values(tmp_path / "events") == {"loss/real": {7: 2.0}}
    events.close()


def test_scalars_on_full_disk_raise_in_caller(tmp_path):
    events = EventWriter(tmp_path / "events")

    def write():
        for step in range(1000):
            events.scalars({"loss/real": 1.0}, step=step)

    with full_disk(4096), pytest.raises(OSError, match="too large"):
        write()
    events.close()


def test_event_writer_without_folder_writes_nothing(tmp_path):
    events = EventWriter(None)
    assert not events
    events.purge_from(1)
    events.scalars({"loss/real": 1.0}, step=1)
    events.image("picture", np.zeros((2, 2, 1)), step=1)
    events.close()
    assert list(tmp_path.iterdir()) == []
