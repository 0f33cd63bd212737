"""Estimators for scikit-learn (extra `sklearn`)."""

import importlib.util

from lifelong_cvae.errors import MissingExtraError

if importlib.util.find_spec("sklearn") is None:
    raise MissingExtraError("LifelongClassifier", "scikit-learn", "sklearn")
