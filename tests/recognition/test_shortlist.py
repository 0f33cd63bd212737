"""Recognition with a shortlist."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lifelong_cvae as lifelong
from lifelong_cvae import recognition, stacked
from lifelong_cvae.errors import InputError
from lifelong_cvae.model import cpu
from lifelong_cvae.recognition import recognizer as recognizer_module
from lifelong_cvae.recognition import ridge_classifier, shortlist
from lifelong_cvae.stacked import category_groups, stack_categories
from lifelong_cvae.state import add_category, init
from lifelong_cvae.training import compilations
from tests.conftest import SMALL_FEATURES, assert_trees_equal

NUM_CATEGORIES = 21


@pytest.fixture(scope="module")
def many_categories(small_config, mnist5k, rng):
    """State with untrained categories, each with another digit as its mean image."""
    state = init(small_config, (28, 28), rng=rng)
    for index in range(NUM_CATEGORIES):
        mean_image = mnist5k.read("train", str(index % 10))[index].reshape(-1) / np.float32(255)
        state = add_category(state, f"category {index}", mean_image, rng=rng)
    return state


@pytest.fixture(scope="module")
def images(mnist5k):
    return np.concatenate([mnist5k.read("test", name)[:7] for name in mnist5k.categories])


@pytest.fixture(scope="module")
def all_evidence(many_categories, images):
    """Evidence of all categories, `[n, categories]`."""
    return np.asarray(lifelong.evidence(many_categories, images))


def shortlist_mask(candidates):
    """True for each category on an image's shortlist, bool `[n, categories]`."""
    mask = np.zeros((len(candidates), NUM_CATEGORIES), bool)
    np.put_along_axis(mask, candidates, True, axis=1)
    return mask


def pair_evidence(state, images, candidates, rng=None):
    """Evidence of candidates, -inf for other categories."""
    stacks = [stack_categories(state, names) for names in category_groups(state)]
    rows = images.reshape(len(images), -1)
    return np.asarray(shortlist.pair_evidence(state, stacks, rows, candidates, rng=rng))


@settings(max_examples=10)
@given(seed=st.integers(0, 999), count=st.sampled_from([1, 3, 20]), num_images=st.sampled_from([1, 5, 70]))
def test_pair_evidence_equals_that_of_all_categories(many_categories, images, all_evidence, seed, count, num_images):
    numbers = np.random.default_rng(seed)
    indices = numbers.permutation(len(images))[:num_images]
    candidates = numbers.permuted(np.tile(np.arange(NUM_CATEGORIES), (num_images, 1)), axis=1)[:, :count]
    values = pair_evidence(many_categories, images[indices], candidates)
    mask = shortlist_mask(candidates)
    np.testing.assert_allclose(values[mask], all_evidence[indices][mask], rtol=1e-5)
    assert (values[~mask] == -np.inf).all()


def test_pair_evidence_with_equal_candidates_for_all_images(many_categories, images, all_evidence):
    values = pair_evidence(many_categories, images, np.full((len(images), 2), [20, 4]))
    np.testing.assert_allclose(values[:, [4, 20]], all_evidence[:, [4, 20]], rtol=1e-5)


def test_pair_evidence_does_not_depend_on_batches_and_groups(many_categories, images, all_evidence, monkeypatch):
    candidates = shortlist.top_categories(all_evidence, 5)
    expected = pair_evidence(many_categories, images, candidates)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(many_categories.params["categories"]["category 0"]))
    monkeypatch.setattr(stacked, "GROUP_BYTES", 8 * size)
    monkeypatch.setattr(shortlist, "BATCH_SIZES", (8, 32))
    assert [len(names) for names in category_groups(many_categories)] == [8, 8, 5]
    np.testing.assert_allclose(pair_evidence(many_categories, images, candidates), expected, rtol=1e-5)


def test_pair_evidence_in_the_form_for_accelerators(many_categories, images, all_evidence, monkeypatch):
    monkeypatch.setattr(cpu, "CPU_TILES", cpu.ACCELERATOR_TILES)
    monkeypatch.setattr(shortlist, "TILE", 4)
    values = pair_evidence(many_categories, images, shortlist.top_categories(all_evidence, 3))
    finite = values > -np.inf
    np.testing.assert_allclose(values[finite], all_evidence[finite], rtol=1e-5)


def test_pair_evidence_compiles_once_per_batch_size(many_categories, images):
    numbers = np.random.default_rng(0)
    shortlist._tile_evidence.clear_cache()
    with compilations.count_compilations("_tile_evidence") as first:
        pair_evidence(many_categories, images, np.tile([0, 1], (len(images), 1)))
    assert first.count == 1
    with compilations.count_compilations("_tile_evidence") as later:
        for count in (70, 68, 65):
            order = numbers.permuted(np.tile(np.arange(NUM_CATEGORIES), (count, 1)), axis=1)
            pair_evidence(many_categories, images[:count], order[:, :2])
    assert later.count == 0


def test_pair_evidence_by_a_sampled_bound_is_right_on_average(many_categories, images, all_evidence):
    sampling_config = many_categories.config.with_settings({"bound": "sampled", "samples": 50})
    state = many_categories.replace(config=sampling_config)
    few, candidates = images[:6], shortlist.top_categories(all_evidence[:6], 2)
    values = pair_evidence(state, few, candidates, rng=jax.random.key(1))
    expected = np.asarray(lifelong.evidence(state, few, rng=jax.random.key(2)))
    finite = values > -np.inf
    np.testing.assert_allclose(values[finite], expected[finite], rtol=0.02)


def test_top_categories_have_the_highest_scores():
    scores = np.random.default_rng(0).permuted(np.tile(np.arange(9.0), (4, 1)), axis=1)
    np.testing.assert_array_equal(
        np.sort(np.take_along_axis(scores, shortlist.top_categories(scores, 3), 1)), [[6, 7, 8]] * 4
    )


@pytest.fixture(scope="module")
def state_with_sums(small_config, digits, rng):
    state = lifelong.init(small_config.with_settings(SMALL_FEATURES), (28, 28), rng=rng)
    return lifelong.learn(state, {name: digits[name][:60] for name in "20134"}, rng=rng)[0]


def test_recognize_selects_the_best_category_on_the_shortlist(state_with_sums, images):
    recognizer = lifelong.make_recognizer(state_with_sums, "elbo", candidates=3)
    names, probabilities = lifelong.recognize(recognizer, images)
    assert ((probabilities > 0).sum(axis=1) <= 3).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    candidates = shortlist.top_categories(ridge_classifier.scores(recognizer.classifier, images), 3)
    evidence = np.asarray(lifelong.evidence(state_with_sums, images))
    on_shortlist = (candidates[:, :, None] == np.arange(5)).any(axis=1)
    best = np.where(on_shortlist, evidence, -np.inf).argmax(axis=1)
    assert list(names) == [state_with_sums.names[index] for index in best]


def test_recognize_with_a_shortlist_treats_images_independently(state_with_sums, images):
    recognizer = lifelong.make_recognizer(state_with_sums, "elbo", candidates=2)
    names, probabilities = lifelong.recognize(recognizer, images)
    for index in (0, 40):
        name, probability = lifelong.recognize(recognizer, images[index : index + 1])
        assert name[0] == names[index]
        np.testing.assert_allclose(probability[0], probabilities[index], atol=1e-4)
    names, probabilities = lifelong.recognize(recognizer, images[:0])
    assert (names.shape, probabilities.shape) == ((0,), (0, 5))


def test_make_recognizer_refuses_a_shortlist_without_sums(many_categories):
    with pytest.raises(InputError, match="expected a state learned with random_features or second_filters above 0"):
        lifelong.make_recognizer(many_categories, candidates=4)


def test_recognize_with_a_shortlist_of_all_categories_changes_nothing(many_categories, images):
    expected = lifelong.recognize(lifelong.make_recognizer(many_categories), images)
    for count in (NUM_CATEGORIES, 1000):
        recognizer = lifelong.make_recognizer(many_categories, candidates=count)
        assert_trees_equal(lifelong.recognize(recognizer, images), expected)


def test_make_recognizer_stacks_the_categories_once(learner, images, monkeypatch):
    recognizer = lifelong.make_recognizer(learner)
    expected = lifelong.evidence(learner, images)
    with monkeypatch.context() as context:
        context.setattr(recognizer_module, "stack_categories", lambda *_: pytest.fail("stacked again"))
        assert_trees_equal(lifelong.evidence(recognizer, images), expected)
    monkeypatch.setattr(stacked, "MIN_CAPACITY", 1)
    monkeypatch.setattr(stacked, "GROUP_BYTES", 1)
    several_groups = lifelong.make_recognizer(learner)
    assert several_groups.stacks is None
    np.testing.assert_allclose(lifelong.evidence(several_groups, images), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("kind", ["elbo", "combined"])
def test_make_recognizer_selects_the_shortlist_by_the_regression(state_with_sums, images, kind):
    recognizer = lifelong.make_recognizer(state_with_sums, kind, candidates=4)
    scores = ridge_classifier.scores(recognizer.classifier, images)
    expected = np.array(recognition.log_likelihoods(lifelong.make_recognizer(state_with_sums, kind), images))
    np.put_along_axis(expected, np.asarray(scores).argmin(axis=1)[:, None], -np.inf, axis=1)
    likelihoods = np.asarray(recognition.log_likelihoods(recognizer, images))
    np.testing.assert_allclose(likelihoods, expected, rtol=1e-5, atol=1e-4)
    log_evidence = lifelong.evidence(recognizer, images)
    from_precomputed = recognition.log_likelihoods(recognizer, images, log_evidence=log_evidence, scores=scores)
    np.testing.assert_array_equal(likelihoods, from_precomputed)


def test_make_recognizer_rejects_bad_candidates(many_categories):
    with pytest.raises(lifelong.InputError, match="candidates: expected at least 1, got 0"):
        lifelong.make_recognizer(many_categories, candidates=0)
    message = "candidates: expected None for recognizer closed_form, which computes no evidence, got 3"
    with pytest.raises(lifelong.InputError, match=message):
        lifelong.make_recognizer(many_categories, "closed_form", candidates=3)


def test_evidence_with_a_shortlist_rejects_jit(state_with_sums, images):
    recognizer = lifelong.make_recognizer(state_with_sums, "elbo", candidates=3)
    with pytest.raises(lifelong.InputError, match="expected a call outside jit, got traced images"):
        jax.jit(lambda x: lifelong.evidence(recognizer, x))(images)
