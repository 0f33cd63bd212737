"""Settings: frozen dataclasses, hashable (so that `jit` can take them as static), to and from JSON."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lifelong_cvae.errors import InputError

GROWTHS = ("neurons",)
LIKELIHOODS = ("gaussian", "bernoulli")
MIXED_MODES = ("frozen", "none")
BOUNDS = ("mean", "sampled", "importance")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, f"setting {name}={value!r}: one of {', '.join(choices)} is expected")


def _require_positive(name: str, *values: float) -> None:
    _require(all(v > 0 for v in values), f"setting {name}: values above 0 are expected, got {values}")


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of the networks; the same for every category.

    Attributes:
        growth: form of a category's parameters; `neurons`: neurons of its own in every layer.
        mixed_widths: neurons of the mixed part, a number per hidden layer of the encoder;
            the decoder mirrors them. Absent in the mixed mode `none`.
        category_widths: neurons of each category beside them, as many layers.
        rank: rank of a category's map from its last hidden layer to the pixels.
        latent_size: size of z.
        likelihood: `gaussian` (a scale per pixel) or `bernoulli`.
    """

    growth: str = "neurons"
    mixed_widths: tuple[int, ...] = (400, 400)
    category_widths: tuple[int, ...] = (128, 128)
    rank: int = 96
    latent_size: int = 8
    likelihood: str = "gaussian"

    def __post_init__(self):
        _require_choice("growth", self.growth, GROWTHS)
        _require_choice("likelihood", self.likelihood, LIKELIHOODS)
        for name in ("mixed_widths", "category_widths"):
            widths = getattr(self, name)
            _require(len(widths) > 0, f"setting {name}: at least one layer is expected")
            _require_positive(name, *widths)
        _require(
            len(self.mixed_widths) == len(self.category_widths),
            f"settings mixed_widths={self.mixed_widths} and category_widths={self.category_widths}: "
            "the same number of layers is expected",
        )
        _require_positive("rank", self.rank)
        _require_positive("latent_size", self.latent_size)


@dataclass(frozen=True)
class LearningConfig:
    """How a task is learned.

    Attributes:
        mixed_mode: `frozen` (the mixed part learns during the childhood only) or
            `none` (there is no mixed part: every category stands alone).
        childhood: number of categories during which the mixed part learns in mode `frozen`.
        epochs: passes over the images of the largest category of a task.
        min_steps: lower bound on the number of training steps of a task.
        batch_size: images per category and step.
        learning_rate: peak of the cosine schedule of Adam.
        chunk_steps: steps in one call of the jitted training function; a task is whole chunks.
    """

    mixed_mode: str = "frozen"
    childhood: int = 1
    epochs: int = 20
    min_steps: int = 600
    batch_size: int = 128
    learning_rate: float = 1.5e-3
    chunk_steps: int = 100

    def __post_init__(self):
        _require_choice("mixed_mode", self.mixed_mode, MIXED_MODES)
        for name in ("childhood", "epochs", "batch_size", "learning_rate", "chunk_steps"):
            _require_positive(name, getattr(self, name))
        _require(self.min_steps >= 0, f"setting min_steps={self.min_steps}: at least 0 is expected")


@dataclass(frozen=True)
class RecognitionConfig:
    """How log p(x|c) is bounded when images are recognised.

    Attributes:
        bound: `mean` (the ELBO with z at the posterior's mean), `sampled` (the ELBO, averaged
            over samples of z) or `importance` (the importance-weighted bound).
        samples: samples of z per image and category, for the last two.
        block_images: images that are treated in one call of the jitted function.
    """

    bound: str = "mean"
    samples: int = 20
    block_images: int = 1024

    def __post_init__(self):
        _require_choice("bound", self.bound, BOUNDS)
        _require_positive("samples", self.samples)
        _require_positive("block_images", self.block_images)


@dataclass(frozen=True)
class Config:
    """All settings of a lifelong CVAE. The defaults are the preset `default`."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    recognition: RecognitionConfig = field(default_factory=RecognitionConfig)

    @property
    def has_mixed(self) -> bool:
        """Whether there is a mixed part."""
        return self.learning.mixed_mode != "none"

    def to_dict(self) -> dict[str, Any]:
        """Nested dict of plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Inverse of `to_dict`, also after a round trip through JSON.

        Raises:
            InputError: a section or a setting is unknown or missing, or a value is not allowed.
        """
        sections = _sections()
        _require(
            set(values) == set(sections),
            f"config: the sections {', '.join(sections)} are expected, got {', '.join(map(str, values))}",
        )
        parts = {}
        for section, kind in sections.items():
            types = typing.get_type_hints(kind)
            _require(
                isinstance(values[section], Mapping) and set(values[section]) == set(types),
                f"config: section {section} must hold exactly {', '.join(types)}",
            )
            parts[section] = kind(
                **{key: _cast(key, value, types[key]) for key, value in values[section].items()}
            )
        return cls(**parts)

    def with_settings(self, settings: Mapping[str, Any]) -> Config:
        """A copy with single settings replaced, named without their section.

        Args:
            settings: setting name to value; strings are read as the setting's type, widths as "400,400".

        Raises:
            InputError: a setting is unknown, or its value has the wrong type or is not allowed.
        """
        changes: dict[str, dict[str, Any]] = {section: {} for section in _sections()}
        owners = {key: (s, t) for s, k in _sections().items() for key, t in typing.get_type_hints(k).items()}
        for key, value in settings.items():
            _require(key in owners, f"unknown setting {key!r}: one of {', '.join(owners)} is expected")
            section, kind = owners[key]
            changes[section][key] = _cast(key, value, kind)
        return Config(**{s: dataclasses.replace(getattr(self, s), **c) for s, c in changes.items()})


def _sections() -> dict[str, type]:
    return typing.get_type_hints(Config)


def _cast(name: str, value: Any, kind: Any) -> Any:
    """`value` as `kind` (str, int, float or tuple of int), where nothing is lost by it."""
    if kind == tuple[int, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)):
            raise InputError(f'setting {name}={value!r}: whole numbers such as "400,400" are expected')
        return tuple(_cast(name, part, int) for part in parts)
    expected = {str: "a text", int: "a whole number", float: "a number"}[kind]
    try:
        cast = kind(value)
        exact = isinstance(value, str) or cast == value
    except (TypeError, ValueError, OverflowError):
        exact = False
    if not exact or isinstance(value, bool) or cast != cast or cast in (float("inf"), -float("inf")):
        raise InputError(f"setting {name}={value!r}: {expected} is expected")
    return cast


PRESETS = {"default": Config()}


def preset(name: str) -> Config:
    """The settings of a preset by its name.

    Raises:
        InputError: there is no such preset.
    """
    _require(name in PRESETS, f"unknown preset {name!r}: one of {', '.join(PRESETS)} is expected")
    return PRESETS[name]
