"""Presets: named settings, the measured best ones, those of the paper, and strategies to compare."""

from dataclasses import replace

from lifelong_cvae.config import ClosedFormConfig, Config, LearningConfig, NetworkConfig, RecognitionConfig
from lifelong_cvae.errors import InputError
from lifelong_cvae.ridge.settings import BY_CHANNELS

# Networks and learning rate of the compared strategies: wider than `default`, without low-rank noise.
_NETWORK = NetworkConfig(category_widths=(128, 128), output_rank=96, noise_rank=0, sample_style="contrast")
_LEARNING = LearningConfig(epochs=20, learning_rate=1.5e-3, full_rate_steps=1, adam_b2=0.999)
# Smaller steps than those of `default`, with which the presets below were measured.
_SMALL_STEPS = LearningConfig(epochs=20, learning_rate=4e-3, full_rate_steps=1, adam_b2=0.999)
_STATIC = replace(_NETWORK, conditioning="one_hot", log_scale=-1.0)
_PLAYBACK_ALONE = {"generate_weight": 0.0, "recognize_weight": 0.0, "circulate_weight": 0.0, "cycles": 0}


def _by_elbo(network: NetworkConfig, learning: LearningConfig) -> Config:
    """Returns settings without the closed-form recognizer, which would hide forgetting."""
    return Config(network, learning, ClosedFormConfig(random_features=0), RecognitionConfig(recognizer="elbo"))


PRESETS = {
    "default": Config(),
    # One second per category: one epoch, recognition by the ELBO alone.
    "fast": Config(
        learning=replace(_SMALL_STEPS, epochs=1, min_steps=50, steps_per_call=50),
        closed_form=ClosedFormConfig(random_features=0),
        recognition=RecognitionConfig(recognizer="elbo"),
    ),
    # Photographs: pixel models draw edges and texture, and learn for long. The regression learns mirror images too, and
    # has more filters, in color a second layer of them.
    "photos": Config(
        network=NetworkConfig(latent_size=32, pixel_widths=(128, 128), sample_temperature=1.07, sample_style="pixels"),
        learning=replace(_SMALL_STEPS, epochs=100),
        closed_form=ClosedFormConfig(fold_mirrors=True, second_filters=BY_CHANNELS),
        recognition=RecognitionConfig(bound="pixels"),
    ),
    # Characters and drawings of strokes: shifted images are learned too.
    "strokes": Config(learning=_SMALL_STEPS, closed_form=ClosedFormConfig(shift_images=True, random_features=5120)),
    # Vectors, such as the embeddings of another network: the scale of each dimension is learned. Evidence adds nothing
    # to the regression, a mixed part adds nothing to evidence, and small batches teach best (selected on a part of the
    # training vectors of CIFAR-10's embeddings).
    "vectors": Config(
        network=NetworkConfig(noise_scale="own", log_scale=-0.3),
        learning=replace(_SMALL_STEPS, mixed_mode="none", batch_size=32, epochs=10, min_steps=100),
        closed_form=ClosedFormConfig(random_features=4000),
        recognition=RecognitionConfig(recognizer="closed_form"),
    ),
    # Many categories: below 150,000 parameters each for images of 28 x 28 pixels.
    "compact": Config(
        network=NetworkConfig(category_widths=(44, 44), output_rank=32, noise_rank=21),
        learning=_SMALL_STEPS,
        closed_form=ClosedFormConfig(random_features=1536),
    ),
    # The closest reading of arXiv 2004.12731.
    "paper": _by_elbo(
        replace(_NETWORK, prior_components=0, sample_style="mean"), replace(_LEARNING, mixed_mode="playback")
    ),
    # Ablations (experiments/compare.py). Static one-hot CVAE: all categories in one task, then one after another
    # without protection, with playback, with playback and the circle. `joint` has as few images per category and
    # step, and at least as many steps, as ten tasks have together.
    "joint": _by_elbo(_STATIC, replace(_LEARNING, mixed_mode="free", batch_size=32, min_steps=2000)),
    "finetune": _by_elbo(_STATIC, replace(_LEARNING, mixed_mode="free")),
    "playback": _by_elbo(_STATIC, replace(_LEARNING, mixed_mode="playback", **_PLAYBACK_ALONE)),
    "circulatory": _by_elbo(_STATIC, replace(_LEARNING, mixed_mode="playback")),
    # Growing CVAE: mixed part unprotected, frozen, absent (same parameters per category), fully protected.
    "free": _by_elbo(_NETWORK, replace(_LEARNING, mixed_mode="free")),
    "frozen": _by_elbo(_NETWORK, replace(_LEARNING, mixed_mode="frozen")),
    "none": _by_elbo(replace(_NETWORK, category_widths=(220, 220)), replace(_LEARNING, mixed_mode="none")),
    "full": _by_elbo(_NETWORK, replace(_LEARNING, mixed_mode="playback")),
}


def preset(name: str) -> Config:
    """Returns the settings of a preset.

    Raises:
        InputError: the preset is unknown.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
