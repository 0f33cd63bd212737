"""Settings: frozen, hashable dataclasses (static arguments of `jit`), to and from JSON."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lifelong_cvae.deprecated import accept_old_settings, add_new_settings, rename_settings
from lifelong_cvae.errors import cast, check, check_choice, check_not_negative, check_positive
from lifelong_cvae.model.settings import NetworkConfig
from lifelong_cvae.ridge.settings import ClosedFormConfig, complete_settings

MIXED_MODES = ("frozen", "playback", "free", "none")
REPLAY_TERMS = ("playback", "generate", "recognize", "circulate")
COMPUTE_DTYPES = ("float32", "bfloat16")
RECOGNIZERS = ("elbo", "closed_form", "combined")
BOUNDS = ("mean", "sampled", "importance", "pixels")
# Bounds that draw no random numbers.
DETERMINISTIC_BOUNDS = ("mean", "pixels")
# Images that metrics are computed on.
SPLITS = ("test", "validation")
# Seconds between two checkpoints within a task.
CHECKPOINT_EVERY = 60.0
# Fraction of the images of known categories that may be called unknown.
REJECT_RATE = 0.01


@accept_old_settings
@dataclass(frozen=True)
class LearningConfig:
    """Training of a task.

    Attributes:
        mixed_mode: `playback`: the mixed part keeps learning, protected by memory playback. `frozen`: it learns
            during the base categories only. `free`: it keeps learning unprotected, a baseline. `none`: no mixed
            part, every category stands alone, a baseline.
        base_categories: number of categories during which the mixed part learns in mode `frozen`.
        epochs: passes over the images of the largest category of a task.
        min_steps: lower bound on the training steps of a task.
        batch_size: images per category and step.
        pixel_positions: pixels of an image that each of its category's pixel models learns from in a step.
        learning_rate: peak of the cosine schedule of Adam, for tasks of at least `full_rate_steps` steps. Shorter ones
            have a lower peak, by the square root of the part of these steps that they have.
        full_rate_steps: see `learning_rate`. 1: the same peak for all tasks.
        adam_b2: decay of Adam's mean squared gradient, in [0, 1). Few steps need a mean over few steps.
        steps_per_call: steps in one call of the jitted train function. A task is a whole number of calls.
        playback_weight: weight of -ELBO_c(x*) for a replayed image x*. A weight of 0 leaves its term out.
        generate_weight: weight of ||decode(z*) - x*||^2 for a replayed pair (z*, x*).
        recognize_weight: weight of KL(q_teacher(z|x*,c) || q(z|x*,c)).
        circulate_weight: weight of -log q(z*|decode(z*),c).
        cycles: turns of the circle before a sample serves as memory (circulatory warm-up).
        memory_size: replayed pairs in memory, of all earlier categories together.
        memory_categories: groups of pairs per step, of one category each.
        memory_images: pairs per group.
        replay_refresh_calls: calls of the train function after which the memory is sampled again.
        compute_dtype: type that networks compute in during training, `float32` or `bfloat16`. Parameters, sums over
            pixels and everything after training are float32.
    """

    mixed_mode: str = "frozen"
    base_categories: int = 1
    epochs: int = 16
    min_steps: int = 200
    batch_size: int = 128
    pixel_positions: int = 16
    learning_rate: float = 8e-3
    full_rate_steps: int = 700
    adam_b2: float = 0.98
    steps_per_call: int = 100
    playback_weight: float = 1.0
    generate_weight: float = 1.0
    recognize_weight: float = 1.0
    circulate_weight: float = 0.1
    cycles: int = 1
    memory_size: int = 4096
    memory_categories: int = 4
    memory_images: int = 32
    replay_refresh_calls: int = 3
    compute_dtype: str = "float32"

    def __post_init__(self):
        check_choice("mixed_mode", self.mixed_mode, MIXED_MODES)
        check_choice("compute_dtype", self.compute_dtype, COMPUTE_DTYPES)
        positive = ("base_categories", "epochs", "batch_size", "pixel_positions", "learning_rate", "full_rate_steps")
        memory = ("memory_size", "memory_categories", "memory_images", "replay_refresh_calls")
        for name in (*positive, "steps_per_call", *memory):
            check_positive(name, getattr(self, name))
        for name in ("min_steps", "cycles", *(f"{term}_weight" for term in REPLAY_TERMS)):
            check_not_negative(name, getattr(self, name))
        check(0 <= self.adam_b2 < 1, f"setting adam_b2: expected a number from 0 to below 1, got {self.adam_b2}")
        pairs = self.memory_categories * self.memory_images
        check(
            self.memory_size >= pairs,
            f"setting memory_size: expected at least memory_categories * memory_images = {pairs}, "
            f"got {self.memory_size}",
        )

    @property
    def replay_weights(self) -> dict[str, float]:
        """Nonzero weights of the terms on replayed pairs, by term."""
        weights = {term: getattr(self, f"{term}_weight") for term in REPLAY_TERMS}
        return {term: weight for term, weight in weights.items() if weight}


@accept_old_settings
@dataclass(frozen=True)
class RecognitionConfig:
    """Recognition of images.

    Attributes:
        recognizer: `elbo`: a bound on log p(x|c). `closed_form`: see `ClosedFormConfig`. `combined`: the product of
            both (`temperature_scaling`).
        bound: `mean`: ELBO with z at the posterior mean. `sampled`: ELBO averaged over samples of z. `importance`:
            importance-weighted bound. `pixels`: likelihoods of the pixel models and of the decoder together
            (`elbo.pixel_evidence`).
        samples: samples of z per image and category for `sampled` and `importance`.
        eval_batch_size: images per call of the jitted function.
    """

    recognizer: str = "combined"
    bound: str = "mean"
    samples: int = 20
    eval_batch_size: int = 1024

    def __post_init__(self):
        check_choice("recognizer", self.recognizer, RECOGNIZERS)
        check_choice("bound", self.bound, BOUNDS)
        check_positive("samples", self.samples)
        check_positive("eval_batch_size", self.eval_batch_size)


@dataclass(frozen=True)
class Config:
    """All settings of a lifelong CVAE. The defaults are the preset `default`."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    closed_form: ClosedFormConfig = field(default_factory=ClosedFormConfig)
    recognition: RecognitionConfig = field(default_factory=RecognitionConfig)

    def __post_init__(self):
        check(
            self.network.conditioning != "one_hot" or self.has_mixed,
            "setting conditioning=one_hot: expected a mixed_mode with a mixed part, got mixed_mode=none",
        )
        check(
            self.recognition.bound != "pixels" or bool(self.network.pixel_widths),
            "setting bound=pixels: expected pixel_widths, got none",
        )
        recognizer = self.recognition.recognizer
        check(
            recognizer == "elbo" or self.closed_form.has_features or self.closed_form.dictionary == "first_task",
            f"setting recognizer={recognizer}: expected random_features or second_filters above 0, got 0",
        )

    @property
    def has_mixed(self) -> bool:
        """True if the network has a mixed part."""
        return self.learning.mixed_mode != "none"

    def to_dict(self) -> dict[str, Any]:
        """Returns a nested dict of plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def for_shape(self, image_shape: Sequence[int]) -> Config:
        """Returns the settings for a shape (height, width, channels) or (d,), without automatic zeros.

        Raises:
            InputError: a setting that vectors do not have.
        """
        if len(image_shape) > 1:
            return dataclasses.replace(self, closed_form=self.closed_form.resolve(image_shape[2]))
        network, closed_form = self.network, self.closed_form
        for name, value, allowed in (
            ("likelihood", network.likelihood, "gaussian"),
            ("local", network.local, "none"),
            ("pixel_widths", network.pixel_widths, ()),
            ("fold_mirrors", closed_form.fold_mirrors, False),
            ("shift_images", closed_form.shift_images, False),
        ):
            check(value == allowed, f"setting {name}: expected {allowed} for vectors, got {value}")
        return dataclasses.replace(self, closed_form=closed_form.resolve_vectors(image_shape[0]))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Inverse of `to_dict`, also after a round trip through JSON. Names of version 0.1 are read.

        Raises:
            InputError: a section or a setting is unknown or missing, or a value is not allowed.
        """
        sections = _sections()
        check(
            set(values) == set(sections),
            f"config: expected the sections {', '.join(sections)}, got {', '.join(map(str, values))}",
        )
        parts = {}
        for section, kind in sections.items():
            types = typing.get_type_hints(kind)
            given = values[section]
            settings = rename_settings(given, log=False) if isinstance(given, Mapping) else {}
            if kind is ClosedFormConfig:
                settings = complete_settings(settings)
            settings = add_new_settings(section, settings)
            check(
                set(settings) == set(types),
                f"config, section {section}: expected exactly {', '.join(types)}, got {', '.join(map(str, settings))}",
            )
            parts[section] = kind(**{key: cast(key, value, types[key]) for key, value in settings.items()})
        return cls(**parts)

    def with_settings(self, settings: Mapping[str, Any]) -> Config:
        """Returns a copy with single settings replaced, named without their section.

        Args:
            settings: setting name to value. Strings are parsed as the setting's type, widths as "400,400".

        Raises:
            InputError: a setting is unknown, or its value has the wrong type or is not allowed.
        """
        changes: dict[str, dict[str, Any]] = {section: {} for section in _sections()}
        owners = {key: (s, t) for s, k in _sections().items() for key, t in typing.get_type_hints(k).items()}
        for key, value in rename_settings(settings, log=True).items():
            check(key in owners, f"unknown setting: expected one of {', '.join(owners)}, got {key!r}")
            section, kind = owners[key]
            changes[section][key] = cast(key, value, kind)
        return Config(**{s: dataclasses.replace(getattr(self, s), **c) for s, c in changes.items()})


def _sections() -> dict[str, type]:
    return typing.get_type_hints(Config)
