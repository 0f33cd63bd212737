import json

import pytest

from lifelong_cvae.config import Config
from lifelong_cvae.errors import InputError
from lifelong_cvae.presets import PRESETS, preset


def test_default_is_the_default():
    assert preset("default") == Config()


@pytest.mark.parametrize("name", PRESETS)
def test_each_survives_json(name):
    assert Config.from_dict(json.loads(json.dumps(preset(name).to_dict()))) == preset(name)


def test_an_unknown_one_is_refused_and_the_known_ones_are_named():
    with pytest.raises(InputError, match=r"unknown preset 'swift'.*default"):
        preset("swift")
