"""Settings: JSON round trip, frozen dataclasses, names of version 0.1."""

import dataclasses
import json
import logging

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong_cvae import deprecated
from lifelong_cvae.config import (
    BOUNDS,
    MIXED_MODES,
    RECOGNIZERS,
    ClosedFormConfig,
    Config,
    LearningConfig,
    NetworkConfig,
    RecognitionConfig,
)
from lifelong_cvae.errors import InputError
from lifelong_cvae.model.settings import LIKELIHOODS
from lifelong_cvae.presets import preset
from lifelong_cvae.ridge.settings import GRAM_SHARINGS, MAX_FILTER_SIZE
from tests.conftest import one_line

SECTIONS = {
    "network": NetworkConfig,
    "learning": LearningConfig,
    "closed_form": ClosedFormConfig,
    "recognition": RecognitionConfig,
}
# A value other than the default for each setting that had another name in version 0.1.
RENAMED_VALUES = {
    "growth": "one_hot",
    "rank": 7,
    "scale": "own",
    "factors": 7,
    "drawing": "mean",
    "childhood": 7,
    "chunk_steps": 7,
    "recognise_weight": 0.25,
    "refresh_chunks": 7,
    "compute": "bfloat16",
    "filters": 7,
    "cells": 7,
    "gram": "own",
    "recogniser": "elbo",
    "block_images": 7,
}

positive = st.integers(1, 10**9)


@st.composite
def configs(draw):
    layers = draw(st.integers(1, 4))
    widths = st.lists(st.integers(1, 5000), min_size=layers, max_size=layers).map(tuple)
    return Config(
        network=NetworkConfig(
            mixed_widths=draw(widths),
            category_widths=draw(widths),
            output_rank=draw(positive),
            latent_size=draw(positive),
            likelihood=draw(st.sampled_from(LIKELIHOODS)),
            pixel_widths=draw(st.lists(st.integers(1, 5000), min_size=1, max_size=3).map(tuple)),
            sample_temperature=draw(st.floats(0.1, 10)),
        ),
        learning=LearningConfig(
            mixed_mode=draw(st.sampled_from(MIXED_MODES)),
            base_categories=draw(positive),
            epochs=draw(positive),
            min_steps=draw(st.integers(0, 10**9)),
            batch_size=draw(positive),
            learning_rate=draw(st.floats(0, 1e3, exclude_min=True)),
            adam_b2=draw(st.floats(0, 1, exclude_max=True)),
            steps_per_call=draw(positive),
        ),
        closed_form=ClosedFormConfig(
            num_filters=2 * draw(st.integers(0, 10**9)),
            filter_size=draw(st.integers(1, MAX_FILTER_SIZE)),
            pool_grid=draw(positive),
            random_features=draw(positive),
            pooled_features=draw(st.booleans()),
            fold_mirrors=draw(st.booleans()),
            shift_images=draw(st.booleans()),
            filter_seed=draw(st.integers(0, 10**9)),
            gram_sharing=draw(st.sampled_from(GRAM_SHARINGS)),
        ),
        recognition=RecognitionConfig(
            recognizer=draw(st.sampled_from(RECOGNIZERS)),
            bound=draw(st.sampled_from(BOUNDS)),
            samples=draw(positive),
            eval_batch_size=draw(positive),
        ),
    )


def field_names(section_class):
    return [field.name for field in dataclasses.fields(section_class)]


@given(configs())
def test_from_dict_inverts_to_dict(config):
    assert Config.from_dict(config.to_dict()) == config


@given(configs())
def test_from_dict_inverts_to_dict_through_json(config):
    restored = Config.from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False)))
    assert restored == config
    assert hash(restored) == hash(config)


def test_from_dict_restores_tuples_and_floats():
    config = Config().with_settings({"mixed_widths": "5,6", "learning_rate": 1})
    restored = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert type(restored.network.mixed_widths) is tuple
    assert type(restored.learning.learning_rate) is float


def test_to_dict_holds_every_setting_by_section():
    values = Config().to_dict()
    assert {key: list(section) for key, section in values.items()} == {
        key: field_names(section_class) for key, section_class in SECTIONS.items()
    }


@pytest.mark.parametrize("section", SECTIONS)
def test_from_dict_refuses_missing_section(section):
    values = Config().to_dict()
    del values[section]
    with pytest.raises(InputError, match=f"config: expected the sections {', '.join(SECTIONS)}, got "):
        Config.from_dict(values)


def test_from_dict_refuses_unknown_section():
    with pytest.raises(InputError, match="got network, learning, closed_form, recognition, optimizer"):
        Config.from_dict({**Config().to_dict(), "optimizer": {}})


@pytest.mark.parametrize("section", SECTIONS)
def test_from_dict_refuses_missing_setting(section):
    values = Config().to_dict()
    values[section].popitem()
    names = ", ".join(field_names(SECTIONS[section]))
    with pytest.raises(InputError, match=f"config, section {section}: expected exactly {names}, got "):
        Config.from_dict(values)


@pytest.mark.parametrize("section", SECTIONS)
def test_from_dict_refuses_unknown_setting(section):
    values = Config().to_dict()
    values[section]["momentum"] = 0.9
    with pytest.raises(InputError, match=f"config, section {section}: expected exactly .*, got .*momentum"):
        Config.from_dict(values)


@pytest.mark.parametrize("section", [None, 3, "network", ["output_rank"]])
def test_from_dict_refuses_section_that_is_no_mapping(section):
    with pytest.raises(InputError, match="config, section network: expected exactly"):
        Config.from_dict({**Config().to_dict(), "network": section})


@pytest.mark.parametrize(("key", "value"), [("output_rank", "many"), ("output_rank", 1.5), ("mixed_widths", 400)])
def test_from_dict_refuses_value_of_other_type(key, value):
    values = Config().to_dict()
    values["network"][key] = value
    with pytest.raises(InputError, match=f"setting {key}: expected .*, got {value!r}"):
        Config.from_dict(values)


def test_setting_names_are_unique_across_sections():
    names = [name for section_class in SECTIONS.values() for name in field_names(section_class)]
    assert len(names) == len(set(names))
    assert not set(names) & set(SECTIONS)
    # An old name belongs to one setting, and is not the name of another one.
    assert not set(names) & set(deprecated.SETTINGS)
    assert set(deprecated.SETTINGS.values()) <= set(names)
    assert len(set(deprecated.SETTINGS.values())) == len(deprecated.SETTINGS)


@pytest.mark.parametrize(("mode", "expected"), [("frozen", True), ("none", False)])
def test_has_mixed_follows_mixed_mode(mode, expected):
    assert Config().with_settings({"mixed_mode": mode}).has_mixed is expected


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().network.output_rank = 3


def test_config_is_hashable_by_value():
    first, second = Config().with_settings({"output_rank": 3}), Config().with_settings({"output_rank": "3"})
    assert {first: "value"}[second] == "value"
    assert len({first, second, Config()}) == 2


def test_config_is_a_static_argument_of_jit():
    traces = []

    @jax.jit(static_argnames="config")
    def scaled(x, *, config):
        traces.append(config)
        return x * config.network.output_rank

    assert float(scaled(jnp.float32(2), config=Config().with_settings({"output_rank": 3}))) == 6
    assert float(scaled(jnp.float32(5), config=Config().with_settings({"output_rank": "3"}))) == 15
    assert len(traces) == 1
    assert float(scaled(jnp.float32(2), config=Config().with_settings({"output_rank": 4}))) == 8


@pytest.fixture
def log_lines(caplog):
    """Function that returns the lines logged so far, after the lines of earlier tests were forgotten."""
    deprecated.warn.cache_clear()
    caplog.set_level(logging.WARNING, "lifelong_cvae")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "lifelong_cvae"]


def deprecation_line(old, new):
    return f"{old} is deprecated and will be removed in version 0.3: use {new}"


def section_of(setting):
    return next(section for section, section_class in SECTIONS.items() if setting in field_names(section_class))


def test_renamed_values_cover_the_table():
    assert RENAMED_VALUES.keys() == deprecated.SETTINGS.keys()
    default = Config().to_dict()
    for old, new in deprecated.SETTINGS.items():
        assert RENAMED_VALUES[old] != default[section_of(new)][new]


@pytest.mark.parametrize(("old", "new"), deprecated.SETTINGS.items())
def test_with_settings_accepts_old_name_and_logs_once(log_lines, old, new):
    for _ in range(2):
        config = Config().with_settings({old: RENAMED_VALUES[old]})
        assert config == Config().with_settings({new: RENAMED_VALUES[old]})
        assert config != Config()
    assert log_lines() == [deprecation_line(f"setting {old}", new)]


@pytest.mark.parametrize(("old", "new"), deprecated.SETTINGS.items())
def test_constructor_accepts_old_name_and_logs_once(log_lines, old, new):
    section_class = SECTIONS[section_of(new)]
    for _ in range(2):
        assert section_class(**{old: RENAMED_VALUES[old]}) == section_class(**{new: RENAMED_VALUES[old]})
        section = dataclasses.replace(section_class(), **{old: RENAMED_VALUES[old]})
        assert getattr(section, new) == RENAMED_VALUES[old]
    assert log_lines() == [deprecation_line(f"setting {old}", new)]


@pytest.mark.parametrize(("old", "new"), deprecated.SETTINGS.items())
def test_attribute_accepts_old_name_and_logs_once(log_lines, old, new):
    section = SECTIONS[section_of(new)](**{new: RENAMED_VALUES[old]})
    for _ in range(2):
        assert getattr(section, old) == RENAMED_VALUES[old]
    assert log_lines() == [deprecation_line(f"setting {old}", new)]
    others = [section_class() for section_class in SECTIONS.values() if new not in field_names(section_class)]
    assert len(others) == 3
    for other in others:
        with pytest.raises(AttributeError, match=f"object has no attribute '{old}'"):
            getattr(other, old)


@pytest.mark.parametrize(("old", "new"), deprecated.SETTINGS.items())
def test_from_dict_accepts_old_name_and_logs_nothing(log_lines, old, new):
    config = Config().with_settings({new: RENAMED_VALUES[old]})
    values = config.to_dict()
    values[section_of(new)][old] = values[section_of(new)].pop(new)
    assert Config.from_dict(values) == config
    assert log_lines() == []


@pytest.mark.parametrize(("setting", "old", "new"), [(*key, new) for key, new in deprecated.VALUES.items()])
def test_old_values_are_accepted_and_logged_once(log_lines, setting, old, new):
    section = section_of(setting)
    line = deprecation_line(f"{setting}={old}", f"{setting}={new}")
    expected = Config().with_settings({setting: new})
    assert expected != Config()
    for _ in range(2):
        assert Config().with_settings({setting: old}) == expected
    assert log_lines() == [line]
    deprecated.warn.cache_clear()
    for _ in range(2):
        assert SECTIONS[section](**{setting: old}) == getattr(expected, section)
    assert log_lines() == [line] * 2
    deprecated.warn.cache_clear()
    values = expected.to_dict()
    values[section][setting] = old
    assert Config.from_dict(values) == expected
    assert log_lines() == [line] * 2


def test_old_name_and_old_value_together_log_a_line_each(log_lines):
    assert Config().with_settings({"growth": "vectors"}) == Config().with_settings({"conditioning": "one_hot"})
    assert log_lines() == [
        deprecation_line("setting growth", "conditioning"),
        deprecation_line("conditioning=vectors", "conditioning=one_hot"),
    ]
    values = Config().with_settings({"conditioning": "one_hot"}).to_dict()
    values["network"] = {"growth": "vectors", **{k: v for k, v in values["network"].items() if k != "conditioning"}}
    assert Config.from_dict(values).network.conditioning == "one_hot"
    assert len(log_lines()) == 2


def test_from_dict_reads_the_closed_form_of_version_0_2_0():
    old = {"num_filters": 250, "filter_size": 6, "pool_grid": 4, "random_features": 5000, "gram_sharing": "mixed"}
    config = Config.from_dict({**Config().to_dict(), "closed_form": old})
    assert config.closed_form.dictionary == "first_task"
    assert not config.closed_form.has_features
    assert config.closed_form.num_filters == 250
    without = Config.from_dict(
        {
            **Config().with_settings({"random_features": 0, "recognizer": "elbo"}).to_dict(),
            "closed_form": {**old, "random_features": 0},
        }
    )
    assert without.closed_form.dictionary == "dead_leaves"


def test_for_shape_adds_a_second_layer_for_color_images():
    config = preset("photos")
    gray, color = (config.for_shape((32, 32, channels)).closed_form for channels in (1, 3))
    assert (gray.second_filters, gray.random_features) == (0, 3072)
    assert (color.second_filters, color.random_features) == (1024, 0)
    assert color.has_features


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"second_filters": 3}, ("second_filters", "even number", "3")),
        ({"second_filters": -2}, ("second_filters", "-2")),
        ({"second_filters": 4, "num_filters": 5}, ("num_filters", "even number", "5")),
        ({"second_filters": 4, "random_features": 0, "pooled_features": False}, ("pooled_features", "false")),
    ],
)
def test_config_refuses_a_second_layer_that_cannot_be_computed(settings, words):
    with pytest.raises(InputError) as error:
        Config().with_settings(settings)
    one_line(error, *words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sample_style": "pixels"}, ("sample_style=pixels", "pixel_widths", "none")),
        ({"bound": "pixels"}, ("bound=pixels", "pixel_widths", "none")),
        ({"sample_temperature": 0}, ("sample_temperature", "0")),
        ({"pixel_widths": "8,0"}, ("pixel_widths", "0")),
        ({"pixel_widths": "8", "conditioning": "one_hot"}, ("conditioning", "neurons", "one_hot")),
        ({"pixel_widths": "8", "pixel_positions": 0}, ("pixel_positions", "0")),
    ],
)
def test_config_refuses_pixel_models_that_cannot_be_made(settings, words):
    with pytest.raises(InputError) as error:
        Config().with_settings(settings)
    one_line(error, *words)


def test_for_shape_refuses_pixel_models_of_vectors():
    with pytest.raises(InputError) as error:
        Config().with_settings({"pixel_widths": "8"}).for_shape((5,))
    one_line(error, "pixel_widths", "vectors", "(8,)")


def test_from_dict_reads_configurations_of_earlier_versions():
    earlier = Config().with_settings({"full_rate_steps": 1, "adam_b2": 0.999})
    values = earlier.to_dict()
    del values["network"]["pixel_widths"], values["network"]["sample_temperature"]
    del values["learning"]["pixel_positions"], values["learning"]["full_rate_steps"], values["learning"]["adam_b2"]
    assert Config.from_dict(values) == earlier


def test_for_shape_replaces_zeros_by_values_for_the_channels():
    sizes = {
        (channels, fold): Config().with_settings({"fold_mirrors": fold}).for_shape((32, 32, channels)).closed_form
        for channels in (1, 3)
        for fold in (False, True)
    }
    assert {key: (s.num_filters, s.pool_grid) for key, s in sizes.items()} == {
        (1, False): (64, 4),
        (3, False): (256, 3),
        (1, True): (512, 3),
        (3, True): (1024, 3),
    }
    chosen = Config().with_settings({"num_filters": 10, "pool_grid": 2}).for_shape((8, 8, 3)).closed_form
    assert (chosen.num_filters, chosen.pool_grid) == (10, 2)


@pytest.mark.parametrize("value", ["true", "True", True])
def test_with_settings_reads_truth_values(value):
    assert Config().with_settings({"fold_mirrors": value}).closed_form.fold_mirrors is True
    assert Config().with_settings({"pooled_features": "false"}).closed_form.pooled_features is False


@pytest.mark.parametrize("value", ["yes", 1, 0.0, None])
def test_with_settings_rejects_other_values_than_true_and_false(value):
    with pytest.raises(InputError, match="setting fold_mirrors: expected true or false, got"):
        Config().with_settings({"fold_mirrors": value})


def test_config_rejects_an_odd_number_of_filters_with_mirrors():
    with pytest.raises(
        InputError, match="setting num_filters: expected an even number with fold_mirrors or second_filters, got 7"
    ):
        Config().with_settings({"fold_mirrors": True, "num_filters": 7})


def test_config_rejects_filters_larger_than_the_synthetic_images():
    with pytest.raises(InputError, match="setting filter_size: expected at most 48, got 49"):
        Config().with_settings({"filter_size": 49})
