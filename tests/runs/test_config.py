"""Configurations of runs: round trip through JSON, and refused values."""

import dataclasses
import json

import pytest

from lifelong_cvae.config import Config
from lifelong_cvae.data import SourceOptions
from lifelong_cvae.errors import InputError
from lifelong_cvae.files import with_digest, write_json
from lifelong_cvae.runs.config import RunConfig, read_run_config
from tests.conftest import one_line

RUN_CONFIG = RunConfig(
    dataset="npz:/data/ζ.npz",
    tasks=(("T-shirt/top", "猫"), ("3",)),
    validation_fraction=0.1,
    seed=7,
    evaluate_on="validation",
    options=SourceOptions(image_size=32, grayscale=True, tfds_data_dir="/data"),
    config=Config().with_settings({"mixed_widths": "32,16", "category_widths": "8,8", "learning_rate": 0.1}),
)


@pytest.mark.parametrize("run_config", [RUN_CONFIG, RunConfig(dataset="mnist5k", tasks=())])
def test_run_config_round_trips_through_json(run_config):
    restored = RunConfig.from_dict(json.loads(json.dumps(run_config.to_dict())))
    assert restored == run_config
    assert restored.to_dict() == run_config.to_dict()
    assert isinstance(restored.tasks, tuple)
    assert all(isinstance(names, tuple) for names in restored.tasks)
    assert hash(restored.config) == hash(run_config.config)


def test_to_dict_holds_exactly_the_fields():
    assert set(RUN_CONFIG.to_dict()) == {field.name for field in dataclasses.fields(RunConfig)}
    assert RUN_CONFIG.to_dict()["tasks"] == [["T-shirt/top", "猫"], ["3"]]
    assert RUN_CONFIG.to_dict()["config"]["network"]["mixed_widths"] in [(32, 16), [32, 16]]


def test_read_run_config_reads_the_file_of_a_run(tmp_path):
    values = {**RUN_CONFIG.to_dict(), "versions": {"jax": "0"}, "device": "?"}
    write_json(tmp_path / "config.json", with_digest(values))
    assert read_run_config(tmp_path) == RUN_CONFIG


@pytest.mark.parametrize("change", [{"seed": 1}, {"device": "!"}, {"digest": None}, {"more": 1}])
def test_read_run_config_refuses_an_edited_file(tmp_path, change):
    values = with_digest({**RUN_CONFIG.to_dict(), "device": "?"})
    write_json(tmp_path / "config.json", {**values, **change})
    with pytest.raises(InputError) as error:
        read_run_config(tmp_path)
    one_line(error, tmp_path / "config.json", "expected the file as it was written")


def test_read_run_config_refuses_a_folder_without_run(tmp_path):
    with pytest.raises(InputError) as error:
        read_run_config(tmp_path)
    one_line(error, tmp_path / "config.json", "expected a file that `learn` wrote, got no such file")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(RunConfig) if field.name != "options"])
def test_from_dict_names_a_missing_key(name):
    values = RUN_CONFIG.to_dict()
    del values[name]
    with pytest.raises(InputError) as error:
        RunConfig.from_dict(values)
    one_line(error, f"config.json: expected the key '{name}'")


def test_from_dict_accepts_runs_older_than_options():
    values = RUN_CONFIG.to_dict()
    del values["options"]
    assert RunConfig.from_dict(values) == dataclasses.replace(RUN_CONFIG, options=SourceOptions())


@pytest.mark.parametrize("fraction", [0, 0.0])
def test_run_config_refuses_validation_without_held_out_images(fraction):
    with pytest.raises(InputError) as error:
        RunConfig(dataset="mnist5k", tasks=(("3",),), evaluate_on="validation", validation_fraction=fraction)
    one_line(error, "evaluate_on=validation", "expected a validation_fraction above 0")
    with pytest.raises(InputError, match="validation_fraction"):
        RunConfig.from_dict({**RUN_CONFIG.to_dict(), "validation_fraction": fraction})


def test_from_dict_refuses_unknown_settings():
    values = RUN_CONFIG.to_dict()
    values["config"]["learning"]["momentum"] = 0.9
    with pytest.raises(InputError) as error:
        RunConfig.from_dict(values)
    one_line(error, "learning")


@pytest.mark.parametrize(("name", "value"), [("tasks", None), ("tasks", [3]), ("config", None), ("options", None)])
def test_from_dict_refuses_wrong_types(name, value):
    with pytest.raises(InputError) as error:
        RunConfig.from_dict({**RUN_CONFIG.to_dict(), name: value})
    one_line(error, name)


@pytest.mark.parametrize(("name", "value"), [("image_size", 0), ("colors", 3)])
def test_from_dict_refuses_invalid_options(name, value):
    with pytest.raises(InputError) as error:
        RunConfig.from_dict({**RUN_CONFIG.to_dict(), "options": {name: value}})
    one_line(error, name)
