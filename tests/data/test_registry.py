"""Options of sources: what is allowed, which kind takes which, to and from what is recorded."""

import pytest

from lifelong_cvae.data import SourceOptions, open_source
from lifelong_cvae.errors import InputError
from tests.conftest import one_line

ALL = {"image_size": 32, "grayscale": True, "tfds_data_dir": "data", "tfds_manual_dir": "files"}


def test_options_survive_being_recorded():
    for values in ({}, {"image_size": 1}, ALL):
        options = SourceOptions.from_dict(values)
        assert SourceOptions.from_dict(vars(options)) == options
        assert options.given() == values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", 0),
        ("image_size", -3),
        ("image_size", 2.5),
        ("image_size", True),
        ("image_size", "32"),
        ("grayscale", 1),
        ("tfds_data_dir", 3),
        ("tfds_manual_dir", ["a"]),
        ("colors", 3),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(name, value):
    with pytest.raises(InputError) as error:
        SourceOptions.from_dict({name: value})
    one_line(error, name)


@pytest.mark.parametrize(
    ("spec", "taken"),
    [
        ("mnist5k", ()),
        ("idx:folder", ()),
        ("npz:file", ()),
        ("images:folder", ("image_size", "grayscale")),
        ("tfds:mnist", tuple(ALL)),
    ],
)
def test_an_option_is_refused_where_it_would_do_nothing(spec, taken):
    assert SourceOptions(**ALL).taken_by(spec) == SourceOptions(**{name: ALL[name] for name in taken})
    for name in ALL.keys() - set(taken):
        with pytest.raises(InputError) as error:
            open_source(spec, SourceOptions(**{name: ALL[name]}))
        one_line(error, name, spec, "tfds", "leave it out")
