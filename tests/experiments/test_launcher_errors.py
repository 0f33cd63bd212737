"""One-line errors of launchers other than `learn`, and of missing packages; nothing is written then."""

import pytest

from tests.experiments.bad_inputs import assert_one_line_error

RECOGNIZE = "--workdir={run} --output={new}.csv "


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
        ("--workdir={run} --output={new}/x.npz", ["expected an existing folder, got {new}"]),
        ("--workdir={run} --output={new}.npz --categories=3,9", ["'9'", "3, 1"]),
        ("--workdir={run} --output={new}.npz --per_category=0", ["per_category"]),
        ("--workdir={run} --output={new}.npz --per_category=x", ["per_category"]),
        ("--workdir={run} --output={new}.npz --cycles=-1", ["cycles"]),
        ("--workdir={run} --output={new}.npz --seed=-1", ["seed"]),
        ("--workdir={run} --output={new}.npz --count=3", ["count"]),
        ("--workdir={run} --output={new}.npz 3", ["'3'"]),
    ],
)
def test_imagine_refuses_flags(assert_refused, line, words):
    assert_refused("imagine", line, words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--images={digits} --output={new}.csv", ["--workdir"]),
        ("--workdir={run} --output={new}.csv", ["--images"]),
        ("--workdir={run} --images={digits}", ["--output"]),
        ("--workdir={new} --images={digits} --output={new}.csv", ["{new}/config.json"]),
        ("--workdir={run} --images={digits} --output={new}.txt", ["{new}.txt", ".csv"]),
        ("--workdir={run} --images={digits} --output={new}/x.csv", ["expected an existing folder, got {new}"]),
        (RECOGNIZE + "--images={small}", ["28, 28, 1", "4, 14, 14"]),
        (RECOGNIZE + "--images={here}/flat.png", ["28, 28, 1", "20, 28"]),
        (RECOGNIZE + "--images={idx}/t10k-labels-idx1-ubyte", ["28, 28, 1", "60"]),
        (RECOGNIZE + "--images={bright}", ["[0, 1]"]),
        (RECOGNIZE + "--images={good}", ["{good}", "expected images, got train_images"]),
        (RECOGNIZE + "--images={infinite}", ["image 0", "NaN or infinity"]),
        (RECOGNIZE + "--images={color}", ["28, 28, 1", "(2, 28, 28, 3)"]),
        (RECOGNIZE + "--images={flat}", ["28, 28, 1", "(28, 28)"]),
        (RECOGNIZE + "--images={pickled}", ["{pickled}"]),
        (RECOGNIZE + "--images={here}/zero.npz", ["{here}/zero.npz", "not a readable npz"]),
        (RECOGNIZE + "--images={here}/zero.png", ["{here}/zero.png", "not a readable picture"]),
        (RECOGNIZE + "--images={here}/zero.idx", ["{here}/zero.idx", "an empty file"]),
        (RECOGNIZE + "--images={here}/claim.idx", ["{here}/claim.idx", "got 0"]),
        (
            "--workdir={damaged} --images={digits} --output={new}.csv",
            ["checkpoint 2 cannot be read", "with python -m experiments.learn --workdir={damaged} --resume"],
        ),
        (RECOGNIZE + "--images={here}/none.npz", ["{here}/none.npz", "no such file"]),
        (RECOGNIZE + "--images={here}/text.txt", ["{here}/text.txt", "IDX"]),
        (RECOGNIZE + "--images={here}/text.png", ["{here}/text.png", "picture"]),
        (RECOGNIZE + "--images={here}/empty", ["{here}/empty", "no picture"]),
        (RECOGNIZE + "--images={cut}/train-images-idx3-ubyte", ["{cut}/train-images-idx3-ubyte", "141119"]),
        (RECOGNIZE + "--images={digits} --recognizer=none", ["recognizer", "elbo"]),
        (RECOGNIZE + "--images={digits} --reject=low", ["reject"]),
    ],
)
def test_recognize_refuses_flags_and_images(assert_refused, line, words):
    assert_refused("recognize", line, words)


def test_compare_refuses_seeds(launch, tmp_path):
    ended = launch("compare", f"--workdir={tmp_path / 'new'}", "--seeds=1,x")
    assert ended.code == 2
    assert ended.err == "error: --seeds: expected whole numbers such as 1,2,3, got 1,x\n"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "line", "package", "extra"),
    [
        ("learn", "--workdir={new}", "mlxtend", "demo"),
        ("learn", "--workdir={new} --dataset=idx:{idx}", "matplotlib", "figures"),
        ("learn", "--resume --workdir={run}", "matplotlib", "figures"),
        ("learn", "--tensorboard --workdir={new} --dataset=idx:{idx}", "tensorboardX", "tensorboard"),
        ("learn", "--report --workdir={new} --dataset=idx:{idx}", "jinja2", "report"),
        ("report", "--workdir={run}", "jinja2", "report"),
        ("serve", "--workdir={run}", "starlette", "live"),
        ("serve", "--workdir={run}", "uvicorn", "live"),
        ("imagine", "--workdir={run} --output={new}.png", "matplotlib", "figures"),
    ],
)
def test_launchers_name_the_extra_of_a_missing_package(assert_refused, name, line, package, extra):
    assert_refused(name, line, [package, f"lifelong_cvae[{extra}]"], without=[package])


def test_launchers_report_names_of_two_lines_in_one(launch, tmp_path):
    ended = launch("imagine", f"--workdir={tmp_path}/first\nsecond", f"--output={tmp_path}/x.npz")
    assert_one_line_error(ended, "first second/config.json", "no such file")
    assert list(tmp_path.iterdir()) == []
