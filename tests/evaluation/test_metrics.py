import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.data.source import limit_train_images
from lifelong_cvae.evaluation import generation, metrics, prd, prdc
from tests.conftest import one_line


def test_evidence_is_sorted_by_the_true_category(learner, mnist5k, rng):
    evidence = metrics.evidence_by_category(learner, mnist5k, "test", rng=rng)
    assert list(evidence) == list(learner.names)
    for name, values in evidence.items():
        np.testing.assert_allclose(values, lifelong.evidence(learner, mnist5k.read("test", name)), rtol=1e-4, atol=0.01)


def test_density_is_that_of_an_images_own_category_and_bounds_are_ordered(learner, mnist5k, rng, monkeypatch):
    monkeypatch.setattr(metrics, "BOUND_IMAGES", 60)
    monkeypatch.setattr(metrics, "BOUND_SAMPLES", 50)
    values = metrics.density(learner, mnist5k, "test", rng=rng)
    own = []
    for column, name in enumerate(learner.names):
        config = learner.config.with_settings({"bound": "sampled", "samples": 50})
        evidence = lifelong.evidence(learner.replace(config=config), mnist5k.read("test", name)[:20], rng=rng)
        own.append(np.asarray(evidence)[:, column])
    assert values["elbo"] == pytest.approx(np.concatenate(own).mean(), abs=2)
    assert values["importance_bound"] > values["elbo"]


@pytest.fixture(scope="module")
def generated(learner, mnist5k, stranger, rng):
    """Figures of 40 imagined images a category, of which 3 real ones were learned from."""
    learned_from = limit_train_images(mnist5k, mnist5k.categories, 3)
    tasks = [("2",), ("0", "1")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prd, "REPEATS", 1)
        # A capacity that tells which images it was measured on.
        patch.setattr(metrics, "fitting_capacity", lambda images, real, rng: float(images["0"].sum()))
        return metrics.evaluate_generation(
            learner, mnist5k, "test", stranger, learned_from=learned_from, samples=120, tasks=tasks, rng=rng
        )


def test_generation_figures_are_of_what_is_imagined(generated, learner, mnist5k, stranger, rng):
    imagined = {n: np.asarray(x) for n, x in lifelong.imagine(learner, learner.names, 40, rng=rng).items()}
    real = {name: mnist5k.read("test", name) for name in learner.names}
    features = [np.concatenate([stranger.features(x) for x in part.values()]) for part in (imagined, real)]
    ours = generated["imagined"]
    assert generated["samples"] == dict.fromkeys(learner.names, 40)
    assert ours["frechet_distance"] == pytest.approx(generation.frechet_distance(*features), rel=1e-4)
    for key, value in prdc.prdc(*features).items():
        assert ours[key] == pytest.approx(value, abs=0.02)
    assert ours["agreement"] == pytest.approx(np.mean(list(stranger.agreement(imagined).values())))
    own = [stranger.features(part["0"]) for part in (imagined, real)]
    of_0 = ours["per_category"]["0"]
    assert of_0["frechet_distance"] == pytest.approx(generation.frechet_distance(*own), rel=1e-4)
    assert of_0["agreement"] == stranger.agreement(imagined)["0"]
    assert ours["fitting_capacity"] == pytest.approx(imagined["0"].sum(), rel=1e-4)
    assert generated["floor"]["fitting_capacity"] == mnist5k.read("train", "0")[:40].sum()


def test_the_floor_is_that_of_real_images(generated, mnist5k, stranger):
    real = {name: mnist5k.read("test", name) for name in "201"}
    train = {name: mnist5k.read("train", name)[:40] for name in "201"}
    assert metrics.similarity_metrics(train, real, stranger) == {
        key: value for key, value in generated["floor"].items() if key != "fitting_capacity"
    }
    assert generated["floor"]["frechet_distance"] < generated["imagined"]["frechet_distance"]


def test_real_images_are_like_themselves(mnist5k, stranger):
    real = {name: mnist5k.read("test", name) for name in "01"}
    same = metrics.similarity_metrics(real, real, stranger)
    for figures in (same, *same["per_category"].values()):
        assert figures["frechet_distance"] == pytest.approx(0, abs=1e-3)
        assert [figures[key] for key in ("precision", "recall", "coverage")] == [1, 1, 1]


def test_copies_are_looked_for_among_the_images_learned_from(generated, learner, mnist5k):
    nearest = generation.nearest_distances
    few = {name: mnist5k.read("train", name)[:3] for name in learner.names}
    held_out = np.concatenate([nearest(mnist5k.read("test", n)[:40], few[n]) for n in learner.names])
    assert generated["nearest"]["held_out"] == pytest.approx(np.median(held_out), rel=1e-4)


def test_figures_per_task_are_means_over_tasks(generated, learner, mnist5k, stranger, rng, monkeypatch):
    monkeypatch.setattr(prd, "REPEATS", 1)
    imagined = lifelong.imagine(learner, learner.names, 40, rng=rng)
    real = {name: mnist5k.read("test", name) for name in learner.names}
    expected = []
    for names in (("2",), ("0", "1")):
        features = [np.concatenate([stranger.features(part[n]) for n in names]) for part in (imagined, real)]
        expected.append([generation.frechet_distance(*features), *prd.precision_and_recall(*features).values()])
    assert list(generated["per_task"].values()) == pytest.approx(np.mean(expected, axis=0), rel=1e-3)


def test_no_more_is_imagined_than_there_are_training_images(learner, mnist5k, rng):
    imagined = metrics.sample_images(learner, mnist5k, 9000, rng=rng)
    assert {len(images) for images in imagined.values()} == {400}
    floor = metrics.floor_images(learner.names, mnist5k, 9000)
    assert {name: len(images) for name, images in floor.items()} == {n: 400 for n in learner.names}
    with pytest.raises(lifelong.InputError) as error:
        metrics.sample_images(learner, mnist5k, 5, rng=rng)
    one_line(error, "samples=5", "at least two")


def test_novelty_of_categories_that_are_not_known_and_of_noise(learner, mnist5k, rng):
    noise = np.random.default_rng(0).random((50, 28, 28, 1), np.float32)
    figures = metrics.ood_metrics(learner, mnist5k, "test", other={"noise": noise}, rng=rng)
    assert figures["noise"] == 1
    known = np.concatenate([lifelong.evidence(learner, mnist5k.read("test", n)).max(axis=1) for n in "201"])
    strange = [lifelong.evidence(learner, mnist5k.read("test", n)).max(axis=1) for n in "3456789"]
    wins = (known[:, None] > np.concatenate(strange)[None]).mean()
    assert figures["not_learned"] == pytest.approx(wins, abs=1e-3)
    assert 0.6 < figures["not_learned"] < 1
    assert 0.5 < figures["left_out"] < 1
