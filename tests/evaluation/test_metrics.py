"""Metrics of a learned state against second computations from the public interface."""

import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import sampling
from lifelong_cvae.data.source import limit_train_images
from lifelong_cvae.evaluation import generation, metrics, prd, prdc, spectrum
from lifelong_cvae.evaluation.reference_classifier import ReferenceClassifier
from tests.conftest import one_line

TASKS = (("2",), ("0", "1"))


@pytest.fixture(scope="module")
def generation_values(learner, mnist5k, stranger, rng):
    """Metrics of 40 imagined images per category, for a learner that was trained on 3 images per category."""
    learned_from = limit_train_images(mnist5k, mnist5k.categories, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prd, "REPEATS", 1)
        # A stand-in whose value identifies the images that it was computed on.
        patch.setattr(ReferenceClassifier, "fitting_capacity", lambda _, images, real, rng: float(images["0"].sum()))
        patch.setattr(metrics, "ridge_capacity", lambda images, real: float(images["0"].sum()))
        return metrics.evaluate_generation(
            learner, mnist5k, "test", stranger, learned_from=learned_from, samples=120, tasks=TASKS, rng=rng
        )


@pytest.fixture(scope="module")
def imagined(learner, rng):
    """The imagined images of `generation_values`, by category."""
    return {n: np.asarray(x) for n, x in lifelong.imagine(learner, learner.names, 40, rng=rng).items()}


@pytest.fixture(scope="module")
def real(learner, mnist5k):
    """Test images by category."""
    return {name: mnist5k.read("test", name) for name in learner.names}


def test_evidence_by_category_is_keyed_by_the_true_category(learner, mnist5k, real, rng):
    evidence = metrics.evidence_by_category(learner, mnist5k, "test", rng=rng)
    assert list(evidence) == list(learner.names)
    for name, values in evidence.items():
        np.testing.assert_allclose(values, lifelong.evidence(learner, real[name]), rtol=1e-4, atol=0.01)


def test_density_is_of_the_own_category_and_bounds_are_ordered(learner, mnist5k, real, rng, monkeypatch):
    monkeypatch.setattr(metrics, "BOUND_IMAGES", 60)
    monkeypatch.setattr(metrics, "BOUND_SAMPLES", 50)
    values = metrics.density(learner, mnist5k, "test", rng=rng)
    elbos = []
    for column, name in enumerate(learner.names):
        config = learner.config.with_settings({"bound": "sampled", "samples": 50})
        evidence = lifelong.evidence(learner.replace(config=config), real[name][:20], rng=rng)
        elbos.append(np.asarray(evidence)[:, column])
    assert values["elbo"] == pytest.approx(np.concatenate(elbos).mean(), abs=2)
    assert values["importance_bound"] > values["elbo"]


def test_evaluate_generation_compares_imagined_with_real_images(
    generation_values, learner, mnist5k, stranger, imagined, real
):
    features = [np.concatenate([stranger.features(x) for x in part.values()]) for part in (imagined, real)]
    values = generation_values["imagined"]
    assert generation_values["samples"] == dict.fromkeys(learner.names, 40)
    assert values["frechet_distance"] == pytest.approx(generation.frechet_distance(*features), rel=1e-4)
    for key, value in prdc.prdc(*features).items():
        assert values[key] == pytest.approx(value, abs=0.02)
    assert values["agreement"] == pytest.approx(np.mean(list(stranger.agreement(imagined).values())))
    features_of_0 = [stranger.features(part["0"]) for part in (imagined, real)]
    values_of_0 = values["per_category"]["0"]
    assert values_of_0["frechet_distance"] == pytest.approx(generation.frechet_distance(*features_of_0), rel=1e-4)
    assert values_of_0["agreement"] == stranger.agreement(imagined)["0"]
    assert values["fitting_capacity"] == pytest.approx(imagined["0"].sum(), rel=1e-4)
    assert generation_values["floor"]["fitting_capacity"] == mnist5k.read("train", "0")[:40].sum()


def test_evaluate_generation_computes_the_floor_from_training_images(generation_values, mnist5k, stranger, real):
    train = {name: mnist5k.read("train", name)[:40] for name in "201"}
    floor = generation_values["floor"]
    others = ("fitting_capacity", "ridge_capacity", "spectrum")
    expected = {key: value for key, value in floor.items() if key not in others}
    assert generation.similarity_metrics(train, real, stranger) == expected
    images, real_images = (np.concatenate(list(part.values())) for part in (train, real))
    assert floor["ridge_capacity"] == train["0"].sum()
    assert floor["spectrum"] == spectrum.spectrum_metrics(images, real_images)
    assert floor["frechet_distance"] < generation_values["imagined"]["frechet_distance"]


def test_evaluate_generation_compares_reconstructions(generation_values, learner, real):
    held_out = {name: images[:40] for name, images in real.items()}
    errors = [
        np.square(np.asarray(sampling.reconstruct(learner, name, x)) - x / 255.0).mean() for name, x in held_out.items()
    ]
    assert generation_values["reconstructed"]["squared_error"] == pytest.approx(np.mean(errors), rel=1e-4)


def test_evaluate_generation_searches_copies_among_the_learned_images(generation_values, learner, mnist5k, real):
    learned_images = {name: mnist5k.read("train", name)[:3] for name in learner.names}
    distances = [generation.nearest_distances(real[n][:40], learned_images[n]) for n in learner.names]
    assert generation_values["nearest"]["held_out"] == pytest.approx(np.median(np.concatenate(distances)), rel=1e-4)


def test_per_task_metrics_are_means_over_tasks(generation_values, stranger, imagined, real, monkeypatch):
    monkeypatch.setattr(prd, "REPEATS", 1)
    expected = []
    for names in TASKS:
        features = [np.concatenate([stranger.features(part[n]) for n in names]) for part in (imagined, real)]
        expected.append([generation.frechet_distance(*features), *prd.precision_and_recall(*features).values()])
    assert list(generation_values["per_task"].values()) == pytest.approx(np.mean(expected, axis=0), rel=1e-3)


def test_similarity_metrics_of_identical_sets_are_perfect(stranger, real):
    two_categories = {name: real[name] for name in "01"}
    values = generation.similarity_metrics(two_categories, two_categories, stranger)
    for similarity in (values, *values["per_category"].values()):
        assert similarity["frechet_distance"] == pytest.approx(0, abs=1e-3)
        assert [similarity[key] for key in ("precision", "recall", "coverage")] == [1, 1, 1]


def test_sample_images_are_at_most_as_many_as_training_images(learner, mnist5k, rng):
    images = metrics.sample_images(learner, mnist5k, 9000, rng=rng)
    assert {len(x) for x in images.values()} == {400}
    floor = metrics.floor_images(learner.names, mnist5k, 9000)
    assert {name: len(x) for name, x in floor.items()} == {n: 400 for n in learner.names}


def test_sample_images_rejects_fewer_than_two_per_category(learner, mnist5k, rng):
    with pytest.raises(lifelong.InputError) as error:
        metrics.sample_images(learner, mnist5k, 5, rng=rng)
    one_line(error, "samples: expected at least two for each of 3 categories, got 5")


def test_ood_metrics_separate_noise_and_categories_not_learned(learner, mnist5k, real, rng):
    noise = np.random.default_rng(0).random((50, 28, 28, 1), np.float32)
    areas = metrics.ood_metrics(learner, mnist5k, "test", other={"noise": noise}, rng=rng)
    assert areas["noise"] == 1
    known = np.concatenate([lifelong.evidence(learner, real[n]).max(axis=1) for n in "201"])
    unknown = [lifelong.evidence(learner, mnist5k.read("test", n)).max(axis=1) for n in "3456789"]
    wins = (known[:, None] > np.concatenate(unknown)[None]).mean()
    assert areas["not_learned"] == pytest.approx(wins, abs=1e-3)
    assert 0.6 < areas["not_learned"] < 1
    assert 0.5 < areas["left_out"] < 1
