"""Files of imagined images and of predictions, compared with the library."""

import csv
import math
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import lifelong_cvae as lifelong
from lifelong_cvae import recognition, sampling
from lifelong_cvae.errors import InputError, MissingExtraError
from lifelong_cvae.images import flatten_images, to_float
from lifelong_cvae.runs import columns
from tests.compiled import elbo_at, encode
from tests.conftest import one_line

COMMA = 'T-shirt/top, "ζ"'
NAMES = ("3", COMMA, "4")
COLUMNS = ["index", "category", "probability", "log_evidence", "unknown"]


@pytest.fixture(scope="module")
def learned_state(small_config, digits, rng):
    """A state of three categories, one of them with a name that needs quotes in CSV."""
    state = lifelong.init(small_config, (28, 28), rng=rng)
    for _ in range(10):  # often enough that each category is predicted for some image
        for name, digit in zip(NAMES, "314", strict=True):
            state, _ = lifelong.learn(state, {name: digits[digit][:60]}, rng=rng)
    return state


@pytest.fixture(scope="module")
def images(digits):
    """Digits in mixed order, some of a category that was not trained."""
    return np.concatenate([digits[digit][100:107] for digit in "1403"])[::-1]


def read_rows(file):
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(
    ("names", "count", "seed", "cycles"), [(NAMES, 2, 0, 0), (("4", COMMA), 2, 5, 0), (("4",), 2, 5, 2)]
)
def test_write_samples_writes_imagined_images_in_the_given_order(learned_state, tmp_path, names, count, seed, cycles):
    file = tmp_path / "imagined.npz"
    columns.write_samples(learned_state, names, count, file, seed=seed, cycles=cycles)
    with np.load(file, allow_pickle=False) as arrays:
        assert sorted(arrays) == ["images", "labels"]
        pixels, labels = arrays["images"], arrays["labels"]
    assert pixels.dtype == np.uint8
    assert pixels.shape == (len(names) * count, 28, 28, 1)
    assert labels.dtype.kind == "U"
    assert labels.tolist() == [name for name in names for _ in range(count)]
    expected = sampling.imagine(learned_state, names, count, rng=jax.random.key(seed), cycles=cycles)
    for name in names:
        fractions = np.asarray(expected[name], np.float64)
        np.testing.assert_array_equal(pixels[labels == name], np.floor(255 * fractions + 0.5))
    assert [path.name for path in tmp_path.iterdir()] == ["imagined.npz"]


def test_write_samples_depends_on_seed_and_cycles_only(learned_state, tmp_path):
    def pixels(**options):
        columns.write_samples(learned_state, ("3",), 2, tmp_path / "x.npz", **options)
        with np.load(tmp_path / "x.npz") as arrays:
            return arrays["images"].tobytes()

    assert pixels(seed=5) == pixels(seed=5, cycles=0)
    assert len({pixels(seed=5), pixels(seed=6), pixels(seed=5, cycles=2)}) == 3


def test_write_samples_draws_a_grid(learned_state, tmp_path):
    sizes = []
    for names, count in [(("3",), 2), (("3", "4"), 5)]:
        columns.write_samples(learned_state, names, count, tmp_path / "x.png", seed=0)
        with Image.open(tmp_path / "x.png") as picture:
            assert picture.format == "PNG"
            picture.load()
            sizes.append(picture.size)
    assert sizes[1][0] > sizes[0][0]
    assert sizes[1][1] > sizes[0][1]


@pytest.mark.parametrize("name", ["x.jpg", "x.csv", "x.npy", "x", "npz", "x.npz.gz"])
def test_write_samples_refuses_other_suffixes(learned_state, tmp_path, name):
    with pytest.raises(InputError) as error:
        columns.write_samples(learned_state, NAMES, 1, tmp_path / name, seed=0)
    one_line(error, tmp_path / name, ".npz", ".png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.npz", "x.txt", "x"])
def test_write_predictions_refuses_other_suffixes(learned_state, images, tmp_path, name):
    with pytest.raises(InputError) as error:
        columns.write_predictions(learned_state, images, tmp_path / name, seed=0)
    one_line(error, tmp_path / name, ".csv")
    assert list(tmp_path.iterdir()) == []


def test_writers_refuse_a_missing_folder(learned_state, images, tmp_path):
    for name in ("x.npz", "x.png"):
        with pytest.raises(InputError) as error:
            columns.write_samples(learned_state, NAMES, 1, tmp_path / "none" / name, seed=0)
        one_line(error, f"expected an existing folder, got {tmp_path / 'none'}")
    with pytest.raises(InputError) as error:
        columns.write_predictions(learned_state, images, tmp_path / "none" / "x.csv", seed=0)
    one_line(error, f"expected an existing folder, got {tmp_path / 'none'}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["x.npz", "x.png"])
def test_write_samples_refuses_unknown_and_repeated_categories(learned_state, tmp_path, file):
    for names, words in [(("3", "9"), ["'9'", "4"]), (("3", "3"), ["expected each one once, got 3, 3"])]:
        with pytest.raises(InputError) as error:
            columns.write_samples(learned_state, names, 1, tmp_path / file, seed=0)
        one_line(error, *words)
    assert list(tmp_path.iterdir()) == []


def test_write_samples_needs_matplotlib_for_png_only(learned_state, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError) as error:
        columns.write_samples(learned_state, NAMES, 2, tmp_path / "x.png", seed=0)
    one_line(error, "figures")
    assert list(tmp_path.iterdir()) == []
    columns.write_samples(learned_state, NAMES, 2, tmp_path / "x.npz", seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_write_predictions_equals_the_library_exactly(learned_state, images, tmp_path):
    file = tmp_path / "predictions.csv"
    columns.write_predictions(learned_state, images, file, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]
    assert file.read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)
    rows = read_rows(file)
    assert [row["index"] for row in rows] == [str(index) for index in range(len(images))]
    evidence = np.asarray(lifelong.evidence(learned_state, images))
    names, probabilities = lifelong.recognize(learned_state, images)
    assert set(names) == set(NAMES), "every category is predicted"
    assert [row["category"] for row in rows] == names.tolist()
    unknown = lifelong.unknown(learned_state, evidence, names)
    for row, nats, posterior, is_unknown in zip(rows, evidence, probabilities, unknown, strict=True):
        assert float(row["log_evidence"]) == float(nats.max())
        assert float(row["probability"]) == float(posterior.max())
        assert row["unknown"] == str(bool(is_unknown)).lower()


def test_write_predictions_equals_single_categories(learned_state, images, tmp_path):
    columns.write_predictions(learned_state, images, tmp_path / "predictions.csv", seed=0)
    x = to_float(flatten_images(images, (28, 28, 1)))
    nats = []
    for name in learned_state.names:
        model = learned_state.model(name)
        posterior = encode(model, x)
        nats.append(np.asarray(elbo_at(model, x, posterior, posterior.mean), np.float64))
    for row, values in zip(read_rows(tmp_path / "predictions.csv"), np.transpose(nats), strict=True):
        best = int(values.argmax())
        assert row["category"] == NAMES[best]
        assert float(row["log_evidence"]) == pytest.approx(values[best], rel=1e-5, abs=1e-3)
        total = math.fsum(math.exp(value - values[best]) for value in values)
        assert float(row["probability"]) == pytest.approx(1 / total, rel=1e-2)


@pytest.mark.parametrize("reject", [0.0, 0.5])
def test_write_predictions_rejects_below_the_threshold_of_the_category(learned_state, images, tmp_path, reject):
    evidence = np.asarray(lifelong.evidence(learned_state, images))
    columns.write_predictions(learned_state, images, tmp_path / "x.csv", seed=0, reject=reject)
    rows = read_rows(tmp_path / "x.csv")
    medians = {name: learned_state.params["categories"][name]["thresholds"][-1] for name in NAMES}
    thresholds = [float(medians[row["category"]]) if reject else -np.inf for row in rows]
    assert [row["unknown"] for row in rows] == [
        str(bool(nats < threshold)).lower() for nats, threshold in zip(evidence.max(axis=1), thresholds, strict=True)
    ]


def test_write_predictions_samples_from_the_seed(learned_state, images, tmp_path):
    config = learned_state.config.with_settings({"bound": "importance", "samples": 2})
    state = learned_state.replace(config=config)
    evidence = {}
    for seed in (1, 2):
        columns.write_predictions(state, images, tmp_path / "x.csv", seed=seed)
        evidence[seed] = [float(row["log_evidence"]) for row in read_rows(tmp_path / "x.csv")]
        expected = np.asarray(recognition.evidence(state, images, rng=jax.random.key(seed)))
        assert evidence[seed] == expected.max(axis=1).tolist()
    assert evidence[1] != evidence[2]


def test_write_predictions_accepts_bytes_and_fractions(learned_state, images, tmp_path):
    columns.write_predictions(learned_state, images, tmp_path / "bytes.csv", seed=0)
    columns.write_predictions(learned_state, images / np.float32(255), tmp_path / "fractions.csv", seed=0)
    names = [[row["category"] for row in read_rows(tmp_path / f"{kind}.csv")] for kind in ("bytes", "fractions")]
    assert names[0] == names[1]


def test_write_predictions_writes_a_heading_for_no_images(learned_state, images, tmp_path):
    columns.write_predictions(learned_state, images[:0], tmp_path / "x.csv", seed=0)
    assert (tmp_path / "x.csv").read_text(encoding="utf-8").splitlines() == [",".join(COLUMNS)]


def test_write_predictions_keeps_the_old_file_on_errors(learned_state, images, tmp_path):
    (tmp_path / "x.csv").write_text("older")
    with pytest.raises(InputError) as error:
        columns.write_predictions(learned_state, images[:, ::2], tmp_path / "x.csv", seed=0)
    one_line(error, "28, 28, 1", "14, 28")
    assert (tmp_path / "x.csv").read_text() == "older"
    assert len(list(tmp_path.iterdir())) == 1


def test_writers_refuse_a_state_without_categories(learned_state, images, tmp_path, rng):
    fresh = lifelong.init(learned_state.config, (28, 28), rng=rng)
    with pytest.raises(InputError) as error:
        columns.write_predictions(fresh, images, tmp_path / "x.csv", seed=0)
    one_line(error)
    with pytest.raises(InputError):
        columns.write_samples(fresh, fresh.names, 1, tmp_path / "x.npz", seed=0)
    assert list(tmp_path.iterdir()) == []
