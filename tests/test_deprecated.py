"""Names of version 0.1 that 0.2 accepts."""

import logging
from pathlib import Path

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import deprecated

ROOT = Path(__file__).parents[1]
PUBLIC_NAMES_OF_0_1 = (
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
)


@pytest.fixture
def log_lines(caplog):
    """Capture of the package's logger, in which every deprecated name is logged again."""
    deprecated.warn.cache_clear()
    caplog.set_level(logging.WARNING, logger="lifelong_cvae")
    return caplog


@pytest.mark.parametrize("name", PUBLIC_NAMES_OF_0_1)
def test_package_has_every_name_of_0_1(name, log_lines):
    value = getattr(lifelong, name)
    new = deprecated.PUBLIC_NAMES.get(name, name)
    assert value is getattr(lifelong, new)
    getattr(lifelong, name)
    assert len(log_lines.messages) == (name != new)
    assert new in lifelong.__all__


def test_package_refuses_unknown_names():
    with pytest.raises(AttributeError, match="recognice"):
        _ = lifelong.recognice


def test_state_has_old_attributes(learner, log_lines):
    assert learner.childhood_left == learner.base_categories_left
    assert learner.path("2").category is learner.model("2").category
    assert len(log_lines.messages) == 2


def test_learn_accepts_midway(small_config, digits, rng, log_lines):
    state = lifelong.init(small_config, (28, 28), rng=rng)
    recorded = []
    expected, _ = lifelong.learn(
        state, {"1": digits["1"]}, rng=rng, progress=lambda at, total: recorded.append(jax.tree.map(np.array, at.carry))
    )
    progress = []

    def stop(at, total):
        progress.append(at._replace(carry=jax.tree.map(np.array, at.carry)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lifelong.learn(state, {"1": digits["1"]}, rng=rng, progress=stop)
    resumed, _ = lifelong.learn(state, {"1": digits["1"]}, rng=rng, midway=progress[0])
    assert len(recorded) > 1
    jax.tree.map(np.testing.assert_array_equal, resumed.params, expected.params)
    assert len(log_lines.messages) == 1


def test_with_old_keys_keeps_both_keys_and_leaves_categories_alone():
    values = {
        "recognizer": "elbo",
        "terms": {"real": 1.0, "recognize": 2.0},
        "accuracy_per_category": {"recognize": 0.5},
    }
    assert deprecated.with_old_keys(values) == {
        "recognizer": "elbo",
        "recogniser": "elbo",
        "terms": {"real": 1.0, "recognize": 2.0, "recognise": 2.0},
        "accuracy_per_category": {"recognize": 0.5},
    }


def test_changelog_lists_every_old_and_new_name():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    tables = (
        deprecated.PUBLIC_NAMES,
        deprecated.SETTINGS,
        deprecated.PARAMETER_KEYS,
        {old: new for new, old in deprecated.RESULT_KEYS.items()},
        {f"--{old}": f"--{new}" for old, new in deprecated.FLAGS.items()},
        {old: new for (_, old), new in deprecated.VALUES.items()},
    )
    for table in tables:
        for old, new in table.items():
            assert f"`{old}`" in text, old
            assert f"`{new}`" in text, new
