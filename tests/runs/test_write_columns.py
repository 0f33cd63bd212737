"""Files for others: imagined images and recognized categories, equal to what the library gives."""

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
from lifelong_cvae.model import cvae
from lifelong_cvae.runs import columns
from tests.conftest import one_line

COMMA = 'T-shirt/top, "ζ"'
NAMES = ("3", COMMA, "4")
COLUMNS = ["index", "category", "probability", "log_evidence", "unknown"]


@pytest.fixture(scope="module")
def learned(small_config, digits, rng):
    """A state that knows three categories, one of them by a name that needs quotes."""
    state = lifelong.init(small_config, (28, 28), rng=rng)
    for _ in range(10):  # often enough that each of them is the answer for some image
        for name, digit in zip(NAMES, "314", strict=True):
            state, _ = lifelong.learn(state, {name: digits[digit][:60]}, rng=rng)
    return state


@pytest.fixture(scope="module")
def images(digits):
    """Digits in mixed order, a few of them unlike all that was learned."""
    return np.concatenate([digits[digit][100:107] for digit in "1403"])[::-1]


def rows_of(file):
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(
    ("names", "count", "seed", "cycles"), [(NAMES, 2, 0, 0), (("4", COMMA), 2, 5, 0), (("4",), 2, 5, 2)]
)
def test_the_npz_holds_what_is_imagined_in_the_order_asked_for(learned, tmp_path, names, count, seed, cycles):
    file = tmp_path / "imagined.npz"
    columns.write_samples(learned, names, count, file, seed=seed, cycles=cycles)
    with np.load(file, allow_pickle=False) as arrays:
        assert sorted(arrays) == ["images", "labels"]
        pixels, labels = arrays["images"], arrays["labels"]
    assert pixels.dtype == np.uint8
    assert pixels.shape == (len(names) * count, 28, 28, 1)
    assert labels.dtype.kind == "U"
    assert labels.tolist() == [name for name in names for _ in range(count)]
    expected = sampling.imagine(learned, names, count, rng=jax.random.key(seed), cycles=cycles)
    for name in names:
        fractions = np.asarray(expected[name], np.float64)
        np.testing.assert_array_equal(pixels[labels == name], np.floor(255 * fractions + 0.5))
    assert [path.name for path in tmp_path.iterdir()] == ["imagined.npz"]


def test_seed_and_cycles_change_the_images_and_nothing_else_does(learned, tmp_path):
    def pixels(**options):
        columns.write_samples(learned, ("3",), 2, tmp_path / "x.npz", **options)
        with np.load(tmp_path / "x.npz") as arrays:
            return arrays["images"].tobytes()

    assert pixels(seed=5) == pixels(seed=5, cycles=0)
    assert len({pixels(seed=5), pixels(seed=6), pixels(seed=5, cycles=2)}) == 3


def test_the_png_is_a_grid_of_the_images(learned, tmp_path):
    sizes = []
    for names, count in [(("3",), 2), (("3", "4"), 5)]:
        columns.write_samples(learned, names, count, tmp_path / "x.png", seed=0)
        with Image.open(tmp_path / "x.png") as picture:
            assert picture.format == "PNG"
            picture.load()
            sizes.append(picture.size)
    assert sizes[1][0] > sizes[0][0]
    assert sizes[1][1] > sizes[0][1]


@pytest.mark.parametrize("name", ["x.jpg", "x.csv", "x.npy", "x", "npz", "x.npz.gz"])
def test_imagined_images_of_another_kind_of_file_are_refused(learned, tmp_path, name):
    with pytest.raises(InputError) as error:
        columns.write_samples(learned, NAMES, 1, tmp_path / name, seed=0)
    one_line(error, tmp_path / name, ".npz", ".png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.npz", "x.txt", "x"])
def test_answers_in_another_kind_of_file_are_refused(learned, images, tmp_path, name):
    with pytest.raises(InputError) as error:
        columns.write_predictions(learned, images, tmp_path / name, seed=0)
    one_line(error, tmp_path / name, ".csv")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named_and_not_made(learned, images, tmp_path):
    for name in ("x.npz", "x.png"):
        with pytest.raises(InputError) as error:
            columns.write_samples(learned, NAMES, 1, tmp_path / "none" / name, seed=0)
        one_line(error, tmp_path / "none", "expected an existing folder")
    with pytest.raises(InputError) as error:
        columns.write_predictions(learned, images, tmp_path / "none" / "x.csv", seed=0)
    one_line(error, tmp_path / "none", "expected an existing folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["x.npz", "x.png"])
def test_unknown_or_repeated_categories_write_nothing(learned, tmp_path, file):
    for names, words in [(("3", "9"), ["'9'", "4"]), (("3", "3"), ["once"])]:
        with pytest.raises(InputError) as error:
            columns.write_samples(learned, names, 1, tmp_path / file, seed=0)
        one_line(error, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_png_without_matplotlib_names_the_extra_and_an_npz_needs_none(learned, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError) as error:
        columns.write_samples(learned, NAMES, 2, tmp_path / "x.png", seed=0)
    one_line(error, "figures")
    assert list(tmp_path.iterdir()) == []
    columns.write_samples(learned, NAMES, 2, tmp_path / "x.npz", seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_the_csv_holds_the_evidence_of_recognition_to_the_last_digit(learned, images, tmp_path):
    file = tmp_path / "answers.csv"
    columns.write_predictions(learned, images, file, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["answers.csv"]
    assert file.read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)
    rows = rows_of(file)
    assert [row["index"] for row in rows] == [str(index) for index in range(len(images))]
    evidence = np.asarray(lifelong.evidence(learned, images))
    names, probabilities = lifelong.recognize(learned, images)
    assert set(names) == set(NAMES), "a test of several answers"
    assert [row["category"] for row in rows] == names.tolist()
    unknown = lifelong.unknown(learned, evidence, names)
    for row, nats, chances, stranger in zip(rows, evidence, probabilities, unknown, strict=True):
        assert float(row["log_evidence"]) == float(nats.max())
        assert float(row["probability"]) == float(chances.max())
        assert row["unknown"] == str(bool(stranger)).lower()


def test_the_csv_agrees_with_each_category_computed_alone(learned, images, tmp_path):
    columns.write_predictions(learned, images, tmp_path / "answers.csv", seed=0)
    x = to_float(flatten_images(images, (28, 28, 1)))
    nats = []
    for name in learned.names:
        path = learned.model(name)
        posterior = cvae.encode(path, x)
        nats.append(np.asarray(cvae.elbo_at(path, x, posterior, posterior.mean), np.float64))
    for row, values in zip(rows_of(tmp_path / "answers.csv"), np.transpose(nats), strict=True):
        best = int(values.argmax())
        assert row["category"] == NAMES[best]
        assert float(row["log_evidence"]) == pytest.approx(values[best], rel=1e-5, abs=1e-3)
        total = math.fsum(math.exp(value - values[best]) for value in values)
        assert float(row["probability"]) == pytest.approx(1 / total, rel=1e-2)


@pytest.mark.parametrize("part", [0.0, 0.5])
def test_an_image_is_unknown_below_the_threshold_of_its_category(learned, images, tmp_path, part):
    evidence = np.asarray(lifelong.evidence(learned, images))
    columns.write_predictions(learned, images, tmp_path / "x.csv", seed=0, reject=part)
    rows = rows_of(tmp_path / "x.csv")
    medians = {name: learned.params["categories"][name]["thresholds"][-1] for name in NAMES}
    bars = [float(medians[row["category"]]) if part else -np.inf for row in rows]
    assert [row["unknown"] for row in rows] == [
        str(bool(nats < bar)).lower() for nats, bar in zip(evidence.max(axis=1), bars, strict=True)
    ]


def test_bounds_that_draw_samples_draw_them_from_the_seed(learned, images, tmp_path):
    config = learned.config.with_settings({"bound": "importance", "samples": 2})
    state = learned.replace(config=config)
    evidence = {}
    for seed in (1, 2):
        columns.write_predictions(state, images, tmp_path / "x.csv", seed=seed)
        evidence[seed] = [float(row["log_evidence"]) for row in rows_of(tmp_path / "x.csv")]
        expected = np.asarray(recognition.evidence(state, images, rng=jax.random.key(seed)))
        assert evidence[seed] == expected.max(axis=1).tolist()
    assert evidence[1] != evidence[2]


def test_fractions_and_bytes_are_recognised_alike(learned, images, tmp_path):
    columns.write_predictions(learned, images, tmp_path / "bytes.csv", seed=0)
    columns.write_predictions(learned, images / np.float32(255), tmp_path / "fractions.csv", seed=0)
    answers = [[row["category"] for row in rows_of(tmp_path / f"{x}.csv")] for x in ("bytes", "fractions")]
    assert answers[0] == answers[1]


def test_no_image_gives_a_heading_and_no_row(learned, images, tmp_path):
    columns.write_predictions(learned, images[:0], tmp_path / "x.csv", seed=0)
    assert (tmp_path / "x.csv").read_text(encoding="utf-8").splitlines() == [",".join(COLUMNS)]


def test_images_of_another_shape_leave_an_older_file_as_it_was(learned, images, tmp_path):
    (tmp_path / "x.csv").write_text("older")
    with pytest.raises(InputError) as error:
        columns.write_predictions(learned, images[:, ::2], tmp_path / "x.csv", seed=0)
    one_line(error, "28, 28, 1", "14, 28")
    assert (tmp_path / "x.csv").read_text() == "older"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_knows_nothing_writes_nothing(learned, images, tmp_path, rng):
    newborn = lifelong.init(learned.config, (28, 28), rng=rng)
    with pytest.raises(InputError) as error:
        columns.write_predictions(newborn, images, tmp_path / "x.csv", seed=0)
    one_line(error)
    with pytest.raises(InputError):
        columns.write_samples(newborn, newborn.names, 1, tmp_path / "x.npz", seed=0)
    assert list(tmp_path.iterdir()) == []
