import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.evaluation import judge, measures


@pytest.fixture(scope="module")
def stranger(mnist5k):
    """A judge that has learned nothing: enough for what it is asked here."""
    network = judge.Network(10)
    params = network.init(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    return judge.Judge(params, mnist5k.categories, (28, 28, 1))


def test_recognition_counts_right_answers(learner, mnist5k, rng):
    values = measures.recognised(learner, mnist5k, "test", rng=rng)
    right = total = 0
    for name in learner.names:
        answers, _ = lifelong.recognise(learner, mnist5k.read("test", name))
        assert values["accuracy_per_category"][name] == pytest.approx((answers == name).mean())
        right, total = right + (answers == name).sum(), total + len(answers)
    assert values["accuracy"] == pytest.approx(right / total)


def test_density_is_that_of_an_images_own_category_and_bounds_are_ordered(learner, mnist5k, rng, monkeypatch):
    monkeypatch.setattr(measures, "BOUND_IMAGES", 60)
    monkeypatch.setattr(measures, "BOUND_SAMPLES", 50)
    values = measures.density(learner, mnist5k, "test", rng=rng)
    own = []
    for column, name in enumerate(learner.names):
        config = learner.config.with_settings({"bound": "sampled", "samples": 50})
        evidence = lifelong.evidence(learner.replace(config=config), mnist5k.read("test", name)[:20], rng=rng)
        own.append(np.asarray(evidence)[:, column])
    assert values["elbo"] == pytest.approx(np.concatenate(own).mean(), abs=2)
    assert values["importance_bound"] > values["elbo"]


def test_generation_figures_tell_what_was_imagined(learner, mnist5k, stranger, rng):
    values = measures.generated(learner, mnist5k, "test", stranger, samples=40, rng=rng)
    imagined = lifelong.imagine(learner, learner.names, 40, rng=rng)
    assert values["agreement_per_category"] == stranger.agreement(imagined)
    assert values["frechet_distance"] > 0
    assert values["nearest"]["held_out"] > 0
    real = measures.generated(learner, mnist5k, "train", stranger, samples=400, rng=rng)
    assert real["frechet_floor"] == pytest.approx(0, abs=1e-3)
    assert real["nearest"]["held_out"] == pytest.approx(0, abs=0.05)
