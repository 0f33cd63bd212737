import json

import pytest

from lifelong_cvae.config import Config
from lifelong_cvae.errors import InputError
from lifelong_cvae.presets import PRESETS, preset


def test_preset_default_equals_default_config():
    assert preset("default") == Config()


@pytest.mark.parametrize("name", PRESETS)
def test_preset_survives_json(name):
    assert Config.from_dict(json.loads(json.dumps(preset(name).to_dict()))) == preset(name)


def test_preset_refuses_unknown_name_and_lists_known_ones():
    with pytest.raises(InputError, match=r"unknown preset: expected one of default, .*, got 'swift'"):
        preset("swift")
