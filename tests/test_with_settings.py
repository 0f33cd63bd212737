"""Single settings by name: parsing of values, allowed ranges, errors."""

import pytest

from lifelong_cvae.config import BOUNDS, REPLAY_TERMS, Config
from lifelong_cvae.errors import InputError
from lifelong_cvae.model.settings import LIKELIHOODS
from tests.conftest import one_line


def setting_of(config, section, name):
    return getattr(getattr(config, section), name)


@pytest.mark.parametrize(
    ("key", "text", "section", "expected"),
    [
        ("mixed_widths", "300,200", "network", (300, 200)),
        ("category_widths", "30, 20", "network", (30, 20)),
        ("output_rank", "7", "network", 7),
        ("likelihood", "bernoulli", "network", "bernoulli"),
        ("mixed_mode", "none", "learning", "none"),
        ("epochs", "3", "learning", 3),
        ("min_steps", "0", "learning", 0),
        ("learning_rate", "1e-4", "learning", 0.0001),
        ("learning_rate", "2", "learning", 2.0),
        ("bound", "importance", "recognition", "importance"),
        ("samples", "50", "recognition", 50),
    ],
)
def test_with_settings_parses_text_as_type_of_setting(key, text, section, expected):
    value = setting_of(Config().with_settings({key: text}), section, key)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("key", "value", "section", "expected"),
    [
        ("mixed_widths", [300, 200], "network", (300, 200)),
        ("mixed_widths", ("300", 200), "network", (300, 200)),
        ("output_rank", 7, "network", 7),
        ("output_rank", 7.0, "network", 7),
        ("learning_rate", 1, "learning", 1.0),
    ],
)
def test_with_settings_converts_value_if_lossless(key, value, section, expected):
    converted = setting_of(Config().with_settings({key: value}), section, key)
    assert converted == expected
    assert type(converted) is type(expected)


def test_with_settings_keeps_other_settings():
    config = Config().with_settings({"epochs": "3"})
    expected = Config().to_dict()
    expected["learning"]["epochs"] = 3
    assert config.to_dict() == expected
    assert Config().learning.epochs != 3


def test_with_settings_of_nothing_equals_config():
    assert Config().with_settings({}) == Config()


def test_with_settings_changes_number_of_layers_of_both_widths_together():
    config = Config().with_settings({"mixed_widths": "9,8,7", "category_widths": "3,2,1"})
    assert config.network.mixed_widths == (9, 8, 7)
    assert config.network.category_widths == (3, 2, 1)


@pytest.mark.parametrize("key", ["mixed_widths", "category_widths"])
def test_with_settings_refuses_unequal_numbers_of_layers(key):
    words = "settings mixed_widths and category_widths: expected the same number of layers, got "
    with pytest.raises(InputError, match=words):
        Config().with_settings({key: "9,8,7"})


def test_with_settings_refuses_unknown_setting_and_lists_known_ones():
    with pytest.raises(InputError, match=r"unknown setting: expected one of .*, got 'epoch'") as caught:
        Config().with_settings({"epoch": 3})
    for settings in Config().to_dict().values():
        for name in settings:
            assert name in str(caught.value)


def test_with_settings_refuses_setting_with_section():
    with pytest.raises(InputError, match=r"unknown setting: expected one of .*, got 'network\.output_rank'"):
        Config().with_settings({"network.output_rank": 3})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("epochs", "abc", "expected a whole number, got 'abc'"),
        ("epochs", "", "expected a whole number, got ''"),
        ("epochs", 1.5, "expected a whole number, got 1.5"),
        ("epochs", "1.5", "expected a whole number, got '1.5'"),
        ("epochs", None, "expected a whole number, got None"),
        ("epochs", float("nan"), "expected a whole number, got nan"),
        ("epochs", float("inf"), "expected a whole number, got inf"),
        ("epochs", [3], "expected a whole number, got [3]"),
        ("latent_size", True, "expected a whole number, got True"),
        ("learning_rate", "fast", "expected a number, got 'fast'"),
        ("learning_rate", True, "expected a number, got True"),
        ("learning_rate", "nan", "expected a number, got 'nan'"),
        ("learning_rate", "inf", "expected a number, got 'inf'"),
        ("learning_rate", "1e999", "expected a number, got '1e999'"),
        ("learning_rate", 10**400, "expected a number, got 1000"),
        ("learning_rate", None, "expected a number, got None"),
        ("playback_weight", "much", "expected a number, got 'much'"),
        ("bound", 3, "expected text, got 3"),
        ("bound", None, "expected text, got None"),
        ("mixed_widths", 400, 'expected whole numbers such as "400,400", got 400'),
        ("mixed_widths", None, 'expected whole numbers such as "400,400", got None'),
        ("mixed_widths", "400,", "expected a whole number, got ''"),
        ("mixed_widths", "400;400", "expected a whole number, got '400;400'"),
        ("mixed_widths", [400, 1.5], "expected a whole number, got 1.5"),
        ("mixed_widths", [True, 400], "expected a whole number, got True"),
    ],
)
def test_with_settings_refuses_value_of_other_type(key, value, words):
    with pytest.raises(InputError) as caught:
        Config().with_settings({key: value})
    one_line(caught, f"setting {key}: {words}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mixed_widths", "400,0"),
        ("mixed_widths", "-1,400"),
        ("category_widths", "0,1"),
        ("output_rank", 0),
        ("latent_size", -1),
        ("base_categories", 0),
        ("epochs", 0),
        ("min_steps", -1),
        ("batch_size", 0),
        ("learning_rate", 0),
        ("learning_rate", -1e-9),
        ("full_rate_steps", 0),
        ("adam_b2", 1),
        ("adam_b2", -1e-9),
        ("steps_per_call", 0),
        ("samples", 0),
        ("eval_batch_size", 0),
        ("conditioning", "layers"),
        ("likelihood", "laplace"),
        ("mixed_mode", "Frozen"),
        ("bound", ""),
    ],
)
def test_with_settings_refuses_value_out_of_range(key, value):
    with pytest.raises(InputError, match=f"setting {key}: expected .*, got "):
        Config().with_settings({key: value})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"memory_size": 127}, "setting memory_size: expected at least {pairs} = 128, got 127"),
        (
            {"memory_size": 200, "memory_categories": 10, "memory_images": 21},
            "setting memory_size: expected at least {pairs} = 210, got 200",
        ),
        ({"memory_images": 0}, "setting memory_images: expected values above 0, got 0"),
        ({"memory_categories": -1}, "setting memory_categories: expected values above 0, got -1"),
        ({"replay_refresh_calls": 0}, "setting replay_refresh_calls: expected values above 0, got 0"),
        ({"cycles": -1}, "setting cycles: expected at least 0, got -1"),
        ({"mixed_mode": "frosen"}, "setting mixed_mode: expected one of frozen, playback, free, none, got 'frosen'"),
        *[({f"{t}_weight": -0.1}, f"setting {t}_weight: expected at least 0, got -0.1") for t in REPLAY_TERMS],
    ],
)
def test_with_settings_refuses_bad_replay_settings(settings, words):
    with pytest.raises(InputError) as caught:
        Config().with_settings(settings)
    one_line(caught, words.format(pairs="memory_categories * memory_images"))


def test_with_settings_accepts_memory_of_one_step():
    config = Config().with_settings({"memory_size": 128, "cycles": 0, "playback_weight": 0})
    assert config.learning.memory_size == 128


def test_with_settings_refuses_no_layers():
    with pytest.raises(InputError, match="setting mixed_widths: expected at least one layer, got none"):
        Config().with_settings({"mixed_widths": (), "category_widths": ()})


@pytest.mark.parametrize(("key", "choices"), [("likelihood", LIKELIHOODS), ("bound", BOUNDS)])
def test_with_settings_lists_choices_of_setting(key, choices):
    with pytest.raises(InputError, match=f"setting {key}: expected one of {', '.join(choices)}, got 'other'"):
        Config().with_settings({key: "other"})


@pytest.mark.parametrize(
    ("section", "name"), [(section, name) for section, names in Config().to_dict().items() for name in names]
)
def test_with_settings_accepts_text_of_every_default(section, name):
    value = setting_of(Config(), section, name)
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    assert Config().with_settings({name: text}) == Config()
