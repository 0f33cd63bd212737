"""Vectors instead of images: a state of shape `(d,)` learns, recognizes, imagines, forgets and is saved."""

import jax
import numpy as np
import pytest
from scipy import stats

import lifelong_cvae as lifelong
from lifelong_cvae import InputError, sampling
from lifelong_cvae.model import vectors
from lifelong_cvae.recognition import ridge_sums
from lifelong_cvae.ridge import sums, vector_features
from tests.conftest import SMALL, assert_trees_equal

D, CATEGORIES = 6, ("a", "b", "c")
# As many steps as three Gaussians in six dimensions need.
SETTINGS = {
    **SMALL,
    "random_features": "40",
    "recognizer": "combined",
    "noise_scale": "own",
    "log_scale": "-0.3",
    "noise_rank": "2",
    "epochs": "6",
    "min_steps": "60",
    "learning_rate": "0.01",
}


def gaussians(count, seed, *, shift=0.0, scale=1.0):
    """Returns vectors `[count, D]` of three categories, far apart, with correlated dimensions of unequal scale."""
    numbers = np.random.default_rng(seed)
    means = 3 * np.random.default_rng(0).standard_normal((len(CATEGORIES), D))
    spread = np.random.default_rng(1).standard_normal((D, D)) * np.geomspace(0.1, 1, D)
    values = {
        name: mean + numbers.standard_normal((count, D)) @ spread for name, mean in zip(CATEGORIES, means, strict=True)
    }
    return {name: shift + scale * x for name, x in values.items()}


def learned(config, rng, images, order=CATEGORIES, **options):
    state = lifelong.init(config, (D,), rng=rng, capacity=len(CATEGORIES), **options)
    for name in order:
        state, _ = lifelong.learn(state, {name: images[name]}, rng=rng)
    return state


def accuracy(state, images, kind):
    recognizer = lifelong.make_recognizer(state, kind)
    return np.mean([np.mean(lifelong.recognize(recognizer, x)[0] == name) for name, x in images.items()])


@pytest.fixture(scope="module")
def config():
    return lifelong.Config().with_settings(SETTINGS)


@pytest.fixture(scope="module")
def train():
    return gaussians(200, 2)


@pytest.fixture(scope="module")
def state(config, rng, train):
    return learned(config, rng, train)


@pytest.mark.parametrize("kind", ["elbo", "closed_form", "combined"])
def test_recognize_vectors_is_accurate(state, kind):
    assert accuracy(state, gaussians(100, 3), kind) > 0.97


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1e-6), (1e6, 1e6)])
def test_learn_does_not_depend_on_the_unit(config, rng, state, shift, scale):
    moved = learned(config, rng, gaussians(200, 2, shift=shift, scale=scale))
    test = gaussians(50, 3)
    for name, x in gaussians(50, 3, shift=shift, scale=scale).items():
        # A density has the unit of 1 / volume.
        expected = np.asarray(lifelong.evidence(state, test[name])) - D * np.log(scale)
        np.testing.assert_allclose(lifelong.evidence(moved, x), expected, rtol=2e-2, atol=0.5)
    assert accuracy(moved, gaussians(50, 3, shift=shift, scale=scale), "combined") > 0.97


def test_evidence_of_vectors_is_a_density(config, rng):
    # Of a Gaussian in one dimension, whose density is known, and which an untrained decoder describes.
    config = config.with_settings({"min_steps": "400", "epochs": "10"})
    numbers = np.random.default_rng(5)
    x = 7 + 0.2 * numbers.standard_normal((400, 1))
    state = lifelong.init(config, (1,), rng=rng)
    state, _ = lifelong.learn(state, {"x": x}, rng=rng)
    grid = np.linspace(5, 9, 400)[:, None]
    evidence = np.asarray(lifelong.evidence(state, grid))[:, 0]
    # A lower bound of a density integrates to at most 1.
    assert 0.6 < np.exp(evidence).sum() * (grid[1, 0] - grid[0, 0]) < 1.01
    entropy = stats.norm(7, 0.2).entropy()
    assert np.asarray(lifelong.evidence(state, x)).mean() == pytest.approx(-entropy, abs=0.4)


def test_imagine_vectors_has_the_moments_of_the_category(state, rng, train):
    imagined = lifelong.imagine(state, CATEGORIES, 2000, rng=rng)
    for name, x in train.items():
        assert imagined[name].shape == (2000, D)
        np.testing.assert_allclose(np.mean(imagined[name], axis=0), x.mean(axis=0), atol=0.2 * x.std(axis=0).max())
        np.testing.assert_allclose(np.std(imagined[name], axis=0), x.std(axis=0), rtol=0.2, atol=0.05)


def test_encode_reconstruct_and_decode_vectors_agree(state, train):
    x = train["b"][:20]
    codes = lifelong.encode(state, "b", x)
    np.testing.assert_allclose(lifelong.decode(state, "b", codes), sampling.reconstruct(state, "b", x), rtol=1e-4)
    errors = np.asarray(sampling.reconstruct(state, "b", x)) - x
    assert np.square(errors).mean() < 1.5 * np.square(x - x.mean(axis=0)).mean()


def test_learn_with_given_scale_answers_alike_in_every_order(config, rng, train):
    everything = np.concatenate(list(train.values()))
    given = {"mean": everything.mean(axis=0), "scale": everything.std(axis=0)}
    answers = [
        lifelong.recognize(
            lifelong.make_recognizer(learned(config, rng, train, order, **given), "closed_form"), everything
        )
        for order in (CATEGORIES, CATEGORIES[::-1])
    ]
    np.testing.assert_array_equal(answers[0][0], answers[1][0])
    np.testing.assert_array_equal(answers[0][1], answers[1][1][:, ::-1])


def test_learn_without_scale_answers_almost_alike_in_every_order(config, rng, train, state):
    test = np.concatenate(list(gaussians(300, 4).values()))
    other = learned(config, rng, train, CATEGORIES[::-1])
    names = [lifelong.recognize(lifelong.make_recognizer(each, "closed_form"), test)[0] for each in (state, other)]
    assert np.mean(names[0] != names[1]) <= 0.001


def test_sums_of_vectors_equal_those_of_the_definition(state, train):
    count = ridge_sums.num_features(state)
    matrix = np.asarray(vector_features.random_matrix(0, D, 40), np.float64)
    gram, vector = np.zeros((count, count)), np.zeros(count)
    mean, scale = (np.asarray(state.standardization[key], np.float64) for key in ("mean", "scale"))
    for x in train.values():
        u = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True))
        phi = np.concatenate([(x - mean) / scale, np.maximum(u @ matrix, 0)], axis=1)
        gram, vector = gram + phi.T @ phi / len(x), vector + phi.mean(axis=0)
    rows, columns = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
    with jax.enable_x64(True):
        packed = ridge_sums.common_gram(state, "all")
        found = (
            sums.gram_elements(packed, rows.astype(np.int32), columns.astype(np.int32), count) * 2.0**-sums.GRAM_BITS
        )
    np.testing.assert_allclose(found, gram, rtol=1e-5, atol=1e-4)
    found = ridge_sums.sums_by_category(state, CATEGORIES, "all").sum(axis=1) * 2.0**-sums.VECTOR_BITS
    np.testing.assert_allclose(found, [*vector, 3], rtol=1e-5, atol=1e-4)


def test_earlier_categories_and_standardization_stay_bitwise_equal(config, rng, train):
    before = learned(config, rng, train, CATEGORIES[:2])
    after, _ = lifelong.learn(before, {"c": train["c"]}, rng=rng)
    assert_trees_equal(before.params["standardization"], after.params["standardization"])
    for name in CATEGORIES[:2]:
        assert_trees_equal(before.params["categories"][name], after.params["categories"][name])


def test_drop_save_and_load_vectors(state, tmp_path, train):
    lifelong.save(state, tmp_path)
    loaded = lifelong.load(tmp_path)
    assert loaded.image_shape == (D,)
    assert_trees_equal(loaded.params, state.params)
    dropped = lifelong.drop(loaded, "b")
    assert set(lifelong.recognize(dropped, train["b"])[0]) <= {"a", "c"}


def test_learn_continues_known_category_with_vectors(state, rng, train):
    again, _ = lifelong.learn(state, {"b": train["b"][:50]}, rng=rng)
    assert again.visit("b") == 2
    assert accuracy(again, gaussians(100, 3), "combined") > 0.95


@pytest.mark.parametrize("d", [1, 3])
def test_learn_vectors_with_constant_dimensions_and_few_examples(config, rng, d):
    numbers = np.random.default_rng(0)
    images = {name: np.full((2 + 9 * index, d), 5.0) for index, name in enumerate(CATEGORIES)}
    images["b"][:, 0] += numbers.standard_normal(11)
    images["c"][:, 0] += 100
    state = lifelong.init(config, (d,), rng=rng)
    for name, x in images.items():
        state, _ = lifelong.learn(state, {name: x}, rng=rng)
    assert np.isfinite(np.asarray(lifelong.evidence(state, images["b"]))).all()
    assert (lifelong.recognize(state, images["c"])[0] == "c").all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((3, D + 1)), rf"expected shape \[n, {D}\], got \(3, {D + 1}\)"),
        (np.zeros((3, D, 1)), rf"expected shape \[n, {D}\], got \(3, {D}, 1\)"),
        (np.asarray([["x"] * D] * 3), "expected numbers, got <U1"),
        (
            np.where(np.arange(18).reshape(3, D) == 7, np.nan, 1.0),
            "expected finite numbers, got NaN or infinity in vector 1",
        ),
    ],
)
def test_learn_refuses_bad_vectors(state, rng, values, message):
    with pytest.raises(InputError, match=message):
        lifelong.learn(state, {"new": values}, rng=rng)
    with pytest.raises(InputError, match=message):
        lifelong.recognize(state, values)


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({"likelihood": "bernoulli"}, {}, "setting likelihood: expected gaussian for vectors, got bernoulli"),
        ({"fold_mirrors": "true"}, {}, "setting fold_mirrors: expected False for vectors, got True"),
        ({}, {"mean": 0.0}, "mean and scale: expected both or neither, got one of them"),
        ({}, {"mean": 0.0, "scale": 0.0}, "scale: expected finite numbers above 0, got others"),
        ({}, {"mean": np.zeros(3), "scale": 1.0}, rf"mean: expected one number or {D}, got shape \(3,\)"),
        ({}, {"max_value": 255}, "max_value: expected images, got the shape of vectors"),
    ],
)
def test_init_refuses_what_vectors_do_not_have(config, rng, settings, options, message):
    with pytest.raises(InputError, match=message):
        lifelong.init(config.with_settings({"noise_rank": "0", **settings}), (D,), rng=rng, **options)


def test_init_refuses_a_standardization_of_images(config, rng):
    with pytest.raises(InputError, match="mean and scale: expected vectors, got the shape of images"):
        lifelong.init(config, (8, 8), rng=rng, mean=0.0, scale=1.0)


def test_fit_standardization_gives_constant_dimensions_the_median_scale():
    x = np.asarray([[0.0, 5.0, 10.0, 1.0], [2.0, 5.0, 14.0, 1.0], [4.0, 5.0, 18.0, 1.0]])
    fitted = vectors.fit_standardization(x)
    np.testing.assert_allclose(fitted["mean"], [2, 5, 14, 1])
    deviations = [x[:, 0].std(), x[:, 2].std()]
    np.testing.assert_allclose(
        fitted["scale"], [deviations[0], np.median(deviations), deviations[1], np.median(deviations)]
    )


def test_recognize_vectors_works_inside_jit(state, train):
    rows = np.float32(train["a"][:8])
    inside = jax.jit(lambda x: lifelong.evidence(state, x))(rows)
    np.testing.assert_allclose(inside, lifelong.evidence(state, rows), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("d", "expected"), [(1, 256), (10, 320), (4192, 4000), (5192, 3000), (8192, 256), (20000, 256)]
)
def test_narrow_and_wide_vectors_have_fewer_random_features(d, expected):
    assert lifelong.preset("vectors").for_shape((d,)).closed_form.random_features == expected
