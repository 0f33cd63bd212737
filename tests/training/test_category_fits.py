import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special

import lifelong_cvae as lifelong
from lifelong_cvae.model import cvae, mixture_prior
from lifelong_cvae.stacked import stack_categories
from lifelong_cvae.state import add_category
from lifelong_cvae.training import category_fits
from tests.conftest import assert_trees_equal, mixture_log_density


def likelihoods(learner, digits, priors):
    """Mean log density of where the encoder puts the real images, for each category."""
    values = {}
    for name in learner.names:
        x = digits[name].reshape(-1, 784) / np.float32(255)
        z = cvae.encode(learner.model(name), x).sample(rng=jax.random.key(5))
        values[name] = mixture_log_density(priors[name], z).mean()
    return values


def test_the_prior_of_a_learned_category_lies_where_its_images_are(learner, digits):
    fitted = {name: learner.model(name).prior for name in learner.names}
    standard = {name: mixture_prior.standard_normal(4) for name in learner.names}
    ours, theirs = (likelihoods(learner, digits, priors) for priors in (fitted, standard))
    for name in learner.names:
        assert ours[name] > theirs[name] + 0.1


def settled(state, mixed, rng):
    stack = stack_categories(state, state.names)
    priors = category_fits.shift_priors(state, mixed, stack, state.names, rng=rng)
    categories = {n: {**tree, **priors[n]} for n, tree in state.params["categories"].items()}
    return state.replace(params={"mixed": mixed, "categories": categories})


def test_priors_stay_where_they_are_while_the_mixed_part_does_however_often(learner):
    state = learner
    for turn in range(5):
        state = settled(state, learner.params["mixed"], jax.random.key(turn))
    for name in learner.names:
        for key, leaf in learner.model(name).prior.items():
            np.testing.assert_allclose(state.model(name).prior[key], leaf, atol=1e-4)


def test_priors_follow_a_mixed_part_that_moves(learner, digits, rng):
    noise = np.random.default_rng(0)
    mixed = jax.tree.map(
        lambda leaf: leaf + 0.1 * noise.normal(size=leaf.shape).astype(np.float32), learner.params["mixed"]
    )
    stale = learner.replace(params={**learner.params, "mixed": mixed})
    priors = {name: learner.model(name).prior for name in learner.names}
    followed = settled(learner, mixed, rng)
    moved = {name: followed.model(name).prior for name in learner.names}
    before, after = (likelihoods(stale, digits, chosen) for chosen in (priors, moved))
    for name in learner.names:
        assert after[name] > before[name]


def test_nothing_is_settled_where_priors_stay_standard_normal(learner, rng):
    state = learner.replace(config=learner.config.with_settings({"prior_components": 0}))
    assert not category_fits.fits_priors(state)


def grayness(pixels):
    return np.mean(pixels * (1 - pixels), dtype=np.float64)


def test_contrast_makes_drawings_as_grey_as_real_images(learner, digits):
    for name in learner.names:
        path, x = learner.model(name), digits[name].reshape(-1, 784) / np.float32(255)
        z = cvae.encode(path, x).sample(rng=jax.random.key(7))
        blurred, drawn = (np.asarray(draw(path, z)) for draw in (cvae.decode_mean, cvae.sample_image))
        assert grayness(blurred) > 1.2 * grayness(x), "an average over what cannot be told apart"
        assert grayness(drawn) == pytest.approx(grayness(x), rel=0.05)


@settings(max_examples=20)
@given(st.floats(0.3, 3.5))
def test_a_contrast_is_found_again(contrast):
    logits = np.random.default_rng(0).normal(size=(20, 30), scale=2).astype(np.float32)
    x = special.expit(contrast * logits)
    found = category_fits.fit_contrast(jnp.asarray(logits), jnp.asarray(x))
    assert found == pytest.approx(contrast, rel=1e-3)
    root = optimize.brentq(lambda s: grayness(special.expit(s * logits)) - grayness(x), 0.25, 4)
    assert found == pytest.approx(root, rel=1e-3)


def test_contrast_has_limits():
    logits = jnp.asarray([[1.0, -2.0, 0.5]])
    assert category_fits.fit_contrast(logits, jnp.asarray([[0.0, 1.0, 1.0]])) == pytest.approx(4, abs=1e-3)
    assert category_fits.fit_contrast(logits, jnp.full((1, 3), 0.5)) == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"sample_style": "mean", "prior_components": 0, "noise_rank": 0},
        {"conditioning": "one_hot", "mixed_mode": "free"},
    ],
    ids=["drawing=mean", "growth=vectors"],
)
def test_without_contrast_the_mean_is_drawn(small_config, rng, digits, settings):
    state = lifelong.init(small_config.with_settings(settings), (28, 28), rng=rng)
    before = add_category(state, "0", rng=rng).model("0").category
    state, _ = lifelong.learn(state, {"0": digits["0"]}, rng=rng)
    for part in ("prior", "factors", "contrast"):
        assert_trees_equal(state.model("0").category[part], before[part])
    z = jax.random.normal(rng, (3, 4))
    np.testing.assert_array_equal(cvae.sample_image(state.model("0"), z), cvae.decode_mean(state.model("0"), z))
