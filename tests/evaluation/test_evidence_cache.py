"""Evidence kept between tasks: the same bits as computed anew, and nothing is computed twice."""

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.evaluation import evidence_cache
from lifelong_cvae.evaluation.evidence_cache import EvidenceCache


@pytest.fixture(scope="module")
def images(learner, mnist5k):
    """A few test images of each category."""
    return {name: mnist5k.read("test", name, slice(20)) for name in learner.names}


@pytest.fixture
def computed(monkeypatch):
    """Pairs (category, true category) whose evidence is computed, in their order."""
    # Loaded before it is replaced, since the package keeps a name that it has loaded once.
    pairs, compute = [], lifelong.evidence

    def record(recognizer, images, **options):
        pairs.extend((name, len(images)) for name in getattr(recognizer, "state", recognizer).names)
        return compute(recognizer, images, **options)

    monkeypatch.setattr(evidence_cache.recognition, "evidence", record)
    return pairs


def by_category(cache, state, images, rng):
    """Evidence of the images of each known category."""
    return {name: cache.evidence(state, name, images[name], rng=rng) for name in images if name in state.names}


def first(state, count):
    """The state with its first categories alone, whose arrays are the same."""
    return state.replace(names=state.names[:count], visits=state.visits[:count])


def test_evidence_computes_each_pair_once(learner, images, rng, computed):
    images = {name: x[: 10 + index] for index, (name, x) in enumerate(images.items())}
    cache = EvidenceCache()
    for count in (1, 2, 3):
        evidence = by_category(cache, first(learner, count), images, rng)
    assert sorted(computed) == sorted((name, len(x)) for name in learner.names for x in images.values())
    again = by_category(EvidenceCache(), learner, images, rng)
    for name, values in evidence.items():
        assert values.tobytes() == again[name].tobytes()
        np.testing.assert_allclose(values, lifelong.evidence(learner, images[name]), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("part", ["mixed", "2"])
def test_evidence_computes_changed_parameters_anew(learner, images, rng, part):
    cache = EvidenceCache()
    by_category(cache, learner, images, rng)
    params = learner.params
    if part == "mixed":
        params = {**params, "mixed": jax.tree.map(lambda leaf: 1.1 * leaf, params["mixed"])}
    else:
        encoder = jax.tree.map(lambda leaf: 1.1 * leaf, params["categories"][part]["encoder"])
        changed = {**params["categories"][part], "encoder": encoder}
        params = {**params, "categories": {**params["categories"], part: changed}}
    moved = learner.replace(params=params)
    found, expected = (by_category(known, moved, images, rng) for known in (cache, EvidenceCache()))
    for name in learner.names:
        assert found[name].tobytes() == expected[name].tobytes()


def test_evidence_keeps_what_a_further_task_leaves(learner, images, digits, rng, computed):
    cache = EvidenceCache()
    by_category(cache, learner, images, rng)
    computed.clear()
    grown, _ = lifelong.learn(learner, {"3": digits["3"][:40]}, rng=rng)
    by_category(cache, grown, images, rng)
    assert {name for name, _ in computed} == {"3"}
