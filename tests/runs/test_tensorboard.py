"""Events for TensorBoard: what a run writes while it goes on, read record by record."""

import io
import json
import struct
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2

from lifelong_cvae import plotting
from lifelong_cvae.errors import MissingExtraError, Stopped
from lifelong_cvae.runs import figures, runner
from lifelong_cvae.runs.config import RunConfig
from lifelong_cvae.runs.tensorboard import EventWriter
from lifelong_cvae.runs.workdir import load_state
from tests.conftest import full_disk, lines_of, one_line


def records_of(file):
    """Events of a file: a record is its length, a checksum, the event, a checksum."""
    content, start = file.read_bytes(), 0
    while start < len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        yield event_pb2.Event.FromString(content[start + 12 : start + 12 + length])
        start += 12 + length + 4
    assert start == len(content)


def shown(folder):
    """What TensorBoard shows of a folder: tag to {step: value}, without what a later process made void."""
    values = {}
    for file in sorted(folder.iterdir()):
        for event in records_of(file):
            if event.session_log.status == event_pb2.SessionLog.START:
                for steps in values.values():
                    for step in [step for step in steps if step >= event.step]:
                        del steps[step]
            for value in event.summary.value:
                kind = value.WhichOneof("value")
                values.setdefault(value.tag, {})[event.step] = getattr(value, kind)
    return values


def pixels(image):
    return np.asarray(Image.open(io.BytesIO(image.encoded_image_string))) / 255


@pytest.fixture(scope="module")
def plan(small_config):
    config = small_config.with_settings({"mixed_mode": "playback"})
    return RunConfig("mnist5k", (("3",), ("1", "0")), images_per_category=40, config=config)


def learn(workdir, run_config, source, **options):
    return runner.run(
        workdir, run_config, source, **{"draw": False, "write_report": False, "log_fn": lambda _: None, **options}
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory, run_config, mnist5k):
    workdir = tmp_path_factory.mktemp("events") / "run"
    learn(workdir, run_config, mnist5k)
    return workdir


class TestRun:
    def test_losses_are_curves_over_the_steps_of_all_tasks(self, whole):
        curves, lines = shown(whole / "tensorboard"), lines_of(whole)
        assert [*curves["loss/real"]] == [10, 20, 30, 40]
        assert [*curves["loss/playback"]] == [30, 40]
        for step, line in [(20, lines[0]), (40, lines[1])]:
            for name, value in line["terms"].items():
                assert curves[f"loss/{name}"][step] == pytest.approx(value)

    def test_figures_of_a_task_stand_at_its_last_step(self, whole):
        curves, lines = shown(whole / "tensorboard"), lines_of(whole)
        for step, line in [(20, lines[0]), (40, lines[1])]:
            assert curves["recognition/accuracy"][step] == pytest.approx(line["accuracy"])
            assert curves["recognition/accuracy_elbo"][step] == pytest.approx(line["accuracy_elbo"])
            assert curves["time/seconds"][step] == pytest.approx(line["seconds"])
            for name, accuracy in line["accuracy_per_category"].items():
                assert curves[f"accuracy_per_category/{name}"][step] == pytest.approx(accuracy)
        assert [*curves["accuracy_per_category/0"]] == [40]

    def test_what_is_imagined_after_each_task_is_a_picture(self, whole, rng):
        pictures = shown(whole / "tensorboard")["imagined"]
        assert [*pictures] == [20, 40]
        expected = plotting.tile_images(figures.sample_grid(load_state(whole), rng=rng))[..., 0]
        assert (pictures[40].height, pictures[40].width) == expected.shape
        np.testing.assert_allclose(pixels(pictures[40]), expected, atol=1 / 255)

    @pytest.mark.parametrize("chunks", [1, 3])
    def test_one_that_was_stopped_shows_each_step_once(self, whole, run_config, mnist5k, tmp_path, chunks):
        asked = iter(range(100))
        with pytest.raises(Stopped):
            learn(tmp_path / "run", run_config, mnist5k, should_stop=lambda: next(asked) == chunks)
        learn(tmp_path / "run", run_config, mnist5k, resume=True)
        curves, expected = shown(tmp_path / "run/tensorboard"), shown(whole / "tensorboard")
        assert len(list((tmp_path / "run/tensorboard").iterdir())) == 2
        assert curves.keys() == expected.keys()
        for tag in expected:
            assert curves[tag].keys() == expected[tag].keys()
            if not tag.startswith("time/"):
                assert curves[tag] == expected[tag]

    def test_steps_after_the_last_checkpoint_are_void(self, whole, run_config, mnist5k, tmp_path):
        learn(tmp_path / "run", RunConfig(**{**vars(run_config), "tasks": run_config.tasks[:1]}), mnist5k)
        lost = EventWriter(tmp_path / "run/tensorboard")
        lost.scalars({"loss/real": 1e9}, step=21)
        lost.close()
        learn(tmp_path / "run", run_config, mnist5k, resume=True)
        assert shown(tmp_path / "run/tensorboard")["loss/real"] == shown(whole / "tensorboard")["loss/real"]


class TestMissing:
    @pytest.fixture(autouse=True)
    def _without(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorboardX", None)

    def test_nothing_is_written(self, run_config, mnist5k, tmp_path):
        learn(tmp_path / "run", RunConfig(**{**vars(run_config), "tasks": run_config.tasks[:1]}), mnist5k)
        assert not (tmp_path / "run/tensorboard").exists()
        assert json.loads((tmp_path / "run/metrics.jsonl").read_text())["steps"] == 20

    def test_where_they_are_wanted_that_is_told_before_anything_is_written(self, run_config, mnist5k, tmp_path):
        with pytest.raises(MissingExtraError) as error:
            learn(tmp_path / "run", run_config, mnist5k, tensorboard=True)
        one_line(error, "tensorboardX", "lifelong_cvae[tensorboard]")
        assert not (tmp_path / "run").exists()


def test_colour_is_kept(tmp_path):
    events, picture = EventWriter(tmp_path / "events"), np.random.default_rng(0).random((5, 7, 3))
    events.image("picture", picture, step=1)
    events.close()
    image = shown(tmp_path / "events")["picture"][1]
    assert image.colorspace == 3
    np.testing.assert_allclose(pixels(image), picture, atol=1 / 255)


def test_a_full_disk_is_an_error_of_the_one_who_writes(tmp_path):
    events = EventWriter(tmp_path / "events")

    def write():
        for step in range(1000):
            events.scalars({"loss/real": 1.0}, step=step)

    with full_disk(4096), pytest.raises(OSError, match="too large"):
        write()
    events.close()


def test_none_are_written_where_there_is_no_folder(tmp_path):
    events = EventWriter(None)
    assert not events
    events.purge_from(1)
    events.scalars({"loss/real": 1.0}, step=1)
    events.image("picture", np.zeros((2, 2, 1)), step=1)
    events.close()
    assert list(tmp_path.iterdir()) == []
