import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.data import from_arrays
from lifelong_cvae.evaluation import reference_classifier
from lifelong_cvae.evaluation.reference_classifier import FEATURES, _patches, fitting_capacity, load_or_train


@pytest.fixture(scope="module")
def source(mnist5k):
    """Digits 0, 1 and 3 at 9 x 9, a size that no layer divides."""

    def shrunk(split):
        images = np.concatenate([mnist5k.read(split, name) for name in "013"])[:, :27, :27, 0]
        return images.reshape(-1, 9, 3, 9, 3).mean(axis=(2, 4)).astype(np.uint8)

    return from_arrays(
        "shrunk",
        train_images=shrunk("train"),
        train_labels=np.repeat(["0", "1", "3"], 400),
        test_images=shrunk("test"),
        test_labels=np.repeat(["0", "1", "3"], 100),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("judges")


@pytest.fixture(scope="module")
def trained(source, folder):
    return load_or_train(source, folder)


def test_the_judge_knows_real_images_it_has_not_seen(trained, source):
    agreement = trained.agreement({name: source.read("test", name) for name in source.categories})
    assert list(agreement) == ["0", "1", "3"]
    assert min(agreement.values()) >= 0.93
    swapped = trained.agreement({"0": source.read("test", "1")})
    assert swapped["0"] <= 0.05


def test_features_and_answers_do_not_depend_on_the_block(trained, source, monkeypatch):
    images = source.read("test", "3")
    features, answers = trained.features(images), trained.predict(images)
    assert features.shape == (100, FEATURES)
    monkeypatch.setattr(reference_classifier, "MAX_BATCH", 7)
    np.testing.assert_allclose(trained.features(images), features, rtol=1e-3, atol=1e-3)
    assert (trained.predict(images) == answers).mean() >= 0.99


def test_patches_are_those_of_a_convolution(trained):
    images = jax.random.normal(jax.random.key(0), (2, 7, 10, 3))
    kernel = jax.random.normal(jax.random.key(1), (4, 4, 3, 5))
    ours = _patches(images, 4) @ kernel.reshape(-1, 5)
    rows, columns = (2 * ((size + 1) // 2) + 2 - size - 1 for size in (7, 10))
    expected = jax.lax.conv_general_dilated(
        images, kernel, (2, 2), [(1, rows), (1, columns)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_a_judge_is_trained_once_for_the_same_data(trained, source, folder, monkeypatch):
    monkeypatch.setattr(reference_classifier, "train_classifier", None)
    again = load_or_train(source, folder)
    images = source.read("test", "0")
    np.testing.assert_array_equal(again.features(images), trained.features(images))


def test_a_damaged_judge_is_told_in_one_line(trained, source, folder, tmp_path):
    (file,) = folder.glob("*.npz")
    (tmp_path / file.name).write_bytes(file.read_bytes()[:100])
    with pytest.raises(lifelong.InputError, match="remove it, and the classifier is trained anew"):
        load_or_train(source, tmp_path)


@pytest.mark.slow
def test_fitting_capacity_is_what_images_teach(source, monkeypatch):
    monkeypatch.setattr(reference_classifier, "MIN_STEPS", 120)
    real = {name: source.read("test", name) for name in source.categories}
    good = {name: source.read("train", name)[:200] for name in source.categories}
    assert fitting_capacity(good, real, rng=jax.random.key(0)) > 0.9
    swapped = {"0": good["1"], "1": good["0"], "3": good["3"]}
    assert fitting_capacity(swapped, real, rng=jax.random.key(0)) == pytest.approx(1 / 3, abs=0.07)
