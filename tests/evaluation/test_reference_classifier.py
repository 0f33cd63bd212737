"""The reference classifier on small real digits: accuracy, features, and its file."""

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.data import from_arrays
from lifelong_cvae.evaluation import reference_classifier
from lifelong_cvae.evaluation.reference_classifier import FEATURES, _patches, load_or_train


@pytest.fixture(scope="module")
def source(mnist5k):
    """Digits 0, 1 and 3 at 9 x 9 pixels, a size that no layer divides."""

    def small_images(split):
        images = np.concatenate([mnist5k.read(split, name) for name in "013"])[:, :27, :27, 0]
        return images.reshape(-1, 9, 3, 9, 3).mean(axis=(2, 4)).astype(np.uint8)

    return from_arrays(
        "small_digits",
        train_images=small_images("train"),
        train_labels=np.repeat(["0", "1", "3"], 400),
        test_images=small_images("test"),
        test_labels=np.repeat(["0", "1", "3"], 100),
    )


@pytest.fixture(scope="module")
def classifiers_dir(tmp_path_factory):
    """Folder of the trained classifier's file."""
    return tmp_path_factory.mktemp("classifiers")


@pytest.fixture(scope="module")
def classifier(source, classifiers_dir):
    """The reference classifier of `source`, trained and saved. A third of the usual steps are enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference_classifier, "MIN_STEPS", 200)
        return load_or_train(source, classifiers_dir)


def test_agreement_is_high_for_held_out_real_images(classifier, source):
    agreement = classifier.agreement({name: source.read("test", name) for name in source.categories})
    assert list(agreement) == ["0", "1", "3"]
    assert min(agreement.values()) >= 0.93
    mislabeled = classifier.agreement({"0": source.read("test", "1")})
    assert mislabeled["0"] <= 0.05


def test_features_and_predictions_do_not_depend_on_the_batch_size(classifier, source, monkeypatch):
    images = source.read("test", "3")
    features, predictions = classifier.features(images), classifier.predict(images)
    assert features.shape == (100, FEATURES)
    monkeypatch.setattr(reference_classifier, "MAX_BATCH", 7)
    np.testing.assert_allclose(classifier.features(images), features, rtol=1e-3, atol=1e-3)
    assert (classifier.predict(images) == predictions).mean() >= 0.99


def test_patches_give_a_convolution():
    images = jax.random.normal(jax.random.key(0), (2, 7, 10, 3))
    kernel = jax.random.normal(jax.random.key(1), (4, 4, 3, 5))
    products = _patches(images, 4) @ kernel.reshape(-1, 5)
    rows, columns = (2 * ((size + 1) // 2) + 2 - size - 1 for size in (7, 10))
    expected = jax.lax.conv_general_dilated(
        images, kernel, (2, 2), [(1, rows), (1, columns)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(products, expected, rtol=1e-4, atol=1e-4)


def test_load_or_train_trains_once_for_the_same_data(classifier, source, classifiers_dir, monkeypatch):
    monkeypatch.setattr(reference_classifier, "train_classifier", None)
    loaded = load_or_train(source, classifiers_dir)
    images = source.read("test", "0")
    np.testing.assert_array_equal(loaded.features(images), classifier.features(images))


def test_load_or_train_keeps_the_file_name_of_earlier_versions(classifier, source, classifiers_dir):
    assert [file.name for file in classifiers_dir.iterdir()] == [f"judge-{source.fingerprint[:16]}-1200.npz"]


def test_load_or_train_rejects_a_damaged_file(classifier, source, classifiers_dir, tmp_path):
    (file,) = classifiers_dir.glob("*.npz")
    (tmp_path / file.name).write_bytes(file.read_bytes()[:100])
    with pytest.raises(lifelong.InputError, match="cannot be read: delete it to train the reference classifier again"):
        load_or_train(source, tmp_path)


@pytest.mark.slow
def test_fitting_capacity_depends_on_the_labels_of_the_images(classifier, source, monkeypatch):
    monkeypatch.setattr(reference_classifier, "MIN_STEPS", 120)
    real = {name: source.read("test", name) for name in source.categories}
    correct = {name: source.read("train", name)[:200] for name in source.categories}
    assert classifier.fitting_capacity(correct, real, rng=jax.random.key(0)) > 0.9
    swapped = {"0": correct["1"], "1": correct["0"], "3": correct["3"]}
    assert classifier.fitting_capacity(swapped, real, rng=jax.random.key(0)) == pytest.approx(1 / 3, abs=0.07)
