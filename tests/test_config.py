"""Settings: JSON round trip, single settings by name, what is refused."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong_cvae.config import (
    BOUNDS,
    GRAM_SHARINGS,
    LIKELIHOODS,
    MIXED_MODES,
    RECOGNIZERS,
    ClosedFormConfig,
    Config,
    LearningConfig,
    NetworkConfig,
    RecognitionConfig,
)
from lifelong_cvae.errors import InputError

SECTIONS = {
    "network": NetworkConfig,
    "learning": LearningConfig,
    "closed_form": ClosedFormConfig,
    "recognition": RecognitionConfig,
}

count = st.integers(1, 10**9)


@st.composite
def configs(draw):
    layers = draw(st.integers(1, 4))
    widths = st.lists(st.integers(1, 5000), min_size=layers, max_size=layers).map(tuple)
    return Config(
        network=NetworkConfig(
            mixed_widths=draw(widths),
            category_widths=draw(widths),
            output_rank=draw(count),
            latent_size=draw(count),
            likelihood=draw(st.sampled_from(LIKELIHOODS)),
        ),
        learning=LearningConfig(
            mixed_mode=draw(st.sampled_from(MIXED_MODES)),
            base_categories=draw(count),
            epochs=draw(count),
            min_steps=draw(st.integers(0, 10**9)),
            batch_size=draw(count),
            learning_rate=draw(st.floats(0, 1e3, exclude_min=True)),
            steps_per_call=draw(count),
        ),
        closed_form=ClosedFormConfig(
            num_filters=draw(count),
            filter_size=draw(count),
            pool_grid=draw(count),
            random_features=draw(count),
            gram_sharing=draw(st.sampled_from(GRAM_SHARINGS)),
        ),
        recognition=RecognitionConfig(
            recognizer=draw(st.sampled_from(RECOGNIZERS)),
            bound=draw(st.sampled_from(BOUNDS)),
            samples=draw(count),
            eval_batch_size=draw(count),
        ),
    )


def field_names(kind):
    return [field.name for field in dataclasses.fields(kind)]


class TestDictionary:
    @given(configs())
    def test_survives_a_round_trip(self, config):
        assert Config.from_dict(config.to_dict()) == config

    @given(configs())
    def test_survives_a_round_trip_through_json_text(self, config):
        again = Config.from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False)))
        assert again == config
        assert hash(again) == hash(config)

    def test_round_trip_gives_tuples_and_floats_back(self):
        config = Config().with_settings({"mixed_widths": "5,6", "learning_rate": 1})
        again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
        assert type(again.network.mixed_widths) is tuple
        assert type(again.learning.learning_rate) is float

    def test_holds_every_setting_by_its_section(self):
        values = Config().to_dict()
        assert {key: list(section) for key, section in values.items()} == {
            key: field_names(kind) for key, kind in SECTIONS.items()
        }

    @pytest.mark.parametrize("section", SECTIONS)
    def test_a_missing_section_is_refused(self, section):
        values = Config().to_dict()
        del values[section]
        with pytest.raises(InputError, match=f"sections {', '.join(SECTIONS)} are expected"):
            Config.from_dict(values)

    def test_an_unknown_section_is_refused(self):
        with pytest.raises(InputError, match="got network, learning, closed_form, recognition, optimizer"):
            Config.from_dict({**Config().to_dict(), "optimizer": {}})

    @pytest.mark.parametrize("section", SECTIONS)
    def test_a_missing_setting_is_refused(self, section):
        values = Config().to_dict()
        values[section].popitem()
        with pytest.raises(InputError, match=f"section {section} must hold exactly"):
            Config.from_dict(values)

    @pytest.mark.parametrize("section", SECTIONS)
    def test_an_unknown_setting_is_refused(self, section):
        values = Config().to_dict()
        values[section]["momentum"] = 0.9
        with pytest.raises(InputError, match=f"section {section} must hold exactly"):
            Config.from_dict(values)

    @pytest.mark.parametrize("wrong", [None, 3, "network", ["rank"]])
    def test_a_section_that_is_no_dictionary_is_refused(self, wrong):
        with pytest.raises(InputError, match="section network must hold exactly"):
            Config.from_dict({**Config().to_dict(), "network": wrong})

    @pytest.mark.parametrize(("key", "wrong"), [("rank", "many"), ("rank", 1.5), ("mixed_widths", 400)])
    def test_a_value_of_another_type_is_refused(self, key, wrong):
        values = Config().to_dict()
        values["network"][key] = wrong
        with pytest.raises(InputError, match=f"setting {key}"):
            Config.from_dict(values)


class TestSettings:
    @pytest.mark.parametrize(
        ("key", "text", "section", "expected"),
        [
            ("mixed_widths", "300,200", "network", (300, 200)),
            ("category_widths", "30, 20", "network", (30, 20)),
            ("rank", "7", "network", 7),
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
    def test_a_text_is_read_as_the_settings_type(self, key, text, section, expected):
        value = getattr(getattr(Config().with_settings({key: text}), section), key)
        assert value == expected
        assert type(value) is type(expected)

    @pytest.mark.parametrize(
        ("key", "value", "section", "expected"),
        [
            ("mixed_widths", [300, 200], "network", (300, 200)),
            ("mixed_widths", ("300", 200), "network", (300, 200)),
            ("rank", 7, "network", 7),
            ("rank", 7.0, "network", 7),
            ("learning_rate", 1, "learning", 1.0),
        ],
    )
    def test_a_plain_value_is_taken_where_nothing_is_lost(self, key, value, section, expected):
        found = getattr(getattr(Config().with_settings({key: value}), section), key)
        assert found == expected
        assert type(found) is type(expected)

    def test_everything_else_stays(self):
        config = Config().with_settings({"epochs": "3"})
        changed = Config().to_dict()
        changed["learning"]["epochs"] = 3
        assert config.to_dict() == changed
        assert Config().learning.epochs != 3

    def test_no_settings_change_nothing(self):
        assert Config().with_settings({}) == Config()

    def test_both_widths_can_change_their_number_of_layers_together(self):
        config = Config().with_settings({"mixed_widths": "9,8,7", "category_widths": "3,2,1"})
        assert config.network.mixed_widths == (9, 8, 7)
        assert config.network.category_widths == (3, 2, 1)

    @pytest.mark.parametrize("key", ["mixed_widths", "category_widths"])
    def test_unequal_numbers_of_layers_are_refused(self, key):
        with pytest.raises(InputError, match="same number of layers"):
            Config().with_settings({key: "9,8,7"})

    def test_an_unknown_setting_is_refused_and_the_known_ones_are_named(self):
        with pytest.raises(InputError, match="unknown setting 'epoch'") as caught:
            Config().with_settings({"epoch": 3})
        for kind in SECTIONS.values():
            for name in field_names(kind):
                assert name in str(caught.value)

    def test_a_section_is_not_a_setting(self):
        with pytest.raises(InputError, match=r"unknown setting 'network\.rank'"):
            Config().with_settings({"network.rank": 3})

    @pytest.mark.parametrize(
        ("key", "wrong", "words"),
        [
            ("epochs", "abc", "a whole number is expected"),
            ("epochs", "", "a whole number is expected"),
            ("epochs", 1.5, "a whole number is expected"),
            ("epochs", "1.5", "a whole number is expected"),
            ("epochs", None, "a whole number is expected"),
            ("epochs", float("nan"), "a whole number is expected"),
            ("epochs", float("inf"), "a whole number is expected"),
            ("epochs", [3], "a whole number is expected"),
            ("latent_size", True, "a whole number is expected"),
            ("learning_rate", "fast", "a number is expected"),
            ("learning_rate", True, "a number is expected"),
            ("learning_rate", "nan", "a number is expected"),
            ("learning_rate", "inf", "a number is expected"),
            ("learning_rate", "1e999", "a number is expected"),
            ("learning_rate", 10**400, "a number is expected"),
            ("learning_rate", None, "a number is expected"),
            ("bound", 3, "a text is expected"),
            ("bound", None, "a text is expected"),
            ("mixed_widths", 400, "whole numbers such as"),
            ("mixed_widths", None, "whole numbers such as"),
            ("mixed_widths", "400,", "a whole number is expected"),
            ("mixed_widths", "400;400", "a whole number is expected"),
            ("mixed_widths", [400, 1.5], "a whole number is expected"),
            ("mixed_widths", [True, 400], "a whole number is expected"),
        ],
    )
    def test_a_value_of_the_wrong_type_is_refused(self, key, wrong, words):
        with pytest.raises(InputError, match=f"setting {key}=.*{words}") as caught:
            Config().with_settings({key: wrong})
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("key", "wrong"),
        [
            ("mixed_widths", "400,0"),
            ("mixed_widths", "-1,400"),
            ("category_widths", "0,1"),
            ("rank", 0),
            ("latent_size", -1),
            ("base_categories", 0),
            ("epochs", 0),
            ("min_steps", -1),
            ("batch_size", 0),
            ("learning_rate", 0),
            ("learning_rate", -1e-9),
            ("steps_per_call", 0),
            ("samples", 0),
            ("eval_batch_size", 0),
            ("growth", "layers"),
            ("likelihood", "laplace"),
            ("mixed_mode", "Frozen"),
            ("bound", ""),
        ],
    )
    def test_a_value_out_of_range_is_refused(self, key, wrong):
        with pytest.raises(InputError, match=f"setting {key}.* expected"):
            Config().with_settings({key: wrong})

    def test_no_layer_at_all_is_refused(self):
        with pytest.raises(InputError, match="setting mixed_widths: at least one layer"):
            Config().with_settings({"mixed_widths": (), "category_widths": ()})

    @pytest.mark.parametrize(("key", "choices"), [("likelihood", LIKELIHOODS), ("bound", BOUNDS)])
    def test_a_wrong_choice_names_the_right_ones(self, key, choices):
        with pytest.raises(InputError) as caught:
            Config().with_settings({key: "other"})
        assert all(choice in str(caught.value) for choice in choices)

    def test_names_are_unique_across_sections(self):
        names = [name for kind in SECTIONS.values() for name in field_names(kind)]
        assert len(names) == len(set(names))

    @pytest.mark.parametrize(
        ("section", "name"),
        [(section, name) for section, kind in SECTIONS.items() for name in field_names(kind)],
    )
    def test_every_setting_can_be_set_from_the_text_of_its_value(self, section, name):
        value = getattr(getattr(Config(), section), name)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert Config().with_settings({name: text}) == Config()


class TestConfig:
    @pytest.mark.parametrize(("mode", "expected"), [("frozen", True), ("none", False)])
    def test_tells_whether_there_is_a_mixed_part(self, mode, expected):
        assert Config().with_settings({"mixed_mode": mode}).has_mixed is expected

    def test_is_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            Config().network.rank = 3

    def test_is_hashable_by_value(self):
        first, second = Config().with_settings({"output_rank": 3}), Config().with_settings({"output_rank": "3"})
        assert {first: "found"}[second] == "found"
        assert len({first, second, Config()}) == 2

    def test_is_a_static_argument_of_jit(self):
        traces = []

        @jax.jit(static_argnames="config")
        def scaled(x, *, config):
            traces.append(config)
            return x * config.network.rank

        assert float(scaled(jnp.float32(2), config=Config().with_settings({"output_rank": 3}))) == 6
        assert float(scaled(jnp.float32(5), config=Config().with_settings({"output_rank": "3"}))) == 15
        assert len(traces) == 1
        assert float(scaled(jnp.float32(2), config=Config().with_settings({"output_rank": 4}))) == 8
