"""Fitting capacity by ridge regression."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from lifelong_cvae.evaluation import ridge_capacity as module
from lifelong_cvae.ridge import features, moments, penalty


@pytest.fixture(scope="module")
def images(mnist5k):
    """Training and test images by category."""
    return [{name: mnist5k.read(split, name)[:60] for name in "013"} for split in ("train", "test")]


@pytest.fixture(autouse=True)
def few_filters(monkeypatch):
    monkeypatch.setattr(module, "GRAY", module.ClosedFormConfig(num_filters=16, pool_grid=3, random_features=0))


def test_ridge_capacity_depends_on_the_labels_of_the_images(images):
    train, test = images
    assert module.ridge_capacity(train, test) > 0.9
    swapped = {"0": train["1"], "1": train["0"], "3": train["3"]}
    assert module.ridge_capacity(swapped, test) == pytest.approx(1 / 3, abs=0.07)


def test_ridge_capacity_is_the_accuracy_of_scikit_learn(images, monkeypatch):
    train, test = images
    monkeypatch.setattr(penalty, "RIDGES", (0.1,))
    settings, shape = module.GRAY, (28, 28, 1)
    made = features.make_dictionary(settings, shape), features.expansion_matrix(settings, shape)
    x, y = (
        np.concatenate([module._extract(*made, v, image_shape=shape, settings=settings) for v in part.values()])
        for part in (train, test)
    )
    scale = x.std(axis=0) + moments.SCALE_FLOOR * x.std(axis=0).mean()
    targets = np.repeat(np.eye(3), 60, axis=0)
    model = Ridge(0.1 * len(x)).fit((x - x.mean(axis=0)) / scale, targets)
    answers = model.predict((y - x.mean(axis=0)) / scale).argmax(axis=1)
    expected = np.mean(answers == np.repeat(np.arange(3), 60))
    assert module.ridge_capacity(train, test) == pytest.approx(expected, abs=1 / 180)


def test_ridge_capacity_of_a_few_images_uses_all_of_them(images):
    train, test = images
    assert module.ridge_capacity({name: values[:4] for name, values in train.items()}, test) > 0.6
