"""Settings: frozen dataclasses, hashable (so that `jit` can take them as static), to and from JSON."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lifelong_cvae.errors import InputError

GROWTHS = ("neurons", "vectors")
SCALES = ("shared", "own")
LIKELIHOODS = ("gaussian", "bernoulli")
LOCALS = ("none", "patches", "convolution")
DRAWINGS = ("texture", "contrast", "mean")
MIXED_MODES = ("frozen", "playback", "free", "none")
MEMORY_TERMS = ("playback", "generate", "recognise", "circulate")
GRAMS = ("mixed", "own")
COMPUTES = ("float32", "bfloat16")
RECOGNIZERS = ("elbo", "closed_form", "combined")
BOUNDS = ("mean", "sampled", "importance")
# Images that figures are measured on.
SPLITS = ("test", "validation")
# Seconds between two saves within a task.
CHECKPOINT_EVERY = 60.0
# Part of the images of known categories that may be called unknown.
REJECT_RATE = 0.01


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of the networks; the same for every category.

    Attributes:
        growth: form of a category's parameters; `neurons`: neurons of its own in every layer;
            `vectors`: a vector in the first layer of encoder and decoder (the one-hot CVAE), for which
            the settings category_widths, rank, local, prior_components, factors and drawing mean nothing.
        mixed_widths: neurons of the mixed part, a number per hidden layer of the encoder;
            the decoder mirrors them. Absent in the mixed mode `none`.
        category_widths: neurons of each category beside them, as many layers.
        rank: rank of a category's map from its last hidden layer to the pixels.
        local: what is drawn patch by patch besides: `none`, `patches` or `convolution` (see `local`).
        latent_size: size of z.
        likelihood: `gaussian` or `bernoulli`.
        scale: of the Gaussian: `shared`, one number for all pixels and categories, or `own`, learned for
            each pixel of each category (one for all with `vectors`), log scale at least -2.5.
        log_scale: log of the shared scale, pixels being in [0, 1]; the first one where it is learned.
        prior_components: Gaussians in the mixture p(z|c) that is fitted once a category is learned;
            0: p(z|c) stays N(0, I).
        factors: directions of a category's remainder that its likelihood knows besides (see `factors`), with
            likelihood `gaussian`; 0: the remainder is white noise.
        drawing: what an imagined image is: `mean`, the decoder's mean; `contrast`, that mean with the
            contrast of the category's real images (see `settling.fit_contrast`); or `texture`, with what
            the decoder does not draw of them besides (see `cvae.draw`), where there are factors.
    """

    growth: str = "neurons"
    mixed_widths: tuple[int, ...] = (400, 400)
    category_widths: tuple[int, ...] = (80, 80)
    rank: int = 48
    local: str = "none"
    latent_size: int = 8
    likelihood: str = "gaussian"
    scale: str = "shared"
    log_scale: float = -1.75
    prior_components: int = 50
    factors: int = 50
    drawing: str = "texture"

    def __post_init__(self):
        require_choice("growth", self.growth, GROWTHS)
        require_choice("likelihood", self.likelihood, LIKELIHOODS)
        require_choice("scale", self.scale, SCALES)
        require_choice("local", self.local, LOCALS)
        require_choice("drawing", self.drawing, DRAWINGS)
        for name in ("mixed_widths", "category_widths"):
            widths = getattr(self, name)
            require(len(widths) > 0, f"setting {name}: at least one layer is expected")
            require_positive(name, *widths)
        require(
            self.growth == "vectors" or len(self.mixed_widths) == len(self.category_widths),
            f"settings mixed_widths={self.mixed_widths} and category_widths={self.category_widths}: "
            "the same number of layers is expected",
        )
        require_positive("rank", self.rank)
        require_positive("latent_size", self.latent_size)
        require_not_negative("prior_components", self.prior_components)
        require_not_negative("factors", self.factors)


@dataclass(frozen=True)
class LearningConfig:
    """How a task is learned.

    Attributes:
        mixed_mode: `playback` (the mixed part keeps learning, protected by memory), `frozen` (so during
            the childhood, and not at all afterwards), `free` (it keeps learning, unprotected) or
            `none` (there is no mixed part: every category stands alone).
        childhood: number of categories during which the mixed part learns in mode `frozen`.
        epochs: passes over the images of the largest category of a task.
        min_steps: lower bound on the number of training steps of a task.
        batch_size: images per category and step.
        learning_rate: peak of the cosine schedule of Adam.
        chunk_steps: steps in one call of the jitted training function; a task is whole chunks.
        playback_weight: of -ELBO_c(x*), for a remembered image x*; this and the next three: 0 leaves
            the term out.
        generate_weight: of ||decode(z*) - x*||^2, for a remembered pair (z*, x*).
        recognise_weight: of KL(q_teacher(z|x*,c) || q(z|x*,c)).
        circulate_weight: of -log q(z*|decode(z*),c).
        cycles: turns of the circle that a memory takes before it serves (circulatory warm-up).
        memory_size: pairs that are remembered at a time, of all earlier categories together.
        memory_categories: groups of pairs in a step; a group is of one category.
        memory_images: pairs in a group.
        refresh_chunks: chunks after which the memory is imagined anew.
        compute: type that networks compute in while they are trained, `float32` or `bfloat16`; parameters,
            sums over pixels and all that is computed afterwards are float32 in any case.
    """

    mixed_mode: str = "frozen"
    childhood: int = 1
    epochs: int = 20
    min_steps: int = 200
    batch_size: int = 128
    learning_rate: float = 4e-3
    chunk_steps: int = 100
    playback_weight: float = 1.0
    generate_weight: float = 1.0
    recognise_weight: float = 1.0
    circulate_weight: float = 0.1
    cycles: int = 1
    memory_size: int = 4096
    memory_categories: int = 4
    memory_images: int = 32
    refresh_chunks: int = 3
    compute: str = "float32"

    def __post_init__(self):
        require_choice("mixed_mode", self.mixed_mode, MIXED_MODES)
        require_choice("compute", self.compute, COMPUTES)
        positive = ("childhood", "epochs", "batch_size", "learning_rate", "chunk_steps")
        for name in (*positive, "memory_size", "memory_categories", "memory_images", "refresh_chunks"):
            require_positive(name, getattr(self, name))
        for name in ("min_steps", "cycles", *(f"{term}_weight" for term in MEMORY_TERMS)):
            require_not_negative(name, getattr(self, name))
        require(
            self.memory_size >= self.memory_categories * self.memory_images,
            f"setting memory_size={self.memory_size}: at least memory_categories * memory_images = "
            f"{self.memory_categories * self.memory_images} is expected, what a step takes",
        )

    @property
    def memory_weights(self) -> dict[str, float]:
        """Weights of the terms on remembered pairs, those that are not 0."""
        weights = {term: getattr(self, f"{term}_weight") for term in MEMORY_TERMS}
        return {term: weight for term, weight in weights.items() if weight}


@dataclass(frozen=True)
class ClosedFormConfig:
    """The closed-form recogniser: features that the first task fixes, and sums of them (see `ridge`).

    Attributes:
        filters: of the dictionary.
        filter_size: height and width of a filter in pixels; smaller where images are smaller.
        cells: rows and columns of the grid over whose cells responses are summed.
        random_features: of the random expansion; 0: no sums are kept, and there is no such recogniser.
        gram: `mixed`, one Gram matrix for all categories, or `own`, a share for each, so that a category
            can be dropped from it exactly: 1.1 (random_features + 1)^2 values more a category.
    """

    filters: int = 250
    filter_size: int = 6
    cells: int = 4
    random_features: int = 5000
    gram: str = "mixed"

    def __post_init__(self):
        for name in ("filters", "filter_size", "cells"):
            require_positive(name, getattr(self, name))
        require_not_negative("random_features", self.random_features)
        require_choice("gram", self.gram, GRAMS)


@dataclass(frozen=True)
class RecognitionConfig:
    """How images are recognised.

    Attributes:
        recogniser: `elbo` (a bound on log p(x|c)), `closed_form` (see `ClosedFormConfig`) or `combined`
            (the product of both, see `calibration`).
        bound: `mean` (the ELBO with z at the posterior's mean), `sampled` (the ELBO, averaged
            over samples of z) or `importance` (the importance-weighted bound).
        samples: samples of z per image and category, for the last two.
        block_images: images that are treated in one call of the jitted function.
    """

    recogniser: str = "combined"
    bound: str = "mean"
    samples: int = 20
    block_images: int = 1024

    def __post_init__(self):
        require_choice("recogniser", self.recogniser, RECOGNIZERS)
        require_choice("bound", self.bound, BOUNDS)
        require_positive("samples", self.samples)
        require_positive("block_images", self.block_images)


@dataclass(frozen=True)
class Config:
    """All settings of a lifelong CVAE. The defaults are the preset `default`."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    closed_form: ClosedFormConfig = field(default_factory=ClosedFormConfig)
    recognition: RecognitionConfig = field(default_factory=RecognitionConfig)

    def __post_init__(self):
        require(
            self.network.growth != "vectors" or self.has_mixed,
            "settings growth=vectors and mixed_mode=none: a mode with a mixed part is expected",
        )
        require(
            self.recognition.recogniser == "elbo" or self.closed_form.random_features > 0,
            f"settings recogniser={self.recognition.recogniser} and random_features=0: recogniser=elbo, "
            "or more features, is expected",
        )

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
        require(
            set(values) == set(sections),
            f"config: the sections {', '.join(sections)} are expected, got {', '.join(map(str, values))}",
        )
        parts = {}
        for section, kind in sections.items():
            types = typing.get_type_hints(kind)
            require(
                isinstance(values[section], Mapping) and set(values[section]) == set(types),
                f"config: section {section} must hold exactly {', '.join(types)}",
            )
            parts[section] = kind(**{key: cast(key, value, types[key]) for key, value in values[section].items()})
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
            require(key in owners, f"unknown setting {key!r}: one of {', '.join(owners)} is expected")
            section, kind = owners[key]
            changes[section][key] = cast(key, value, kind)
        return Config(**{s: dataclasses.replace(getattr(self, s), **c) for s, c in changes.items()})


def _sections() -> dict[str, type]:
    return typing.get_type_hints(Config)


def require(condition: bool, message: str) -> None:
    """Raises InputError with the message where the condition does not hold."""
    if not condition:
        raise InputError(message)


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Of a setting that is one of a few texts."""
    require(value in choices, f"setting {name}={value!r}: one of {', '.join(choices)} is expected")


def require_positive(name: str, *values: float) -> None:
    """Of a setting that is a number above 0, or several."""
    require(all(v > 0 for v in values), f"setting {name}: values above 0 are expected, got {values}")


def require_not_negative(name: str, value: float) -> None:
    """Of a setting that is a number, 0 or more."""
    require(value >= 0, f"setting {name}={value}: at least 0 is expected")


def cast(name: str, value: Any, kind: Any) -> Any:
    """`value` as `kind` (str, int, float or tuple of int), where nothing is lost by it."""
    if kind == tuple[int, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)):
            raise InputError(f'setting {name}={value!r}: whole numbers such as "400,400" are expected')
        return tuple(cast(name, part, int) for part in parts)
    expected = {str: "a text", int: "a whole number", float: "a number"}[kind]
    try:
        found = kind(value)
        exact = isinstance(value, str) or found == value
    except (TypeError, ValueError, OverflowError):
        exact = False
    if not exact or isinstance(value, bool) or found != found or found in (float("inf"), -float("inf")):
        raise InputError(f"setting {name}={value!r}: {expected} is expected")
    return found
