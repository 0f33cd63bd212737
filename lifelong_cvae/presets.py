"""Presets: settings by name. What we measured to be best, the paper's, and strategies to compare."""

from __future__ import annotations

from lifelong_cvae.config import Config, LearningConfig, NetworkConfig
from lifelong_cvae.errors import InputError

_STATIC = NetworkConfig(growth="vectors", log_scale=-1.0)
_PLAYBACK_ALONE = {"generate_weight": 0.0, "recognise_weight": 0.0, "circulate_weight": 0.0, "cycles": 0}

PRESETS = {
    "default": Config(),
    # The closest reading of arXiv 2004.12731.
    "paper": Config(NetworkConfig(prior_components=0, drawing="mean"), LearningConfig(mixed_mode="playback")),
    # What each idea is worth (experiments/compare.py). A static one-hot CVAE: all categories at once
    # (as one task), one after another with nothing done, with playback, with playback and the circle.
    # As few images of each category in a step, and as many steps at least, as ten tasks have in all.
    "joint": Config(_STATIC, LearningConfig(mixed_mode="free", batch_size=32, min_steps=2000)),
    "finetune": Config(_STATIC, LearningConfig(mixed_mode="free")),
    "playback": Config(_STATIC, LearningConfig(mixed_mode="playback", **_PLAYBACK_ALONE)),
    "circulatory": Config(_STATIC, LearningConfig(mixed_mode="playback")),
    # Growth: the mixed part unprotected, frozen, absent (as many parameters a category), with everything.
    "free": Config(learning=LearningConfig(mixed_mode="free")),
    "frozen": Config(learning=LearningConfig(mixed_mode="frozen")),
    "none": Config(NetworkConfig(category_widths=(220, 220)), LearningConfig(mixed_mode="none")),
    "full": Config(learning=LearningConfig(mixed_mode="playback")),
}


def preset(name: str) -> Config:
    """The settings of a preset by its name.

    Raises:
        InputError: there is no such preset.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}: one of {', '.join(PRESETS)} is expected")
    return PRESETS[name]
