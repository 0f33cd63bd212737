import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn.mixture import GaussianMixture

from lifelong_cvae.model import mixture_prior
from tests.compiled import prior_log_prob, sample_prior
from tests.conftest import mixture_log_density

jitted_fit = jax.jit(mixture_prior.fit, static_argnames="components")
shift = jax.jit(mixture_prior.shift)


def fit(*arguments, **options):
    """Returns a fitted mixture in numpy."""
    return jax.device_get(jitted_fit(*arguments, **options))


def mixture(weights, means, variances):
    return {
        "logits": np.log(np.float32(weights)),
        "means": np.float32(means),
        "log_vars": np.log(np.float32(variances)),
    }


SEPARATED = mixture([0.5, 0.3, 0.2], [[0.0, 0.0], [6.0, 1.0], [-1.0, 7.0]], [[1.0, 0.2], [0.3, 0.5], [0.6, 1.5]])
OVERLAPPING = mixture([0.6, 0.4], [[0.0, 0.0], [1.5, 1.0]], [[1.0, 0.5], [0.3, 1.2]])


def sample_points(prior, count, seed):
    return np.asarray(sample_prior(prior, count, rng=jax.random.key(100 + seed)))


def used_components(fitted):
    """Returns which components are in use, bool `[components]`."""
    return np.asarray(fitted["logits"]) > mixture_prior.UNUSED_LOGIT / 2


def mean_log_density(fitted, z):
    return mixture_log_density(fitted, z).mean()


def nearest_distances(z, points):
    """Returns the distance of each z to the nearest point."""
    return np.sqrt(np.square(z[:, None] - points).sum(-1)).min(axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_fit_recovers_separated_mixture(seed):
    fitted = fit(sample_points(SEPARATED, 6000, seed), components=3, rng=jax.random.key(seed))
    order = [np.square(fitted["means"] - mean[None]).sum(1).argmin() for mean in SEPARATED["means"]]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(np.asarray(fitted["means"])[order], SEPARATED["means"], atol=0.1)
    variances = np.exp(np.asarray(fitted["log_vars"]))[order]
    np.testing.assert_allclose(variances, np.exp(SEPARATED["log_vars"]), rtol=0.15)
    np.testing.assert_allclose(special.softmax(fitted["logits"])[order], [0.5, 0.3, 0.2], atol=0.03)


@pytest.mark.parametrize("truth", [SEPARATED, OVERLAPPING], ids=["separated", "overlapping"])
def test_fit_with_many_components_generalizes(truth):
    held_out = sample_points(truth, 20_000, 1)
    fitted = fit(sample_points(truth, 6000, 0), components=12, rng=jax.random.key(0))
    loss = mean_log_density(truth, held_out) - mean_log_density(fitted, held_out)
    assert 0 < loss < 0.03
    single = fit(sample_points(truth, 6000, 0), components=1, rng=jax.random.key(0))
    assert mean_log_density(fitted, held_out) > mean_log_density(single, held_out) + 0.05


@pytest.mark.parametrize("seed", range(2))
def test_fit_matches_scikit_learn(seed):
    points = np.random.default_rng(seed).gamma(2.0, size=(3000, 3)).astype(np.float32)
    fitted = fit(points, components=8, rng=jax.random.key(seed))
    reference = GaussianMixture(8, covariance_type="diag", reg_covar=1e-3, max_iter=300, random_state=seed)
    assert abs(mean_log_density(fitted, points) - reference.fit(points).score(points)) < 0.05


def test_fit_ignores_unused_components():
    points = sample_points(SEPARATED, 70, 0)
    fitted = fit(points, components=9, rng=jax.random.key(0))
    assert used_components(fitted).tolist() == [True] * 3 + [False] * 6
    z = np.float32(3 * np.random.default_rng(1).normal(size=(50, 2)))
    expected = mixture_log_density({name: values[:3] for name, values in fitted.items()}, z)
    np.testing.assert_allclose(prior_log_prob(fitted, z), expected, rtol=1e-5)
    # Parameters of unused components have no effect.
    changed = jax.tree.map(np.copy, fitted)
    changed["means"][3:], changed["log_vars"][3:] = 1e3, 7.0
    np.testing.assert_array_equal(prior_log_prob(changed, z), prior_log_prob(fitted, z))
    assert np.abs(sample_prior(changed, 2000, rng=jax.random.key(2))).max() < 30


def penalized_log_likelihood(fitted, z, components, floor):
    """Returns the objective of EM, log likelihood plus log density of the conjugate prior, in float64."""
    center, variance = z.mean(axis=0), z.var(axis=0)
    means, log_vars = (np.asarray(fitted[k], np.float64) for k in ("means", "log_vars"))
    strength = mixture_prior.VARIANCE_STRENGTH + mixture_prior.MEAN_STRENGTH
    prior_variance = variance / components ** (2 / z.shape[1])
    squares = np.square(means - center)
    prior_scatter = mixture_prior.VARIANCE_STRENGTH * prior_variance + mixture_prior.MEAN_STRENGTH * squares
    assert np.exp(log_vars).min() > floor
    log_conjugate_prior = -0.5 * (strength * log_vars + prior_scatter * np.exp(-log_vars)).sum()
    return mixture_log_density(fitted, z).sum() + log_conjugate_prior


@pytest.mark.slow
def test_fit_increases_objective_in_every_iteration(monkeypatch):
    points = sample_points(OVERLAPPING, 500, 0)
    objectives, densities = [], []
    for iterations in (0, 1, 3, 10, 60):
        monkeypatch.setattr(mixture_prior, "ITERATIONS", iterations)
        fitted = mixture_prior.fit(points, 5, rng=jax.random.key(3))
        z = np.asarray(points, np.float64)
        objectives.append(penalized_log_likelihood(fitted, z, 5, mixture_prior.VARIANCE_FLOOR))
        densities.append(mean_log_density(fitted, points))
    assert np.diff(objectives).min() > -1e-2
    assert objectives[-1] > objectives[0] + 10
    assert densities[-1] > densities[0] + 0.1


def test_fit_to_ten_images_is_broad():
    points = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    # After a task, the fit gets many samples of the posteriors of few images.
    samples = np.repeat(points, 200, axis=0)
    samples += 0.02 * np.random.default_rng(1).normal(size=samples.shape).astype(np.float32)
    for given_points, images in ((points, None), (samples, 10)):
        fitted = fit(given_points, components=6, images=images, rng=jax.random.key(0))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted))
        assert used_components(fitted).sum() == 1
        variances = np.exp(np.asarray(fitted["log_vars"][0]))
        assert (variances > 0.5 * points.var(axis=0)).all()
        assert variances.min() > 50 * mixture_prior.VARIANCE_FLOOR
        sampled = np.asarray(sample_prior(fitted, 500, rng=jax.random.key(1)))
        independent = np.random.default_rng(2).normal(size=(500, 4))
        nearest, expected = (nearest_distances(z, points) for z in (sampled, independent))
        assert np.median(nearest) > 0.7 * np.median(expected)
        assert (nearest < 0.1).mean() < 0.05


def test_fit_to_fifty_images_does_not_memorize():
    points = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    fitted = fit(np.repeat(points, 40, axis=0), components=50, images=50, rng=jax.random.key(0))
    assert used_components(fitted).sum() == 2
    sampled = np.asarray(sample_prior(fitted, 1000, rng=jax.random.key(1)))
    independent = np.random.default_rng(2).normal(size=(1000, 4))
    nearest, expected = (np.median(nearest_distances(z, points)) for z in (sampled, independent))
    assert nearest > 0.7 * expected


@settings(max_examples=30)
@given(st.integers(1, 3000))
def test_fit_uses_one_component_per_twenty_images(images):
    points = np.float32(np.random.default_rng(0).normal(size=(256, 3)))
    fitted = fit(points, components=7, images=np.int32(images), rng=jax.random.key(1))
    assert used_components(fitted).sum() == np.clip(images // 20, 1, 7)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted))
    assert np.isfinite(sample_prior(fitted, 100, rng=jax.random.key(2))).all()


def test_fit_works_inside_jit_and_vmap():
    points = np.float32(np.random.default_rng(0).normal(size=(4, 200, 3)) * np.asarray([1.0, 2.0, 0.1]))
    images, rngs = np.asarray([10, 45, 200, 5000]), jax.random.split(jax.random.key(1), 4)

    def fit_one(z, count, rng):
        return mixture_prior.fit(z, 5, images=count, rng=rng)

    stacked = jax.device_get(jax.jit(jax.vmap(fit_one))(points, images, rngs))
    np.testing.assert_array_equal(used_components(stacked).sum(axis=1), [1, 2, 5, 5])
    for index, count in enumerate(images):
        single = fit(points[index], components=5, images=count, rng=rngs[index])
        row = jax.tree.map(lambda leaf, i=index: leaf[i], stacked)
        z = points[index]
        np.testing.assert_allclose(prior_log_prob(row, z), prior_log_prob(single, z), atol=1e-2)


@pytest.mark.parametrize("count", [1, 100])
def test_fit_to_equal_points_has_floor_variance(count):
    point = np.float32([[3.0, -2.0]])
    fitted = fit(np.repeat(point, count, axis=0), components=4, rng=jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted))
    used = used_components(fitted)
    assert used.sum() == max(1, min(count // 20, 4))
    np.testing.assert_allclose(np.exp(fitted["log_vars"]), mixture_prior.VARIANCE_FLOOR, rtol=1e-5)
    np.testing.assert_allclose(fitted["means"][used], np.repeat(point, used.sum(), 0), rtol=1e-5)
    samples = sample_prior(fitted, 100, rng=jax.random.key(1))
    np.testing.assert_allclose(samples, np.repeat(point, 100, axis=0), atol=5 * mixture_prior.VARIANCE_FLOOR**0.5)
    assert np.isfinite(prior_log_prob(fitted, point)).all()


def test_fit_ignores_constant_dimension():
    points = sample_points(SEPARATED, 3000, 0)
    with_constant = np.concatenate([points, np.zeros((3000, 1), np.float32)], axis=1)
    fitted = fit(with_constant, components=3, rng=jax.random.key(0))
    np.testing.assert_allclose(np.exp(fitted["log_vars"][:, 2]), mixture_prior.VARIANCE_FLOOR, rtol=1e-5)
    marginal = {**fitted, "means": fitted["means"][:, :2], "log_vars": fitted["log_vars"][:, :2]}
    assert mean_log_density(marginal, points) == pytest.approx(mean_log_density(SEPARATED, points), abs=0.02)


def test_shift_follows_moved_points():
    generator = np.random.default_rng(0)
    centers = np.asarray([[-6.0, 0.0], [6.0, 0.0]])
    labels = generator.integers(0, 2, 4000)
    before = np.asarray(centers[labels] + generator.normal(size=(4000, 2)), np.float32)
    start = mixture([1, 1], centers, np.ones((2, 2)))
    # The left cluster moves up, the right one becomes half as wide.
    after = np.where(labels[:, None] == 0, before + np.asarray([0, 3]), centers[1] + 0.5 * (before - centers[1]))
    shifted = shift(start, before, after.astype(np.float32))
    np.testing.assert_allclose(shifted["means"], [[-6, 3], [6, 0]], atol=0.02)
    np.testing.assert_allclose(np.exp(shifted["log_vars"]), [[1, 1], [0.25, 0.25]], rtol=0.02)
    for key, leaf in shift(start, before, before).items():
        np.testing.assert_array_equal(leaf, start[key])


def test_shift_with_weight_equals_repeated_points(rng):
    before, step = np.float32(np.random.default_rng(0).normal(size=(2, 20, 3)))
    start = fit(before, components=2, rng=rng)
    repeated = [np.tile(points, (4, 1)) for points in (before, before + step)]
    expected = shift(start, *repeated)
    shifted = shift(start, before, before + step, weight=4)
    for key in start:
        np.testing.assert_allclose(shifted[key], expected[key], rtol=1e-4, atol=1e-5)
