"""The launcher `recognize`."""

import csv

import numpy as np
import pytest
from PIL import Image

import lifelong_cvae as lifelong
from lifelong_cvae.data import SourceOptions, open_source
from lifelong_cvae.runs.config import read_run_config
from lifelong_cvae.runs.workdir import load_state
from tests.conftest import result_of
from tests.experiments.conftest import SETTINGS, Ended
from tests.experiments.idx import write_idx


def read_rows(file):
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write_jpegs(folder, digits, numbers):
    """Writes digits as color JPEG files of random sizes with random borders."""
    folder.mkdir(parents=True)
    for index, digit in enumerate(digits):
        side, border = int(numbers.integers(28, 80)), int(numbers.integers(0, 30))
        wide = Image.new("L", (side + 2 * border, side))
        wide.paste(Image.fromarray(digit).resize((side, side)), (border, 0))
        wide.convert("RGB").save(folder / f"{index}.jpg", quality=95)


def test_recognize_equals_the_library(learned_run, launch, mixed_digits, tmp_path):
    np.savez(tmp_path / "digits.npz", images=mixed_digits)
    state = load_state(learned_run)
    evidence = lifelong.evidence(state, mixed_digits)
    file = tmp_path / "predictions.csv"
    flags = (f"--workdir={learned_run}", f"--images={tmp_path / 'digits.npz'}", f"--output={file}")
    assert launch("recognize", *flags, "--reject=0.4") == Ended(0, "", "")
    rows = read_rows(file)
    names, probabilities = lifelong.recognize(state, mixed_digits)
    assert [row["index"] for row in rows] == [*map(str, range(12))]
    assert [row["category"] for row in rows] == names.tolist()
    best = np.asarray(evidence).max(axis=1)
    np.testing.assert_allclose([float(row["log_evidence"]) for row in rows], best, rtol=1e-5)
    np.testing.assert_allclose([float(row["probability"]) for row in rows], probabilities.max(axis=1), rtol=1e-3)
    unknown = lifelong.unknown(state, evidence, names, rate=0.4)
    assert set(unknown.tolist()) == {True, False}
    assert [row["unknown"] for row in rows] == [str(value).lower() for value in unknown.tolist()]


def test_recognize_reads_a_folder_of_pictures_like_an_idx_file(learned_run, launch, mixed_digits, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, image in enumerate(mixed_digits):  # image2 comes before image10
        Image.fromarray(image[..., 0]).save(folder / f"image{index}.png")
    (folder / "readme.txt").write_text("not a picture")
    write_idx(tmp_path / "digits-idx3-ubyte", mixed_digits[..., 0])
    tables = []
    note = "skipped 1 entries that are no pictures: .txt (1)\n"
    for images, said in ((folder, note), (tmp_path / "digits-idx3-ubyte", "")):
        file = tmp_path / "predictions.csv"
        ended = launch("recognize", f"--workdir={learned_run}", f"--images={images}", f"--output={file}")
        assert ended == Ended(0, "", said)
        tables.append(read_rows(file))
    files = [[row.pop("file") for row in table] for table in tables]
    assert files == [[f"image{index}.png" for index in range(12)], ["digits-idx3-ubyte"] * 12]
    assert tables[0] == tables[1]
    best = np.asarray(lifelong.evidence(load_state(learned_run), mixed_digits)).max(axis=1)
    np.testing.assert_allclose([float(row["log_evidence"]) for row in tables[0]], best, rtol=1e-5)


@pytest.mark.slow
def test_recognize_scales_jpegs_like_those_of_the_run(launch, mnist5k, tmp_path):
    numbers = np.random.default_rng(0)
    for name, digit in (("one", "1"), ("three", "3"), ("zero", "0")):
        write_jpegs(tmp_path / "pictures" / name, mnist5k.read("train", digit)[:75, ..., 0], numbers)
    workdir, dataset = tmp_path / "run", f"--dataset=images:{tmp_path / 'pictures'}"
    flags = ("--image_size=28", "--grayscale", "--nofigures", "--noreport", *SETTINGS)
    ended = launch("learn", f"--workdir={workdir}", dataset, *flags)
    assert (ended.code, ended.err) == (0, "")
    assert read_run_config(workdir).options == SourceOptions(image_size=28, grayscale=True)
    assert result_of(workdir)["categories"] == ["one", "three", "zero"]
    assert launch("imagine", f"--workdir={workdir}", f"--output={tmp_path / 'imagined.npz'}") == Ended(0, "", "")
    with np.load(tmp_path / "imagined.npz") as imagined:
        assert imagined["images"].shape == (30, 28, 28, 1)
    file = tmp_path / "predictions.csv"
    flags = (f"--images={tmp_path / 'pictures' / 'zero'}", f"--output={file}")
    assert launch("recognize", f"--workdir={workdir}", *flags) == Ended(0, "", "")
    predictions = [row["category"] for row in read_rows(file)]
    assert len(predictions) == 75
    # The library predicts the same from the recorded data source, whose test images are every fifth picture.
    source = open_source(read_run_config(workdir).dataset, read_run_config(workdir).options)
    state = load_state(workdir)
    by_split = {split: lifelong.recognize(state, source.read(split, "zero"))[0] for split in ("train", "test")}
    assert predictions[4::5] == by_split["test"].tolist()
    assert [name for index, name in enumerate(predictions) if index % 5 != 4] == by_split["train"].tolist()
    # Resuming needs no flags for the recorded options.
    assert launch("learn", f"--workdir={workdir}", "--resume", "--nofigures", "--noreport").code == 0
