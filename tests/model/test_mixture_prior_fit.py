from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn.mixture import GaussianMixture

from lifelong_cvae.model import mixture_prior
from tests.conftest import mixture_log_density

fit = partial(jax.jit, static_argnames="components")(mixture_prior.fit)


def mixture(weights, means, variances):
    return {
        "logits": jnp.log(jnp.asarray(weights)),
        "means": jnp.asarray(means),
        "log_vars": jnp.log(jnp.asarray(variances)),
    }


SEPARATED = mixture([0.5, 0.3, 0.2], [[0.0, 0.0], [6.0, 1.0], [-1.0, 7.0]], [[1.0, 0.2], [0.3, 0.5], [0.6, 1.5]])
OVERLAPPING = mixture([0.6, 0.4], [[0.0, 0.0], [1.5, 1.0]], [[1.0, 0.5], [0.3, 1.2]])


def draws(of, count, seed):
    return mixture_prior.sample(of, count, rng=jax.random.key(100 + seed))


def used(fitted):
    return np.asarray(fitted["logits"]) > mixture_prior.UNUSED_LOGIT / 2


def log_likelihood(fitted, z):
    return mixture_log_density(fitted, z).mean()


@pytest.mark.parametrize("seed", range(3))
def test_a_well_separated_mixture_is_recovered(seed):
    fitted = fit(draws(SEPARATED, 6000, seed), components=3, rng=jax.random.key(seed))
    order = [np.square(fitted["means"] - mean[None]).sum(1).argmin() for mean in SEPARATED["means"]]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(np.asarray(fitted["means"])[order], SEPARATED["means"], atol=0.1)
    variances = np.exp(np.asarray(fitted["log_vars"]))[order]
    np.testing.assert_allclose(variances, np.exp(SEPARATED["log_vars"]), rtol=0.15)
    np.testing.assert_allclose(special.softmax(fitted["logits"])[order], [0.5, 0.3, 0.2], atol=0.03)


@pytest.mark.parametrize("truth", [SEPARATED, OVERLAPPING], ids=["separated", "overlapping"])
def test_with_more_components_than_needed_unseen_points_are_as_likely_as_under_the_truth(truth):
    unseen = draws(truth, 20_000, 1)
    fitted = fit(draws(truth, 6000, 0), components=12, rng=jax.random.key(0))
    loss = log_likelihood(truth, unseen) - log_likelihood(fitted, unseen)
    assert 0 < loss < 0.03
    one = fit(draws(truth, 6000, 0), components=1, rng=jax.random.key(0))
    assert log_likelihood(fitted, unseen) > log_likelihood(one, unseen) + 0.05


@pytest.mark.parametrize("seed", range(2))
def test_points_are_as_likely_as_under_scikit_learns_mixture(seed):
    points = np.random.default_rng(seed).gamma(2.0, size=(3000, 3)).astype(np.float32)
    fitted = fit(jnp.asarray(points), components=8, rng=jax.random.key(seed))
    theirs = GaussianMixture(8, covariance_type="diag", reg_covar=1e-3, max_iter=300, random_state=seed)
    assert abs(log_likelihood(fitted, points) - theirs.fit(points).score(points)) < 0.05


def test_log_prob_of_a_fitted_mixture_agrees_with_scipy_and_unused_components_are_never_drawn():
    points = draws(SEPARATED, 70, 0)
    fitted = fit(points, components=9, rng=jax.random.key(0))
    assert used(fitted).tolist() == [True] * 3 + [False] * 6
    z = 3 * jax.random.normal(jax.random.key(1), (50, 2))
    expected = mixture_log_density({name: values[:3] for name, values in fitted.items()}, z)
    np.testing.assert_allclose(mixture_prior.log_prob(fitted, z), expected, rtol=1e-5)
    # Whatever an unused component says is without consequence.
    odd = {**fitted, "means": fitted["means"].at[3:].set(1e3), "log_vars": fitted["log_vars"].at[3:].set(7.0)}
    np.testing.assert_array_equal(mixture_prior.log_prob(odd, z), mixture_prior.log_prob(fitted, z))
    drawn = mixture_prior.sample(odd, 2000, rng=jax.random.key(2))
    assert float(jnp.abs(drawn).max()) < 30


def penalised(fitted, z, components, floor):
    """What each iteration maximizes: log likelihood and the logarithm of the conjugate prior, in float64."""
    center, spread = z.mean(axis=0), z.var(axis=0)
    means, log_vars = (np.asarray(fitted[k], np.float64) for k in ("means", "log_vars"))
    strength = mixture_prior.VARIANCE_STRENGTH + mixture_prior.MEAN_STRENGTH
    expected = spread / components ** (2 / z.shape[1])
    drawn_to = mixture_prior.VARIANCE_STRENGTH * expected + mixture_prior.MEAN_STRENGTH * np.square(means - center)
    assert np.exp(log_vars).min() > floor
    conjugate = -0.5 * (strength * log_vars + drawn_to * np.exp(-log_vars)).sum()
    return mixture_log_density(fitted, z).sum() + conjugate


@pytest.mark.slow
def test_no_iteration_makes_the_points_less_likely(monkeypatch):
    points = draws(OVERLAPPING, 500, 0)
    values, likelihoods = [], []
    for iterations in (0, 1, 3, 10, 60):
        monkeypatch.setattr(mixture_prior, "ITERATIONS", iterations)
        fitted = mixture_prior.fit(points, 5, rng=jax.random.key(3))
        values.append(penalised(fitted, np.asarray(points, np.float64), 5, mixture_prior.VARIANCE_FLOOR))
        likelihoods.append(log_likelihood(fitted, points))
    assert np.diff(values).min() > -1e-2
    assert values[-1] > values[0] + 10
    assert likelihoods[-1] > likelihoods[0] + 0.1


def test_ten_images_give_a_broad_density_and_no_copies_of_them():
    points = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    # As it is called after a task: many samples of the posteriors of few images.
    samples = np.repeat(points, 200, axis=0)
    samples += 0.02 * np.random.default_rng(1).normal(size=samples.shape).astype(np.float32)
    for given_points, images in ((points, None), (samples, 10)):
        fitted = fit(jnp.asarray(given_points), components=6, images=images, rng=jax.random.key(0))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted))
        assert used(fitted).sum() == 1
        variances = np.exp(np.asarray(fitted["log_vars"][0]))
        assert (variances > 0.5 * points.var(axis=0)).all()
        assert variances.min() > 50 * mixture_prior.VARIANCE_FLOOR
        drawn = np.asarray(mixture_prior.sample(fitted, 500, rng=jax.random.key(1)))
        fresh = np.random.default_rng(2).normal(size=(500, 4))
        nearest, expected = (np.sqrt(np.square(x[:, None] - points).sum(-1)).min(axis=1) for x in (drawn, fresh))
        assert np.median(nearest) > 0.7 * np.median(expected)
        assert (nearest < 0.1).mean() < 0.05


def test_fifty_images_in_two_components_are_no_nearer_than_fresh_points():
    points = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    fitted = fit(jnp.asarray(np.repeat(points, 40, axis=0)), components=50, images=50, rng=jax.random.key(0))
    assert used(fitted).sum() == 2
    drawn = np.asarray(mixture_prior.sample(fitted, 1000, rng=jax.random.key(1)))
    fresh = np.random.default_rng(2).normal(size=(1000, 4))
    nearest, expected = (np.median(np.sqrt(np.square(x[:, None] - points).sum(-1)).min(axis=1)) for x in (drawn, fresh))
    assert nearest > 0.7 * expected


@settings(max_examples=30)
@given(st.integers(1, 3000))
def test_at_most_one_component_per_twenty_images_is_used(images):
    points = jax.random.normal(jax.random.key(0), (256, 3))
    fitted = fit(points, components=7, images=jnp.int32(images), rng=jax.random.key(1))
    assert used(fitted).sum() == np.clip(images // 20, 1, 7)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted))
    assert np.isfinite(mixture_prior.sample(fitted, 100, rng=jax.random.key(2))).all()


def test_fitting_many_at_once_inside_a_jit_equals_one_by_one():
    points = jax.random.normal(jax.random.key(0), (4, 200, 3)) * jnp.asarray([1.0, 2.0, 0.1])[None, None]
    images, rngs = jnp.asarray([10, 45, 200, 5000]), jax.random.split(jax.random.key(1), 4)

    def one(z, count, rng):
        return mixture_prior.fit(z, 5, images=count, rng=rng)

    together = jax.jit(jax.vmap(one))(points, images, rngs)
    np.testing.assert_array_equal(used(together).sum(axis=1), [1, 2, 5, 5])
    for index, count in enumerate(images):
        alone = fit(points[index], components=5, images=count, rng=rngs[index])
        row = jax.tree.map(lambda leaf, i=index: leaf[i], together)
        z = points[index]
        np.testing.assert_allclose(mixture_prior.log_prob(row, z), mixture_prior.log_prob(alone, z), atol=1e-2)


@pytest.mark.parametrize("count", [1, 100])
def test_equal_points_stay_finite_with_the_floor_as_variance(count):
    point = jnp.asarray([[3.0, -2.0]])
    fitted = fit(jnp.repeat(point, count, axis=0), components=4, rng=jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted))
    assert used(fitted).sum() == max(1, min(count // 20, 4))
    np.testing.assert_allclose(np.exp(fitted["log_vars"]), mixture_prior.VARIANCE_FLOOR, rtol=1e-5)
    np.testing.assert_allclose(fitted["means"][used(fitted)], np.repeat(point, used(fitted).sum(), 0), rtol=1e-5)
    drawn = mixture_prior.sample(fitted, 100, rng=jax.random.key(1))
    np.testing.assert_allclose(drawn, np.repeat(point, 100, axis=0), atol=5 * mixture_prior.VARIANCE_FLOOR**0.5)
    assert np.isfinite(mixture_prior.log_prob(fitted, point)).all()


def test_a_dimension_that_says_nothing_does_not_disturb_the_others():
    points = draws(SEPARATED, 3000, 0)
    flat = jnp.concatenate([points, jnp.zeros((3000, 1))], axis=1)
    fitted = fit(flat, components=3, rng=jax.random.key(0))
    np.testing.assert_allclose(np.exp(fitted["log_vars"][:, 2]), mixture_prior.VARIANCE_FLOOR, rtol=1e-5)
    marginal = {**fitted, "means": fitted["means"][:, :2], "log_vars": fitted["log_vars"][:, :2]}
    assert log_likelihood(marginal, points) == pytest.approx(log_likelihood(SEPARATED, points), abs=0.02)


def test_a_prior_is_carried_along_with_its_points():
    noise = np.random.default_rng(0)
    apart = np.asarray([[-6.0, 0.0], [6.0, 0.0]])
    which = noise.integers(0, 2, 4000)
    before = np.asarray(apart[which] + noise.normal(size=(4000, 2)), np.float32)
    start = {"logits": jnp.zeros(2), "means": jnp.asarray(apart, jnp.float32), "log_vars": jnp.zeros((2, 2))}
    # The left cloud goes up, the right one becomes half as wide.
    after = np.where(which[:, None] == 0, before + np.asarray([0, 3]), apart[1] + 0.5 * (before - apart[1]))
    moved = mixture_prior.shift(start, before, after.astype(np.float32))
    np.testing.assert_allclose(moved["means"], [[-6, 3], [6, 0]], atol=0.02)
    np.testing.assert_allclose(np.exp(moved["log_vars"]), [[1, 1], [0.25, 0.25]], rtol=0.02)
    for key, leaf in mixture_prior.shift(start, before, before).items():
        np.testing.assert_array_equal(leaf, start[key])


def test_a_point_that_stands_for_several_moves_a_prior_as_these_do(rng):
    before, shift = jax.random.normal(rng, (2, 20, 3))
    start = mixture_prior.fit(before, 2, rng=rng)
    several = [jnp.tile(points, (4, 1)) for points in (before, before + shift)]
    expected = mixture_prior.shift(start, *several)
    moved = mixture_prior.shift(start, before, before + shift, weight=4)
    for part in start:
        np.testing.assert_allclose(moved[part], expected[part], rtol=1e-4, atol=1e-5)
