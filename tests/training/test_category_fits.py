"""Fits after training: mixture priors, their shift with the mixed part, and output contrast."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special

import lifelong_cvae as lifelong
from lifelong_cvae.model import mixture_prior
from lifelong_cvae.state import add_category
from lifelong_cvae.training import category_fits
from lifelong_cvae.training.task_data import make_task_data
from lifelong_cvae.training.teacher import Teacher
from tests.compiled import decode_mean, encode_and_sample, sample_image
from tests.conftest import assert_trees_equal, mixture_log_density

fit_contrast = jax.jit(category_fits.fit_contrast)


def mean_log_densities(state, digits, priors):
    """Mean log density of encoded real images under `priors`, by category."""
    values = {}
    for name in state.names:
        x = digits[name].reshape(-1, 784) / np.float32(255)
        z = np.asarray(encode_and_sample(state.model(name), x, rng=jax.random.key(5)))
        values[name] = mixture_log_density(priors[name], z).mean()
    return values


def state_with_shifted_priors(state, mixed, rng):
    """The state with another mixed part, and with priors of all categories shifted to it."""
    priors = category_fits.shift_priors(Teacher(state, ("new",), state.names, rng, None), mixed)
    categories = {name: {**subtree, **priors[name]} for name, subtree in state.params["categories"].items()}
    return state.replace(params={"mixed": mixed, "categories": categories})


def test_fitted_priors_are_likelier_than_standard_normal(learner, digits):
    fitted = {name: learner.model(name).prior for name in learner.names}
    standard = {name: mixture_prior.standard_normal(4) for name in learner.names}
    of_fitted, of_standard = (mean_log_densities(learner, digits, priors) for priors in (fitted, standard))
    for name in learner.names:
        assert of_fitted[name] > of_standard[name] + 0.1


def test_shift_priors_to_same_mixed_part_changes_nothing(learner):
    state = learner
    for seed in range(5):
        state = state_with_shifted_priors(state, learner.params["mixed"], jax.random.key(seed))
    for name in learner.names:
        for key, leaf in learner.model(name).prior.items():
            np.testing.assert_allclose(state.model(name).prior[key], leaf, atol=1e-4)


def test_shift_priors_follows_moved_mixed_part(learner, digits, rng):
    noise = np.random.default_rng(0)
    mixed = jax.tree.map(
        lambda leaf: leaf + 0.1 * noise.normal(size=leaf.shape).astype(np.float32), learner.params["mixed"]
    )
    moved = learner.replace(params={**learner.params, "mixed": mixed})
    shifted = state_with_shifted_priors(learner, mixed, rng)
    stale_priors, shifted_priors = (
        {name: state.model(name).prior for name in learner.names} for state in (learner, shifted)
    )
    before, after = (mean_log_densities(moved, digits, priors) for priors in (stale_priors, shifted_priors))
    for name in learner.names:
        assert after[name] > before[name]


def test_fit_category_parts_without_prior_components_keeps_priors(learner, digits, rng):
    state = learner.replace(config=learner.config.with_settings({"prior_components": 0}))
    data = make_task_data(state, {"2": digits["2"].reshape(-1, 784)}, rng=rng)
    fitted = category_fits.fit_category_parts(state, data, Teacher(state, ("2",), ("0", "1"), rng, None))
    for name in state.names:
        assert fitted.params["categories"][name]["prior"] is state.params["categories"][name]["prior"]
    assert fitted.params["categories"]["2"]["contrast"] is not state.params["categories"]["2"]["contrast"]


def grayness(pixels):
    return np.mean(pixels * (1 - pixels), dtype=np.float64)


def test_sample_image_is_as_gray_as_real_images(learner, digits):
    for name in learner.names:
        model, x = learner.model(name), digits[name].reshape(-1, 784) / np.float32(255)
        z = encode_and_sample(model, x, rng=jax.random.key(7))
        mean, sample = (np.asarray(decode(model, z)) for decode in (decode_mean, sample_image))
        assert grayness(mean) > 1.2 * grayness(x), "the mean averages over images that z does not tell apart"
        assert grayness(sample) == pytest.approx(grayness(x), rel=0.05)


@settings(max_examples=20)
@given(st.floats(0.3, 3.5))
def test_fit_contrast_recovers_contrast(contrast):
    logits = np.random.default_rng(0).normal(size=(20, 30), scale=2).astype(np.float32)
    x = special.expit(contrast * logits)
    fitted = fit_contrast(logits, np.float32(x))
    assert fitted == pytest.approx(contrast, rel=1e-3)
    root = optimize.brentq(lambda factor: grayness(special.expit(factor * logits)) - grayness(x), 0.25, 4)
    assert fitted == pytest.approx(root, rel=1e-3)


def test_fit_contrast_has_limits():
    logits = np.float32([[1.0, -2.0, 0.5]])
    assert fit_contrast(logits, np.float32([[0.0, 1.0, 1.0]])) == pytest.approx(4, abs=1e-3)
    assert fit_contrast(logits, np.full((1, 3), 0.5, np.float32)) == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"sample_style": "mean", "prior_components": 0, "noise_rank": 0},
        {"conditioning": "one_hot", "mixed_mode": "free"},
    ],
    ids=["sample_style=mean", "conditioning=one_hot"],
)
def test_sample_image_without_fitted_parts_is_mean(small_config, rng, digits, settings):
    state = lifelong.init(small_config.with_settings(settings), (28, 28), rng=rng)
    before = add_category(state, "0", rng=rng).model("0")
    state, _ = lifelong.learn(state, {"0": digits["0"]}, rng=rng)
    model = state.model("0")
    for part in ("prior", "low_rank_noise", "contrast"):
        assert_trees_equal(model.category[part], before.category[part])
    z = jax.random.normal(rng, (3, 4))
    np.testing.assert_array_equal(sample_image(model, z), decode_mean(model, z))
