"""Presets: settings by name. What we measured to be best, the paper's, and strategies to compare."""

from __future__ import annotations

from dataclasses import replace

from lifelong_cvae.config import ClosedFormConfig, Config, LearningConfig, NetworkConfig, RecognitionConfig
from lifelong_cvae.errors import InputError

# The networks and the rate that strategies are compared with: wider than those of `default`, without factors.
_NETWORK = NetworkConfig(category_widths=(128, 128), output_rank=96, noise_rank=0, sample_style="contrast")
_LEARNING = LearningConfig(learning_rate=1.5e-3)
_STATIC = replace(_NETWORK, conditioning="one_hot", log_scale=-1.0)
_PLAYBACK_ALONE = {"generate_weight": 0.0, "recognize_weight": 0.0, "circulate_weight": 0.0, "cycles": 0}


def _by_elbo(network: NetworkConfig, learning: LearningConfig) -> Config:
    """Without the closed-form recognizer, which needs no memory and would hide what a strategy forgets."""
    return Config(network, learning, ClosedFormConfig(random_features=0), RecognitionConfig(recognizer="elbo"))


PRESETS = {
    "default": Config(),
    # Learned in a second a category: one pass, and recognition by the ELBO alone.
    "fast": Config(
        learning=LearningConfig(epochs=1, min_steps=50, steps_per_call=50),
        closed_form=ClosedFormConfig(random_features=0),
        recognition=RecognitionConfig(recognizer="elbo"),
    ),
    # For many categories: below 150,000 parameters each, of images of 28 x 28.
    "compact": Config(network=NetworkConfig(category_widths=(44, 44), output_rank=32, noise_rank=21)),
    # The closest reading of arXiv 2004.12731.
    "paper": _by_elbo(
        replace(_NETWORK, prior_components=0, sample_style="mean"), replace(_LEARNING, mixed_mode="playback")
    ),
    # What each idea is worth (experiments/compare.py). A static one-hot CVAE: all categories at once
    # (as one task), one after another with nothing done, with playback, with playback and the circle.
    # As few images of each category in a step, and as many steps at least, as ten tasks have in all.
    "joint": _by_elbo(_STATIC, replace(_LEARNING, mixed_mode="free", batch_size=32, min_steps=2000)),
    "finetune": _by_elbo(_STATIC, replace(_LEARNING, mixed_mode="free")),
    "playback": _by_elbo(_STATIC, replace(_LEARNING, mixed_mode="playback", **_PLAYBACK_ALONE)),
    "circulatory": _by_elbo(_STATIC, replace(_LEARNING, mixed_mode="playback")),
    # Growth: the mixed part unprotected, frozen, absent (as many parameters a category), with everything.
    "free": _by_elbo(_NETWORK, replace(_LEARNING, mixed_mode="free")),
    "frozen": _by_elbo(_NETWORK, replace(_LEARNING, mixed_mode="frozen")),
    "none": _by_elbo(replace(_NETWORK, category_widths=(220, 220)), replace(_LEARNING, mixed_mode="none")),
    "full": _by_elbo(_NETWORK, replace(_LEARNING, mixed_mode="playback")),
}


def preset(name: str) -> Config:
    """The settings of a preset by its name.

    Raises:
        InputError: there is no such preset.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}: one of {', '.join(PRESETS)} is expected")
    return PRESETS[name]
