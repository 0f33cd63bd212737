"""What the library computes does not depend on the types that JAX's settings select in a process."""

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.checkpoints import digest
from tests.conftest import SMALL_FEATURES, assert_trees_equal

SETTINGS = {"strict promotion": lambda: jax.numpy_dtype_promotion("strict"), "x64": lambda: jax.enable_x64(True)}
CONFIGS = {
    "neurons": {
        **SMALL_FEATURES,
        **{"recognizer": "combined", "local": "patches", "noise_scale": "own"},
        **{"mixed_mode": "playback", "noise_rank": 2, "prior_components": 2},
    },
    "one_hot": {"conditioning": "one_hot", "mixed_mode": "playback"},
}


def use_everything(config, digits, folder):
    """Learns, answers, saves, loads and drops; returns the state and all answers."""
    rng = jax.random.key(0)
    state = lifelong.init(config, (28, 28), rng=rng)
    for name in "31":
        state, _ = lifelong.learn(state, {name: digits[name][:40]}, rng=rng)
    state, _ = lifelong.learn(state, {"3": digits["3"][40:60] / np.float64(255)}, rng=rng)
    images = np.concatenate([digits[name][-3:] for name in "31"])
    lifelong.save(state, folder)
    codes = lifelong.encode(state, "3", images)
    answers = {
        "evidence": lifelong.evidence(state, images),
        "names": lifelong.recognize(state, images)[0],
        "probabilities": lifelong.recognize(state, images)[1],
        "imagined": lifelong.imagine(state, ["3", "1"], 2, rng=rng, cycles=1),
        "codes": codes,
        "decoded": lifelong.decode(state, "3", codes),
        "unknown": lifelong.unknown(state, lifelong.evidence(state, images), lifelong.recognize(state, images)[0]),
        "dropped": lifelong.evidence(lifelong.drop(state, "1"), images),
        "loaded": digest(lifelong.load(folder)),
    }
    return state, jax.device_get(answers)


@pytest.fixture(scope="module", params=["neurons", pytest.param("one_hot", marks=pytest.mark.slow)])
def plain(request, small_config, digits, tmp_path_factory):
    config = small_config.with_settings(CONFIGS[request.param])
    folder = tmp_path_factory.mktemp("plain")
    return config, folder, *use_everything(config, digits, folder)


@pytest.mark.parametrize("setting", SETTINGS)
def test_learning_and_answers_do_not_depend_on_jax_settings(plain, digits, tmp_path, setting):
    config, folder, expected_state, expected = plain
    with SETTINGS[setting]():
        state, answers = use_everything(config, digits, tmp_path / "checkpoints")
        assert digest(lifelong.load(folder)) == expected["loaded"]
    assert_trees_equal(state.params, expected_state.params)
    assert_trees_equal(answers, expected)
    assert digest(lifelong.load(tmp_path / "checkpoints")) == expected["loaded"]
