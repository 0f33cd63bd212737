"""Plans: round trip through JSON, what is refused."""

import dataclasses
import json

import pytest

from lifelong_cvae.config import Config
from lifelong_cvae.data import SourceOptions
from lifelong_cvae.errors import InputError
from lifelong_cvae.files import with_digest, write_json
from lifelong_cvae.runs.config import RunConfig, read_run_config
from tests.conftest import one_line

PLAN = RunConfig(
    dataset="npz:/data/ζ.npz",
    tasks=(("T-shirt/top", "猫"), ("3",)),
    validation_fraction=0.1,
    seed=7,
    evaluate_on="validation",
    options=SourceOptions(image_size=32, grayscale=True, tfds_data_dir="/data"),
    config=Config().with_settings({"mixed_widths": "32,16", "category_widths": "8,8", "learning_rate": 0.1}),
)


@pytest.mark.parametrize("plan", [PLAN, RunConfig(dataset="mnist5k", tasks=())])
def test_a_plan_survives_json_with_all_its_types(run_config):
    back = RunConfig.from_dict(json.loads(json.dumps(run_config.to_dict())))
    assert back == run_config
    assert back.to_dict() == run_config.to_dict()
    assert isinstance(back.tasks, tuple)
    assert all(isinstance(names, tuple) for names in back.tasks)
    assert hash(back.config) == hash(run_config.config)


def test_a_plan_in_json_holds_exactly_its_fields():
    assert set(PLAN.to_dict()) == {field.name for field in dataclasses.fields(RunConfig)}
    assert PLAN.to_dict()["tasks"] == [["T-shirt/top", "猫"], ["3"]]
    assert PLAN.to_dict()["config"]["network"]["mixed_widths"] in [(32, 16), [32, 16]]


def test_a_plan_is_read_from_the_folder_of_a_run(tmp_path):
    values = {**PLAN.to_dict(), "versions": {"jax": "0"}, "device": "?"}
    write_json(tmp_path / "config.json", with_digest(values))
    assert read_run_config(tmp_path) == PLAN


@pytest.mark.parametrize("change", [{"seed": 1}, {"device": "!"}, {"digest": None}, {"more": 1}])
def test_a_plan_that_was_changed_in_its_file_is_refused(tmp_path, change):
    sealed = with_digest({**PLAN.to_dict(), "device": "?"})
    write_json(tmp_path / "config.json", {**sealed, **change})
    with pytest.raises(InputError) as error:
        read_run_config(tmp_path)
    one_line(error, tmp_path / "config.json", "expected the file as it was written")


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(InputError) as error:
        read_run_config(tmp_path)
    one_line(error, tmp_path / "config.json", "learn")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(RunConfig) if field.name != "options"])
def test_a_missing_key_is_named(name):
    values = PLAN.to_dict()
    del values[name]
    with pytest.raises(InputError) as error:
        RunConfig.from_dict(values)
    one_line(error, "config.json", name)


def test_a_run_that_began_before_there_were_options_has_none():
    values = PLAN.to_dict()
    del values["options"]
    assert RunConfig.from_dict(values) == dataclasses.replace(PLAN, options=SourceOptions())


@pytest.mark.parametrize("fraction", [0, 0.0])
def test_evaluating_on_validation_needs_images_held_out(fraction):
    with pytest.raises(InputError) as error:
        RunConfig(dataset="mnist5k", tasks=(("3",),), evaluate_on="validation", validation_fraction=fraction)
    one_line(error, "evaluate_on=validation", "validation_fraction")
    with pytest.raises(InputError, match="validation_fraction"):
        RunConfig.from_dict({**PLAN.to_dict(), "validation_fraction": fraction})


def test_an_unknown_setting_in_a_recorded_plan_is_refused():
    values = PLAN.to_dict()
    values["config"]["learning"]["momentum"] = 0.9
    with pytest.raises(InputError) as error:
        RunConfig.from_dict(values)
    one_line(error, "learning")


@pytest.mark.parametrize(("name", "value"), [("tasks", None), ("tasks", [3]), ("config", None), ("options", None)])
def test_a_recorded_value_of_a_wrong_type_is_refused(name, value):
    with pytest.raises(InputError) as error:
        RunConfig.from_dict({**PLAN.to_dict(), name: value})
    one_line(error, name)


@pytest.mark.parametrize(("name", "value"), [("image_size", 0), ("colors", 3)])
def test_a_recorded_option_that_cannot_be_is_refused(name, value):
    with pytest.raises(InputError) as error:
        RunConfig.from_dict({**PLAN.to_dict(), "options": {name: value}})
    one_line(error, name)
