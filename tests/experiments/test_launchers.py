"""Launchers as processes: help, a run from its beginning to answers, and one line for each thing wrong."""

import csv
import gzip
import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import lifelong_cvae as lifelong
from lifelong_cvae import sampling
from lifelong_cvae.data import SourceOptions, open_source
from lifelong_cvae.evaluation.reference_classifier import ClassifierNetwork, ReferenceClassifier, _write, file_name
from lifelong_cvae.runs.config import read_run_config
from lifelong_cvae.runs.workdir import load_state
from tests.conftest import SMALL, snapshot
from tests.experiments.conftest import SETTINGS, Ended, in_a_process, write_idx


@pytest.fixture(scope="session")
def places(tmp_path_factory, data, learned):
    """Where things are that the flags below name; right and wrong ones."""
    folder = tmp_path_factory.mktemp("places")
    images, labels = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
    wrongs = {}
    for wrong in ("cut", "cut_header", "magic", "type", "lengths", "gzip", "missing_file", "swapped"):
        wrongs[wrong] = folder / wrong
        shutil.copytree(data, wrongs[wrong])
        if wrong not in ("gzip", "missing_file"):
            with gzip.open(data / f"{images}.gz") as stream:
                (wrongs[wrong] / images).write_bytes(stream.read())
            (wrongs[wrong] / f"{images}.gz").unlink()
    content = (wrongs["cut"] / images).read_bytes()
    (wrongs["cut"] / images).write_bytes(content[:-1])
    (wrongs["cut_header"] / images).write_bytes(content[:9])
    (wrongs["magic"] / images).write_bytes(b"\x89PNG" + content[4:])
    (wrongs["type"] / images).write_bytes(b"\0\0\x0d" + content[3:])
    write_idx(wrongs["lengths"] / labels, np.zeros(179))
    zipped = (data / f"{images}.gz").read_bytes()
    (wrongs["gzip"] / f"{images}.gz").write_bytes(zipped[: len(zipped) // 2])
    (wrongs["missing_file"] / "t10k-labels-idx1-ubyte").unlink()
    (wrongs["swapped"] / labels).write_bytes(content)

    digits = np.arange(4 * 28 * 28, dtype=np.uint8).reshape(4, 28, 28)
    arrays = {
        "train_images": digits,
        "train_labels": np.arange(4) // 2,
        "test_images": digits,
        "test_labels": np.arange(4) // 2,
    }
    npz = {
        "good": arrays,
        "lacking": {key: value for key, value in arrays.items() if key != "test_labels"},
        "pickled": {**arrays, "train_labels": np.asarray([None] * 4)},
        "whole_numbers": {**arrays, "train_images": digits.astype(int), "test_images": digits.astype(int)},
        "unprintable": {
            **arrays,
            "train_labels": np.asarray(["\na", "b"] * 2),
            "test_labels": np.asarray(["\na", "b"] * 2),
        },
        "small": {"images": digits[:, ::2, ::2]},
        "bright": {"images": digits / 1.0},
        "nan": {**arrays, "train_images": np.full((4, 28, 28), np.nan), "test_images": digits / 255},
        "infinite": {"images": np.full((2, 28, 28), np.inf)},
        "color": {"images": np.zeros((2, 28, 28, 3), np.uint8)},
        "flat": {"images": digits[0]},
        "sizes": {**arrays, "test_images": digits[:, ::2]},
        "labels": {**arrays, "train_labels": np.arange(3)},
        "lonely": {**arrays, "test_labels": np.arange(4)},
        "halves": {**arrays, "train_labels": np.arange(4) / 2, "test_labels": np.arange(4) / 2},
        "single": {**arrays, "train_labels": np.asarray([0, 0, 0, 1])},
        "unnamed": {
            **arrays,
            "train_labels": np.asarray(["", "b"] * 2),
            "test_labels": np.asarray(["", "b"] * 2),
        },
        "digits": {"images": digits},
    }
    for name, values in npz.items():
        np.savez(folder / f"{name}.npz", **values)
    (folder / "empty").mkdir()
    (folder / "occupied").mkdir()
    (folder / "occupied" / "notes.txt").write_text("mine")
    (folder / "begun").mkdir()
    shutil.copy(learned[0] / "config.json", folder / "begun")
    whole = (folder / "good.npz").read_bytes()
    (folder / "half.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("zero.npz", "zero.png", "zero.idx"):
        (folder / name).write_bytes(b"")
    (folder / "claim.idx").write_bytes(b"\0\0\x08\4" + b"\xff" * 16)
    edited = folder / "edited"
    shutil.copytree(learned[0], edited)
    settings = (edited / "config.json").read_text("utf-8")
    (edited / "config.json").write_text(settings.replace('"seed": 0', '"seed": 1'), "utf-8")
    damaged = folder / "damaged"
    shutil.copytree(learned[0], damaged)
    shutil.rmtree(damaged / "checkpoints" / "2" / "params")
    (folder / "text.txt").write_text("These are no images.")
    (folder / "text.png").write_text("This is no picture.")
    Image.fromarray(digits[0, :20]).save(folder / "flat.png")
    return folder, {
        "idx": data,
        "run": learned[0],
        "here": folder,
        "edited": edited,
        "damaged": damaged,
        **wrongs,
        **{name: folder / f"{name}.npz" for name in npz},
    }


def test_a_forked_launcher_ends_as_one_in_a_process_of_its_own(launch, data, tmp_path):
    flags = (f"--workdir={tmp_path / 'new'}", f"--dataset=idx:{data}", "--categories=3,7")
    forked = launch("learn", *flags)
    assert forked == in_a_process("learn", *flags)
    assert forked.code == 2
    assert forked.err == "error: unknown category '7': one of 0, 1, 3 is expected\n"


OPTIONS = {"image_size": None, "grayscale": "false", "tfds_data_dir": None, "tfds_manual_dir": None}
FLAGS = {
    "learn": {
        "workdir": None,
        "dataset": "mnist5k",
        **OPTIONS,
        "seed": "0",
        "preset": "default",
        "set": "[]",
        "categories": None,
        "order_seed": None,
        "categories_per_task": "1",
        "validation_fraction": "0.0",
        "images_per_category": None,
        "full_categories": "0",
        "evaluate_on": "test",
        "recognizer": None,
        "resume": "false",
        "keep": "last",
        "checkpoint_every": "60.0",
        "figures": "true",
        "tensorboard": None,
        "report": None,
        "coordinator": None,
        "num_processes": None,
        "process_id": None,
        "mesh": None,
    },
    "report": {"workdir": None},
    "serve": {"workdir": None, "seed": "0", "port": "8000", "taught": "true"},
    "imagine": {
        "workdir": None,
        "seed": "0",
        "per_category": "10",
        "categories": None,
        "cycles": "0",
        "output": None,
    },
    "evaluate": {
        "workdir": None,
        "seed": "0",
        "samples": "10000",
        "cycles": "0",
        "judges": "runs/judges",
        "unknown": None,
    },
    "compare": {
        "workdir": None,
        "dataset": "mnist5k",
        **OPTIONS,
        "study": "strategies",
        "strategies": None,
        "seeds": "1,2,3",
        "categories_per_task": "1",
        "set": "[]",
        "validation_fraction": "0.0",
        "evaluate_on": "test",
        "samples": "10000",
        "judges": "runs/judges",
        "figures": "true",
    },
    "results": {"document": "RESULTS.md", "check": "false"},
    "benchmark": {
        "dataset": "mnist5k",
        **OPTIONS,
        "preset": "default",
        "set": "[]",
        "seed": "0",
        "validation_fraction": "0.0",
        "evaluate_on": "test",
        "what": "playback",
        "precision": "default",
        "output": "benchmark.json",
    },
    "recognize": {
        "workdir": None,
        "seed": "0",
        "images": None,
        "recognizer": None,
        "candidates": None,
        "reject": "0.01",
        "output": None,
    },
}


@pytest.mark.parametrize("name", FLAGS)
def test_help_exits_with_0_and_tells_every_flag_with_its_default(launch, name):
    ended = launch(name, "--help")
    assert ended.code == 0
    assert ended.err == ""
    assert f"python -m experiments.{name}" in ended.out
    assert "checkout" in ended.out
    told = {}
    for entry in re.split(r"^  --(?:\[no\])?", ended.out, flags=re.MULTILINE)[1:]:
        default = re.search(r"\(default: '(.*)'\)", entry)
        told[entry.partition(":")[0]] = default and default[1]
    assert told == {**FLAGS[name], "compilation_cache": None}


def test_what_is_compiled_is_kept_where_that_is_wanted(launch, learned, tmp_path):
    flags = (f"--workdir={learned[0]}", f"--output={tmp_path / 'x.npz'}", "--per_category=2")
    for cache in (tmp_path / "cache", "none"):
        assert launch("imagine", *flags, f"--compilation_cache={cache}") == Ended(0, "", "")
    assert any((tmp_path / "cache").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "x.npz"]


@pytest.mark.slow
def test_a_run_is_evaluated_with_a_judge_that_is_kept(launch, learned, data, tmp_path):
    source = open_source(f"idx:{data}")
    untrained = ClassifierNetwork(3).init(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    _write(ReferenceClassifier(untrained, source.categories, (28, 28, 1)), tmp_path / file_name(source))
    ended = launch(
        "evaluate", f"--workdir={learned[0]}", f"--judges={tmp_path}", "--samples=10", f"--unknown=idx:{data}"
    )
    assert (ended.code, ended.err) == (0, "")
    assert "Fréchet distance" in ended.out
    values = json.loads((learned[0] / "evaluation.json").read_text("utf-8"))
    result = json.loads((learned[0] / "result.json").read_text("utf-8"))
    assert values["schema"] == 1
    assert values["recognition"]["accuracy"] == result["accuracy"]
    assert values["density"]["importance_bound"] > values["density"]["elbo"]
    assert set(values["generation"]["samples"].values()) == {5}
    assert set(values["novelty"]) == {"left_out", "not_learned", "other"}
    # Of the test images of the same data, two categories of three are known.
    expected = (2 * 0.5 + values["novelty"]["not_learned"]) / 3
    assert values["novelty"]["other"] == pytest.approx(expected, abs=0.01)
    (learned[0] / "evaluation.json").unlink()


def test_orders_that_are_no_numbers_are_told_in_one_line(launch, tmp_path):
    ended = launch("compare", f"--workdir={tmp_path / 'new'}", "--seeds=1,x")
    assert ended.code == 2
    assert ended.err == "error: --seeds=1,x: whole numbers such as 1,2,3 are expected\n"
    assert not (tmp_path / "new").exists()


# From learning to answers


def test_learning_writes_a_run_and_says_how_well_it_went(learned, data):
    workdir, ended = learned
    assert ended.err == ""
    run_config = read_run_config(workdir)
    assert run_config.tasks == (("3",), ("1",))
    assert run_config.dataset == f"idx:{data}"
    assert run_config.config == lifelong.Config().with_settings({**SMALL, "mixed_mode": "none"})
    assert {path.name for path in workdir.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "result.json",
        "checkpoints",
        "figures",
        "tensorboard",
        "report.html",
        ".lock",
    }
    grids = [f"imagined_{task:03d}.{kind}" for task in (1, 2) for kind in ("npz", "png")]
    figures = ["accuracy.png", "circle.png", *grids, "interpolation.png", "over_tasks.png"]
    assert sorted(path.name for path in (workdir / "figures").iterdir()) == [
        *figures,
        "reconstructions.png",
        "walk.png",
    ]
    result = json.loads((workdir / "result.json").read_text("utf-8"))
    assert result["categories"] == ["3", "1"]
    assert f"recognized {100 * result['accuracy']:.2f} % of the test images of 2 categories" in ended.out
    assert str(workdir) in ended.out.splitlines()[-1]


def test_a_run_goes_on_with_its_own_settings_and_further_categories(learned, launch, data, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(learned[0], workdir)
    before = snapshot(workdir)
    ended = launch(
        "learn",
        f"--workdir={workdir}",
        "--resume",
        "--categories=3,1,0",
        "--nofigures",
        without=["matplotlib"],
    )
    assert (ended.code, ended.err) == (0, "")
    after = snapshot(workdir)
    assert after["metrics.jsonl"].startswith(before["metrics.jsonl"])
    assert len(after["metrics.jsonl"].splitlines()) == 3
    assert json.loads(after["result.json"])["categories"] == ["3", "1", "0"]
    first, second = (json.loads(files["config.json"]) for files in (before, after))
    assert second.pop("digest") != first.pop("digest")
    assert second == {**first, "tasks": [["3"], ["1"], ["0"]]}
    # What an earlier category is stays as it was.
    states = [load_state(folder) for folder in (learned[0], workdir)]
    for name in ("3", "1"):
        leaves = [state.params["categories"][name]["decoder"] for state in states]
        assert str(leaves[0]) == str(leaves[1])


def test_damage_without_consequence_is_not_spoken_of(learned, launch, tmp_path):
    copy = shutil.copytree(learned[0], tmp_path / "copy")
    (copy / "checkpoints/2/_CHECKPOINT_METADATA").write_text("")  # Orbax writes it, and logs what is wrong with it
    flags = ("--per_category=1", f"--output={tmp_path / 'imagined.npz'}")
    assert launch("imagine", f"--workdir={copy}", *flags) == Ended(0, "", "")


def test_imagined_images_are_those_of_the_library(learned, launch, tmp_path):
    file = tmp_path / "imagined.npz"
    flags = (f"--workdir={learned[0]}", f"--output={file}", "--per_category=3", "--seed=4", "--cycles=1")
    ended = launch("imagine", *flags, "--categories=1,3", without=["matplotlib", "mlxtend"])
    assert ended == Ended(0, "", "")
    with np.load(file, allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    assert images.shape == (6, 28, 28, 1)
    assert images.dtype == np.uint8
    assert labels.tolist() == ["1"] * 3 + ["3"] * 3
    state = load_state(learned[0])
    expected = sampling.imagine(state, ("1", "3"), 3, rng=jax.random.key(4), cycles=1)
    fractions = np.concatenate([np.asarray(expected[name]) for name in ("1", "3")])
    assert np.abs(images - 255 * fractions).max() < 0.51


def test_imagined_images_are_drawn_as_a_grid(learned, launch, tmp_path):
    file = tmp_path / "imagined.png"
    ended = launch("imagine", f"--workdir={learned[0]}", f"--output={file}")
    assert ended == Ended(0, "", "")
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        width, height = picture.size
    # Two categories, ten images of each
    assert width > 3 * height


@pytest.mark.slow
def test_a_folder_of_jpegs_of_different_sizes_is_learned_imagined_and_recognised(launch, mnist5k, tmp_path):
    numbers = np.random.default_rng(0)
    for name in ("one", "three", "zero"):
        digits = mnist5k.read("train", {"one": "1", "three": "3", "zero": "0"}[name])[:75, ..., 0]
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        for index, digit in enumerate(digits):
            side, border = int(numbers.integers(28, 80)), int(numbers.integers(0, 30))
            picture = Image.fromarray(digit).resize((side, side))
            wide = Image.new("L", (side + 2 * border, side))
            wide.paste(picture, (border, 0))
            wide.convert("RGB").save(folder / f"{index}.jpg", quality=95)
    workdir, dataset = tmp_path / "run", f"--dataset=images:{tmp_path / 'pictures'}"
    flags = ("--image_size=28", "--grayscale", "--nofigures", "--noreport", *SETTINGS)
    ended = launch("learn", f"--workdir={workdir}", dataset, *flags)
    assert (ended.code, ended.err) == (0, "")
    assert read_run_config(workdir).options == SourceOptions(image_size=28, grayscale=True)
    result = json.loads((workdir / "result.json").read_text("utf-8"))
    assert result["categories"] == ["one", "three", "zero"]
    assert launch("imagine", f"--workdir={workdir}", f"--output={tmp_path / 'drawn.npz'}") == Ended(0, "", "")
    with np.load(tmp_path / "drawn.npz") as drawn:
        assert drawn["images"].shape == (30, 28, 28, 1)
    file = tmp_path / "answers.csv"
    flags = (f"--images={tmp_path / 'pictures' / 'zero'}", f"--output={file}")
    assert launch("recognize", f"--workdir={workdir}", *flags) == Ended(0, "", "")
    answers = [row["category"] for row in answers_of(file)]
    assert len(answers) == 75
    # As the library says of the same pictures, read from the source that the run has recorded.
    source = open_source(read_run_config(workdir).dataset, read_run_config(workdir).options)
    state = load_state(workdir)
    by_split = {split: lifelong.recognize(state, source.read(split, "zero"))[0] for split in ("train", "test")}
    assert answers[4::5] == by_split["test"].tolist()
    assert [answer for index, answer in enumerate(answers) if index % 5 != 4] == by_split["train"].tolist()
    # What was begun goes on with the same options, without naming them.
    assert launch("learn", f"--workdir={workdir}", "--resume", "--nofigures", "--noreport").code == 0


@pytest.fixture(scope="session")
def test_digits(mnist5k):
    """Test images of both categories in mixed order."""
    images = np.concatenate([mnist5k.read("test", name)[:6] for name in "31"])
    return images[np.random.default_rng(0).permutation(12)]


def answers_of(file):
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_digits_in_an_npz_are_recognised_in_their_order(learned, launch, test_digits, tmp_path):
    np.savez(tmp_path / "digits.npz", images=test_digits)
    evidence = lifelong.evidence(load_state(learned[0]), test_digits)
    best = np.asarray(evidence).max(axis=1)
    file = tmp_path / "answers.csv"
    flags = (f"--workdir={learned[0]}", f"--images={tmp_path / 'digits.npz'}", f"--output={file}")
    ended = launch("recognize", *flags, "--reject=0.4")
    assert ended == Ended(0, "", "")
    rows = answers_of(file)
    names, probabilities = lifelong.recognize(load_state(learned[0]), test_digits)
    assert [row["index"] for row in rows] == [*map(str, range(12))]
    assert [row["category"] for row in rows] == names.tolist()
    np.testing.assert_allclose([float(row["log_evidence"]) for row in rows], best, rtol=1e-5)
    chances = [float(row["probability"]) for row in rows]
    np.testing.assert_allclose(chances, probabilities.max(axis=1), rtol=1e-3)
    unknown = lifelong.unknown(load_state(learned[0]), evidence, names, rate=0.4)
    assert set(unknown.tolist()) == {True, False}
    assert [row["unknown"] for row in rows] == [str(value).lower() for value in unknown.tolist()]


def test_a_folder_of_pictures_gives_the_answers_of_the_same_images_in_an_npz(learned, launch, test_digits, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, image in enumerate(test_digits):  # image2 comes before image10
        Image.fromarray(image[..., 0]).save(folder / f"image{index}.png")
    (folder / "readme.txt").write_text("not a picture")
    write_idx(tmp_path / "digits-idx3-ubyte", test_digits[..., 0])
    answers = []
    for images in (folder, tmp_path / "digits-idx3-ubyte"):
        file = tmp_path / "answers.csv"
        ended = launch("recognize", f"--workdir={learned[0]}", f"--images={images}", f"--output={file}")
        assert ended == Ended(0, "", "")
        answers.append(answers_of(file))
    assert answers[0] == answers[1]
    best = np.asarray(lifelong.evidence(load_state(learned[0]), test_digits)).max(axis=1)
    np.testing.assert_allclose([float(row["log_evidence"]) for row in answers[0]], best, rtol=1e-5)


# One line for each thing wrong


def ends_in_one_line(ended, *words):
    assert ended.code == 2, ended
    assert ended.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", ended.err), ended.err
    for word in words:
        assert str(word) in ended.err


def refused(launch, places, name, line, words, tmp_path, without=()):
    """Launches with the flags of a line, places filled in; they end in one line and nothing is written."""
    folder, where = places
    where = {**where, "new": tmp_path / "new"}
    before = snapshot(tmp_path), snapshot(folder), snapshot(where["run"])
    ended = launch(name, *(flag.format(**where) for flag in line.split()), without=without)
    ends_in_one_line(ended, *(word.format(**where) for word in words))
    assert (snapshot(tmp_path), snapshot(folder), snapshot(where["run"])) == before


LEARN = "--workdir={new} --dataset=idx:{idx} "


@pytest.mark.parametrize(
    ("line", "words"),
    [
        # data
        ("--workdir={new} --dataset=idx:{here}/none", ["{here}/none"]),
        ("--workdir={new} --dataset=idx:{cut}", ["{cut}/train-images-idx3-ubyte", "141120", "141119"]),
        ("--workdir={new} --dataset=idx:{cut_header}", ["{cut_header}/train-images-idx3-ubyte"]),
        ("--workdir={new} --dataset=idx:{magic}", ["{magic}/train-images-idx3-ubyte", "89 50 4e 47"]),
        ("--workdir={new} --dataset=idx:{type}", ["{type}/train-images-idx3-ubyte", "uint8"]),
        ("--workdir={new} --dataset=idx:{lengths}", ["{lengths}", "180", "179"]),
        ("--workdir={new} --dataset=idx:{gzip}", ["{gzip}/train-images-idx3-ubyte.gz", "damaged"]),
        ("--workdir={new} --dataset=idx:{missing_file}", ["{missing_file}/t10k-labels-idx1-ubyte"]),
        ("--workdir={new} --dataset=idx:{swapped}", ["{swapped}", "train labels"]),
        ("--workdir={new} --dataset=npz:{here}/none.npz", ["{here}/none.npz", "train_images"]),
        ("--workdir={new} --dataset=npz:{lacking}", ["{lacking}", "test_labels"]),
        ("--workdir={new} --dataset=npz:{pickled}", ["{pickled}"]),
        ("--workdir={new} --dataset=npz:{here}/text.txt", ["{here}/text.txt"]),
        (
            "--workdir={new} --dataset=npz:{whole_numbers} --set=mixed_mode=none",
            ["uint8", "int64"],
        ),
        (
            "--workdir={new} --dataset=npz:{unprintable} --set=mixed_mode=none",
            ["printable"],
        ),
        ("--workdir={new} --dataset=npz:{here}/half.npz", ["{here}/half.npz", "not a readable npz"]),
        ("--workdir={new} --dataset=npz:{here}/zero.npz", ["{here}/zero.npz", "not a readable npz"]),
        ("--workdir={new} --dataset=npz:{nan}", ["{nan}", "train images", "NaN or infinity"]),
        ("--workdir={new} --dataset=npz:{sizes}", ["{sizes}", "(28, 28, 1)", "(14, 28, 1)"]),
        ("--workdir={new} --dataset=npz:{labels}", ["{labels}", "4 train images but 3 labels"]),
        ("--workdir={new} --dataset=npz:{lonely}", ["{lonely}", "label 2", "both are expected"]),
        ("--workdir={new} --dataset=npz:{halves}", ["{halves}", "whole numbers or texts"]),
        ("--workdir={new} --dataset=npz:{single}", ["{single}", "category '1'", "at least 2", "got 1"]),
        ("--workdir={new} --dataset=npz:{unnamed}", ["category name ''", "non-empty"]),
        ("--workdir={new} --dataset=images:{here}/none", ["{here}/none", "no such folder"]),
        ("--workdir={new} --dataset=images:{here}/empty", ["{here}/empty", "no folder of a category"]),
        ("--workdir={new} --dataset=images:{here}/empty --image_size=0", ["image_size"]),
        (LEARN + "--image_size=28", ["image_size", "images or tfds", "leave it out"]),
        (LEARN + "--tfds_data_dir={here}", ["tfds_data_dir", "tfds", "leave it out"]),
        ("--workdir={new} --dataset=tfds:a=b", ["tfds:a=b", "a name such as mnist"]),
        ("--workdir={new} --dataset=tfds:no_such_set --tfds_data_dir={new}", ["tfds:no_such_set", "no set"]),
        (
            "--workdir={new} --dataset=tfds:mnist --tfds_data_dir={new} --tfds_manual_dir={here}",
            ["{here} lacks train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images"],
        ),
        (LEARN + "--images_per_category=1", ["category '0'", "at least 2", "got 1"]),
        (LEARN + "--images_per_category=0", ["images_per_category"]),
        ("--workdir={new} --dataset=mnist", ["'mnist'", "mnist5k", "idx:DIR", "npz:FILE"]),
        ("--workdir={new} --dataset=ftp:{idx}", ["ftp:", "mnist5k"]),
        ("--workdir={new} --dataset=idx:", ["idx:DIR"]),
        ("--workdir={new} --dataset=", ["mnist5k"]),
        # categories
        (LEARN + "--categories=3,7", ["'7'", "0, 1, 3"]),
        (LEARN + "--categories=3,1,3", ["'3'", "twice"]),
        (LEARN + "--categories=", ["category"]),
        (LEARN + "--categories_per_task=0", ["categories_per_task"]),
        (LEARN + "--order_seed=-1", ["order_seed"]),
        # settings
        (LEARN + "--set=epochs=abc", ["epochs", "'abc'", "whole number"]),
        (LEARN + "--set=epochs=1.5", ["epochs", "'1.5'", "whole number"]),
        (LEARN + "--set=epochs=0", ["epochs", "above 0"]),
        (LEARN + "--set=learning_rate=nan", ["learning_rate"]),
        (LEARN + "--set=mixed_widths=32,x", ["mixed_widths"]),
        (LEARN + "--set=mixed_widths=32,16,8", ["mixed_widths", "category_widths", "layers"]),
        (LEARN + "--set=likelihood=poisson", ["likelihood", "'poisson'", "bernoulli"]),
        (LEARN + "--set=foo=1", ["'foo'", "epochs"]),
        (LEARN + "--set=foo", ["--set=foo", "key=value"]),
        (LEARN + "--set=epochs=2 --set=rank=-1", ["rank"]),
        # flags
        (LEARN + "--epochs=3", ["epochs"]),
        (LEARN + "extra", ["'extra'"]),
        ("--dataset=idx:{idx}", ["--workdir"]),
        (LEARN + "--seed=-1", ["seed"]),
        (LEARN + "--seed=x", ["seed"]),
        (
            LEARN + "--seed=18446744073709551616",
            ["seed"],
        ),
        (LEARN + "--preset=best", ["preset", "default"]),
        (LEARN + "--keep=some", ["keep", "last"]),
        (LEARN + "--recognizer=none", ["recognizer", "elbo"]),
        (LEARN + "--resume=perhaps", ["resume"]),
        (LEARN + "--checkpoint_every=-1", ["checkpoint_every"]),
        (LEARN + "--full_categories=2", ["--full_categories", "--images_per_category"]),
        # held-out images
        (LEARN + "--evaluate_on=validation", ["evaluate_on=validation", "validation_fraction"]),
        (LEARN + "--evaluate_on=train", ["evaluate_on", "test"]),
        (LEARN + "--validation_fraction=1", ["validation_fraction", "below 1"]),
        (LEARN + "--validation_fraction=-0.1", ["validation_fraction", "at least 0"]),
        (LEARN + "--validation_fraction=nan", ["validation_fraction"]),
        (LEARN + "--validation_fraction=half", ["validation_fraction"]),
        (LEARN + "--validation_fraction=0.001", ["validation_fraction", "too few"]),
        # folders
        ("--dataset=idx:{idx} --workdir={here}/occupied", ["{here}/occupied", "--resume"]),
        ("--dataset=idx:{idx} --workdir={run}", ["{run}", "--resume"]),
        ("--dataset=idx:{idx} --workdir={here}/text.txt", ["{here}/text.txt"]),
        ("--dataset=idx:{idx} --workdir={here}/text.txt/run --set=mixed_mode=none", ["{here}/text.txt/run"]),
        ("--resume --workdir={new}", ["{new}/config.json", "no such file"]),
        ("--resume --workdir={here}/empty", ["{here}/empty/config.json", "no such file"]),
        ("--resume --workdir={here}/occupied", ["{here}/occupied/config.json"]),
        ("--dataset=idx:{idx} --workdir=/proc/none/run", ["/proc/none"]),
        ("--resume --workdir={edited}", ["{edited}/config.json", "expected the file as it was written"]),
        # a run is what it was
        ("--resume --workdir={run} --categories=1,3", ["{run}", "3; 1"]),
        ("--resume --workdir={run} --categories=3", ["{run}", "3; 1"]),
        ("--resume --workdir={run} --seed=1", ["seed=0", "1"]),
        ("--resume --workdir={run} --set=epochs=7", ["epochs"]),
        ("--resume --workdir={run} --preset=default", ["{run}"]),
        ("--resume --workdir={run} --dataset=npz:{good} --categories=0,1", ["{run}", "dataset"]),
        ("--resume --workdir={run} --grayscale", ["grayscale", "leave it out"]),
        ("--resume --workdir={run} --validation_fraction=0.5", ["validation_fraction=0.0", "0.5"]),
    ],
)
def test_what_is_wrong_with_learning_is_told_in_one_line(launch, places, tmp_path, line, words):
    refused(launch, places, "learn", line, words, tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--output={new}.npz", ["--workdir"]),
        ("--workdir={run}", ["--output"]),
        ("--workdir={new} --output={new}.npz", ["{new}/config.json"]),
        ("--workdir={here}/occupied --output={new}.npz", ["{here}/occupied/config.json"]),
        ("--workdir={here}/begun --output={new}.npz", ["{here}/begun", "expected a checkpoint"]),
        ("--workdir={edited} --output={new}.npz", ["{edited}/config.json", "expected the file as it was written"]),
        (
            "--workdir={damaged} --output={new}.npz",
            ["checkpoint 2 cannot be read", "with python -m experiments.learn --workdir={damaged} --resume"],
        ),
        ("--workdir={run} --output={new}.jpg", ["{new}.jpg", ".npz", ".png"]),
        ("--workdir={run} --output={new}/x.npz", ["{new}", "no such folder"]),
        ("--workdir={run} --output={new}.npz --categories=3,9", ["'9'", "3, 1"]),
        ("--workdir={run} --output={new}.npz --per_category=0", ["per_category"]),
        ("--workdir={run} --output={new}.npz --per_category=x", ["per_category"]),
        ("--workdir={run} --output={new}.npz --cycles=-1", ["cycles"]),
        ("--workdir={run} --output={new}.npz --seed=-1", ["seed"]),
        ("--workdir={run} --output={new}.npz --count=3", ["count"]),
        ("--workdir={run} --output={new}.npz 3", ["'3'"]),
    ],
)
def test_what_is_wrong_with_imagining_is_told_in_one_line(launch, places, tmp_path, line, words):
    refused(launch, places, "imagine", line, words, tmp_path)


RECOGNISE = "--workdir={run} --output={new}.csv "


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--images={digits} --output={new}.csv", ["--workdir"]),
        ("--workdir={run} --output={new}.csv", ["--images"]),
        ("--workdir={run} --images={digits}", ["--output"]),
        ("--workdir={new} --images={digits} --output={new}.csv", ["{new}/config.json"]),
        ("--workdir={run} --images={digits} --output={new}.txt", ["{new}.txt", ".csv"]),
        ("--workdir={run} --images={digits} --output={new}/x.csv", ["{new}", "no such folder"]),
        (RECOGNISE + "--images={small}", ["28, 28, 1", "4, 14, 14"]),
        (RECOGNISE + "--images={here}/flat.png", ["28, 28, 1", "20, 28"]),
        (RECOGNISE + "--images={idx}/t10k-labels-idx1-ubyte", ["28, 28, 1", "60"]),
        (RECOGNISE + "--images={bright}", ["[0, 1]"]),
        (RECOGNISE + "--images={good}", ["{good}", "images"]),
        (RECOGNISE + "--images={infinite}", ["image 0", "NaN or infinity"]),
        (RECOGNISE + "--images={color}", ["28, 28, 1", "(2, 28, 28, 3)"]),
        (RECOGNISE + "--images={flat}", ["28, 28, 1", "(28, 28)"]),
        (RECOGNISE + "--images={pickled}", ["{pickled}"]),
        (RECOGNISE + "--images={here}/zero.npz", ["{here}/zero.npz", "not a readable npz"]),
        (RECOGNISE + "--images={here}/zero.png", ["{here}/zero.png", "not a readable picture"]),
        (RECOGNISE + "--images={here}/zero.idx", ["{here}/zero.idx", "absent"]),
        (RECOGNISE + "--images={here}/claim.idx", ["{here}/claim.idx", "got 0"]),
        (
            "--workdir={damaged} --images={digits} --output={new}.csv",
            ["checkpoint 2 cannot be read", "with python -m experiments.learn --workdir={damaged} --resume"],
        ),
        (RECOGNISE + "--images={here}/none.npz", ["{here}/none.npz", "no such file"]),
        (RECOGNISE + "--images={here}/text.txt", ["{here}/text.txt", "IDX"]),
        (RECOGNISE + "--images={here}/text.png", ["{here}/text.png", "picture"]),
        (RECOGNISE + "--images={here}/empty", ["{here}/empty", "no picture"]),
        (RECOGNISE + "--images={cut}/train-images-idx3-ubyte", ["{cut}/train-images-idx3-ubyte", "141119"]),
        (RECOGNISE + "--images={digits} --recognizer=none", ["recognizer", "elbo"]),
        (RECOGNISE + "--images={digits} --reject=low", ["reject"]),
    ],
)
def test_what_is_wrong_with_recognising_is_told_in_one_line(launch, places, tmp_path, line, words):
    refused(launch, places, "recognize", line, words, tmp_path)


@pytest.mark.parametrize(
    ("name", "line", "without", "extra"),
    [
        ("learn", "--workdir={new}", "mlxtend", "demo"),
        ("learn", LEARN, "matplotlib", "figures"),
        ("learn", "--resume --workdir={run}", "matplotlib", "figures"),
        ("learn", f"--tensorboard {LEARN}", "tensorboardX", "tensorboard"),
        ("learn", f"--report {LEARN}", "jinja2", "report"),
        ("report", "--workdir={run}", "jinja2", "report"),
        ("serve", "--workdir={run}", "starlette", "live"),
        ("serve", "--workdir={run}", "uvicorn", "live"),
        ("imagine", "--workdir={run} --output={new}.png", "matplotlib", "figures"),
    ],
)
def test_a_package_that_is_not_installed_is_told_with_its_extra(launch, places, tmp_path, name, line, without, extra):
    words = [without, f"lifelong_cvae[{extra}]"]
    refused(launch, places, name, line, words, tmp_path, without=[without])


def test_a_name_of_two_lines_is_still_told_in_one(launch, tmp_path):
    ended = launch("imagine", f"--workdir={tmp_path}/first\nsecond", f"--output={tmp_path}/x.npz")
    ends_in_one_line(ended, "first second/config.json", "no such file")
    assert list(tmp_path.iterdir()) == []
