import jax
import numpy as np

from lifelong_cvae import cvae, growth, prior, settling
from tests.conftest import mixture_log_density


def likelihoods(learner, digits, priors):
    """Mean log density of where the encoder puts the real images, for each category."""
    values = {}
    for name in learner.names:
        x = digits[name].reshape(-1, 784) / np.float32(255)
        z = cvae.encode(learner.path(name), x).sample(rng=jax.random.key(5))
        values[name] = mixture_log_density(priors[name], z).mean()
    return values


def test_the_prior_of_a_learned_category_lies_where_its_images_are(learner, digits):
    fitted = {name: learner.path(name).prior for name in learner.names}
    standard = {name: prior.standard_normal(4) for name in learner.names}
    ours, theirs = (likelihoods(learner, digits, priors) for priors in (fitted, standard))
    for name in learner.names:
        assert ours[name] > theirs[name] + 0.1


def settled(state, mixed, rng):
    stack = growth.stack(state, state.names)
    priors = settling.move_priors(state, mixed, stack, state.names, rng=rng)
    categories = {n: {**tree, "prior": priors[n]} for n, tree in state.params["categories"].items()}
    return state.replace(params={"mixed": mixed, "categories": categories})


def test_priors_stay_where_they_are_while_the_mixed_part_does_however_often(learner):
    state = learner
    for turn in range(5):
        state = settled(state, learner.params["mixed"], jax.random.key(turn))
    for name in learner.names:
        for key, leaf in learner.path(name).prior.items():
            np.testing.assert_allclose(state.path(name).prior[key], leaf, atol=1e-4)


def test_priors_follow_a_mixed_part_that_moves(learner, digits, rng):
    noise = np.random.default_rng(0)
    mixed = jax.tree.map(
        lambda leaf: leaf + 0.1 * noise.normal(size=leaf.shape).astype(np.float32), learner.params["mixed"]
    )
    stale = learner.replace(params={**learner.params, "mixed": mixed})
    priors = {name: learner.path(name).prior for name in learner.names}
    followed = settled(learner, mixed, rng)
    moved = {name: followed.path(name).prior for name in learner.names}
    before, after = (likelihoods(stale, digits, chosen) for chosen in (priors, moved))
    for name in learner.names:
        assert after[name] > before[name]


def test_nothing_is_settled_where_priors_stay_standard_normal(learner, rng):
    state = learner.replace(config=learner.config.with_settings({"prior_components": 0}))
    stack = growth.stack(state, state.names)
    assert settling.move_priors(state, state.params["mixed"], stack, state.names, rng=rng) == {}
