import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lifelong_cvae as lifelong
from lifelong_cvae import recognition, stacked
from lifelong_cvae.model import cvae
from lifelong_cvae.recognition import recognizer as recognizer_module
from lifelong_cvae.recognition import ridge_classifier, shortlist
from lifelong_cvae.stacked import category_groups, stack_categories
from lifelong_cvae.state import add_category, init
from lifelong_cvae.training import compilations
from tests.conftest import SMALL_FEATURES, assert_trees_equal

CROWD = 21


@pytest.fixture(scope="module")
def crowd(small_config, mnist5k, rng):
    """Untrained categories, each of which draws another digit."""
    state = init(small_config, (28, 28), rng=rng)
    for index in range(CROWD):
        drawn = mnist5k.read("train", str(index % 10))[index].reshape(-1) / np.float32(255)
        state = add_category(state, f"category {index}", drawn, rng=rng)
    return state


@pytest.fixture(scope="module")
def images(mnist5k):
    return np.concatenate([mnist5k.read("test", name)[:7] for name in mnist5k.categories])


@pytest.fixture(scope="module")
def full(crowd, images):
    return np.asarray(lifelong.evidence(crowd, images))


def mask(chosen):
    asked = np.zeros((len(chosen), CROWD), bool)
    np.put_along_axis(asked, chosen, True, axis=1)
    return asked


def of_pairs(state, images, chosen, **options):
    stacks = [stack_categories(state, names) for names in category_groups(state)]
    rows = images.reshape(len(images), -1)
    return np.asarray(shortlist.pair_evidence(state, stacks, rows, chosen, **{"rng": None, **options}))


@settings(max_examples=10)
@given(seed=st.integers(0, 999), count=st.sampled_from([1, 3, 20]), number=st.sampled_from([1, 5, 70]))
def test_each_pairs_evidence_is_that_of_all_categories(crowd, images, full, seed, count, number):
    numbers = np.random.default_rng(seed)
    which = numbers.permutation(len(images))[:number]
    chosen = numbers.permuted(np.tile(np.arange(CROWD), (number, 1)), axis=1)[:, :count]
    values = of_pairs(crowd, images[which], chosen)
    asked = mask(chosen)
    np.testing.assert_allclose(values[asked], full[which][asked], rtol=1e-5)
    assert (values[~asked] == -np.inf).all()


def test_all_images_may_have_the_same_candidates(crowd, images, full):
    values = of_pairs(crowd, images, np.full((len(images), 2), [20, 4]))
    np.testing.assert_allclose(values[:, [4, 20]], full[:, [4, 20]], rtol=1e-5)


def test_blocks_and_groups_of_categories_change_nothing(crowd, images, full, monkeypatch):
    chosen = shortlist.top_categories(full, 5)
    whole = of_pairs(crowd, images, chosen)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(crowd.params["categories"]["category 0"]))
    monkeypatch.setattr(stacked, "GROUP_BYTES", 8 * size)
    monkeypatch.setattr(shortlist, "BATCH_SIZES", (8, 32))
    assert [len(names) for names in category_groups(crowd)] == [8, 8, 5]
    np.testing.assert_allclose(of_pairs(crowd, images, chosen), whole, rtol=1e-5)


def test_on_accelerators_tiles_are_computed_side_by_side(crowd, images, full, monkeypatch):
    monkeypatch.setattr(shortlist, "CPU_TILES", shortlist.ACCELERATOR_TILES)
    monkeypatch.setattr(shortlist, "TILE", 4)
    values = of_pairs(crowd, images, shortlist.top_categories(full, 3))
    known = values > -np.inf
    np.testing.assert_allclose(values[known], full[known], rtol=1e-5)


def test_the_number_of_pairs_of_a_category_compiles_nothing(crowd, images):
    numbers = np.random.default_rng(0)
    of_pairs(crowd, images, np.tile([0, 1], (len(images), 1)))
    with compilations.count_compilations("_tiles") as compiled:
        for count in (70, 68, 65):
            of_pairs(crowd, images[:count], numbers.permuted(np.tile(np.arange(CROWD), (count, 1)), axis=1)[:, :2])
    assert compiled.count == 0


def test_bounds_that_sample_are_those_of_the_chosen_on_average(crowd, images, full):
    sampling = crowd.replace(config=crowd.config.with_settings({"bound": "sampled", "samples": 50}))
    few, chosen = images[:6], shortlist.top_categories(full[:6], 2)
    values = of_pairs(sampling, few, chosen, rng=jax.random.key(1))
    expected = np.asarray(lifelong.evidence(sampling, few, rng=jax.random.key(2)))
    known = values > -np.inf
    np.testing.assert_allclose(values[known], expected[known], rtol=0.02)


def test_prototypes_are_what_the_likeliest_components_draw(learner, images):
    found = shortlist.make_prototypes(learner, [stack_categories(learner, learner.names)])
    rows = images.reshape(len(images), -1)
    for column, name in enumerate(learner.names):
        path = learner.model(name)
        order = np.argsort(-np.asarray(path.prior["logits"]))
        drawn = cvae.decode_mean(path, path.prior["means"][order])
        np.testing.assert_allclose(found.images[:, column], drawn, atol=1e-5)
    x = rows / np.float32(255)
    squares = np.square(x[:, None, None] - np.asarray(found.images)[None, :, :3]).sum(axis=-1).min(axis=1)
    expected = 0.5 * np.square(x).sum(axis=-1)[:, None] - 0.5 * squares
    np.testing.assert_allclose(shortlist.prototype_scores(found, rows), expected, rtol=1e-4, atol=1e-3)


def test_best_are_the_highest_scores():
    scores = np.random.default_rng(0).permuted(np.tile(np.arange(9.0), (4, 1)), axis=1)
    np.testing.assert_array_equal(
        np.sort(np.take_along_axis(scores, shortlist.top_categories(scores, 3), 1)), [[6, 7, 8]] * 4
    )


def test_two_stages_answer_as_one_where_the_candidates_hold_the_answer(crowd, images, full):
    ready = lifelong.make_recognizer(crowd, candidates=6)
    names, probabilities = lifelong.recognize(ready, images)
    assert ((probabilities > 0).sum(axis=1) <= 6).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    rows = images.reshape(len(images), -1)
    chosen = shortlist.top_categories(shortlist.prototype_scores(ready.prototypes, rows), 6)
    within = np.where(mask(chosen), full, -np.inf)
    assert list(names) == [crowd.names[index] for index in within.argmax(axis=1)]


def test_an_image_alone_is_answered_as_among_others(crowd, images):
    ready = lifelong.make_recognizer(crowd, candidates=4)
    names, probabilities = lifelong.recognize(ready, images)
    for index in (0, 40):
        name, alone = lifelong.recognize(ready, images[index : index + 1])
        assert name[0] == names[index]
        np.testing.assert_allclose(alone[0], probabilities[index], atol=1e-4)
    names, probabilities = lifelong.recognize(ready, images[:0])
    assert (names.shape, probabilities.shape) == ((0,), (0, CROWD))


def test_as_many_candidates_as_categories_are_all_of_them(crowd, images):
    expected = lifelong.recognize(lifelong.make_recognizer(crowd), images)
    for count in (CROWD, 1000):
        assert_trees_equal(lifelong.recognize(lifelong.make_recognizer(crowd, candidates=count), images), expected)


def test_a_recogniser_holds_its_categories_side_by_side(learner, images, monkeypatch):
    ready = lifelong.make_recognizer(learner)
    expected = lifelong.evidence(learner, images)
    with monkeypatch.context() as context:
        context.setattr(recognizer_module, "stack_categories", lambda *_: pytest.fail("they are there already"))
        assert_trees_equal(lifelong.evidence(ready, images), expected)
    monkeypatch.setattr(stacked, "MIN_CAPACITY", 1)
    monkeypatch.setattr(stacked, "GROUP_BYTES", 1)
    many = lifelong.make_recognizer(learner)
    assert many.stacks is None
    np.testing.assert_allclose(lifelong.evidence(many, images), expected, rtol=1e-5, atol=1e-3)


@pytest.fixture(scope="module")
def with_sums(small_config, digits, rng):
    state = lifelong.init(small_config.with_settings(SMALL_FEATURES), (28, 28), rng=rng)
    return lifelong.learn(state, {name: digits[name][:60] for name in "201"}, rng=rng)[0]


@pytest.mark.parametrize("kind", ["elbo", "combined"])
def test_where_a_state_keeps_sums_the_regression_chooses(with_sums, images, kind):
    state = with_sums
    ready = lifelong.make_recognizer(state, kind, candidates=2)
    assert ready.prototypes is None
    all_of_them = lifelong.make_recognizer(state, kind)
    scores = np.asarray(ridge_classifier.scores(ready.classifier, images))
    expected = np.array(recognition.log_likelihoods(all_of_them, images))
    np.put_along_axis(expected, scores.argmin(axis=1)[:, None], -np.inf, axis=1)
    found = np.asarray(recognition.log_likelihoods(ready, images))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    log_evidence = lifelong.evidence(ready, images)
    again = recognition.log_likelihoods(ready, images, log_evidence=log_evidence, scores=scores)
    np.testing.assert_array_equal(found, again)


def test_what_cannot_be_is_told(crowd, images):
    with pytest.raises(lifelong.InputError, match="candidates=0: at least 1 is expected"):
        lifelong.make_recognizer(crowd, candidates=0)
    with pytest.raises(lifelong.InputError, match="closed_form, which weighs no evidence: none is expected"):
        lifelong.make_recognizer(crowd, "closed_form", candidates=3)
    ready = lifelong.make_recognizer(crowd, candidates=3)
    with pytest.raises(lifelong.InputError, match="a call outside of jit is expected"):
        jax.jit(lambda x: lifelong.evidence(ready, x))(images)
