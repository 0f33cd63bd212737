"""Generative models that learn one category of images after another and never forget."""

from lifelong_cvae.checkpoint import load, save
from lifelong_cvae.closed_form import drop
from lifelong_cvae.config import ClosedFormConfig, Config, LearningConfig, NetworkConfig, RecognitionConfig
from lifelong_cvae.errors import InputError, MissingExtraError
from lifelong_cvae.growth import LifelongState, init
from lifelong_cvae.learning import Report, learn, learn_stream
from lifelong_cvae.parallel import make_mesh
from lifelong_cvae.playback import imagine
from lifelong_cvae.presets import preset
from lifelong_cvae.recognition import evidence, recognise, recogniser, unknown
from lifelong_cvae.version import __version__

__all__ = [
    "ClosedFormConfig",
    "Config",
    "InputError",
    "LearningConfig",
    "LifelongState",
    "MissingExtraError",
    "NetworkConfig",
    "RecognitionConfig",
    "Report",
    "__version__",
    "drop",
    "evidence",
    "imagine",
    "init",
    "learn",
    "learn_stream",
    "load",
    "make_mesh",
    "preset",
    "recognise",
    "recogniser",
    "save",
    "unknown",
]
