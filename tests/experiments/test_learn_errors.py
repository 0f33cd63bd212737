"""One-line errors of `learn`; nothing is written then."""

import pytest

LEARN = "--workdir={new} --dataset=idx:{idx} "


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--workdir={new} --dataset=idx:{here}/none", ["{here}/none"]),
        ("--workdir={new} --dataset=idx:{cut}", ["{cut}/train-images-idx3-ubyte", "141120", "141119"]),
        ("--workdir={new} --dataset=idx:{cut_header}", ["{cut_header}/train-images-idx3-ubyte"]),
        ("--workdir={new} --dataset=idx:{magic}", ["{magic}/train-images-idx3-ubyte", "89 50 4e 47"]),
        ("--workdir={new} --dataset=idx:{type}", ["{type}/train-images-idx3-ubyte", "uint8"]),
        ("--workdir={new} --dataset=idx:{lengths}", ["{lengths}", "180", "179"]),
        ("--workdir={new} --dataset=idx:{gzip}", ["{gzip}/train-images-idx3-ubyte.gz", "damaged"]),
        ("--workdir={new} --dataset=idx:{missing_file}", ["{missing_file}", "got none of the test labels"]),
        ("--workdir={new} --dataset=idx:{swapped}", ["{swapped}", "train labels"]),
        ("--workdir={new} --dataset=npz:{here}/none.npz", ["{here}/none.npz", "train_images"]),
        ("--workdir={new} --dataset=npz:{lacking}", ["{lacking}", "test_labels"]),
        ("--workdir={new} --dataset=npz:{pickled}", ["{pickled}"]),
        ("--workdir={new} --dataset=npz:{here}/text.txt", ["{here}/text.txt"]),
        ("--workdir={new} --dataset=npz:{negative} --set=mixed_mode=none", ["below 0", "from -1 to 254", "max_value"]),
        ("--workdir={new} --dataset=npz:{unprintable} --set=mixed_mode=none", ["printable"]),
        ("--workdir={new} --dataset=npz:{here}/half.npz", ["{here}/half.npz", "not a readable npz"]),
        ("--workdir={new} --dataset=npz:{here}/zero.npz", ["{here}/zero.npz", "not a readable npz"]),
        ("--workdir={new} --dataset=npz:{nan}", ["{nan}", "train images", "NaN or infinity"]),
        ("--workdir={new} --dataset=npz:{sizes}", ["{sizes}", "(28, 28, 1)", "(14, 28, 1)"]),
        ("--workdir={new} --dataset=npz:{labels}", ["{labels}", "train labels", "3 labels and 4 images"]),
        ("--workdir={new} --dataset=npz:{lonely}", ["{lonely}", "label 2: expected train and test images"]),
        ("--workdir={new} --dataset=npz:{halves}", ["{halves}", "whole numbers or texts"]),
        ("--workdir={new} --dataset=npz:{single}", ["{single}", "category '1'", "at least 2", "got 1"]),
        ("--workdir={new} --dataset=npz:{unnamed}", ["category name", "non-empty", "got ''"]),
        ("--workdir={new} --dataset=images:{here}/none", ["{here}/none", "no such folder"]),
        ("--workdir={new} --dataset=images:{here}/empty", ["{here}/empty", "no category folder"]),
        ("--workdir={new} --dataset=images:{here}/empty --image_size=0", ["image_size"]),
        (LEARN + "--image_size=28", ["image_size", "images or tfds", "leave it out"]),
        (LEARN + "--tfds_data_dir={here}", ["tfds_data_dir", "tfds", "leave it out"]),
        ("--workdir={new} --dataset=tfds:a=b", ["tfds:a=b", "a name such as mnist"]),
        (
            "--workdir={new} --dataset=tfds:no_such_set --tfds_data_dir={new}",
            ["tfds:no_such_set: expected a name and version in TensorFlow Datasets"],
        ),
        (
            "--workdir={new} --dataset=tfds:mnist --tfds_data_dir={new} --tfds_manual_dir={here}",
            ["{here} lacks train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images"],
        ),
        (LEARN + "--images_per_category=1", ["category '0'", "at least 2", "got 1"]),
        (LEARN + "--images_per_category=0", ["--images_per_category=0"]),
        ("--workdir={new} --dataset=mnist", ["'mnist'", "mnist5k", "idx:DIR", "npz:FILE"]),
        ("--workdir={new} --dataset=ftp:{idx}", ["ftp:", "mnist5k"]),
        ("--workdir={new} --dataset=idx:", ["idx:DIR"]),
        ("--workdir={new} --dataset=", ["mnist5k"]),
    ],
)
def test_learn_refuses_data_sets(assert_refused, line, words):
    assert_refused("learn", line, words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (LEARN + "--categories=3,7", ["'7'", "0, 1, 3"]),
        (LEARN + "--categories=3,1,3", ["categories: expected each one once, got '3'"]),
        (LEARN + "--categories=", ["categories: expected at least one"]),
        (LEARN + "--categories_per_task=0", ["categories_per_task"]),
        (LEARN + "--order_seed=-1", ["order_seed"]),
    ],
)
def test_learn_refuses_categories(assert_refused, line, words):
    assert_refused("learn", line, words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (LEARN + "--set=epochs=abc", ["epochs", "'abc'", "whole number"]),
        (LEARN + "--set=epochs=1.5", ["epochs", "'1.5'", "whole number"]),
        (LEARN + "--set=epochs=0", ["epochs", "above 0"]),
        (LEARN + "--set=learning_rate=nan", ["learning_rate"]),
        (LEARN + "--set=mixed_widths=32,x", ["mixed_widths"]),
        (LEARN + "--set=mixed_widths=32,16,8", ["mixed_widths", "category_widths", "layers"]),
        (LEARN + "--set=likelihood=poisson", ["likelihood", "'poisson'", "bernoulli"]),
        (LEARN + "--set=foo=1", ["'foo'", "epochs"]),
        (LEARN + "--set=foo", ["--set: expected key=value, got foo"]),
        (LEARN + "--set=epochs=2 --set=output_rank=-1", ["output_rank", "got -1"]),
    ],
)
def test_learn_refuses_settings(assert_refused, line, words):
    assert_refused("learn", line, words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (LEARN + "--epochs=3", ["epochs"]),
        (LEARN + "extra", ["--name=value", "'extra'"]),
        ("--dataset=idx:{idx}", ["--workdir"]),
        (LEARN + "--seed=-1", ["--seed=-1"]),
        (LEARN + "--seed=x", ["--seed=x"]),
        (LEARN + "--seed=18446744073709551616", ["--seed=18446744073709551616"]),
        (LEARN + "--preset=best", ["preset", "default"]),
        (LEARN + "--keep=some", ["keep", "last"]),
        (LEARN + "--recognizer=none", ["recognizer", "elbo"]),
        (LEARN + "--resume=perhaps", ["resume"]),
        (LEARN + "--checkpoint_every=-1", ["checkpoint_every"]),
        (LEARN + "--full_categories=2", ["--full_categories", "--images_per_category"]),
    ],
)
def test_learn_refuses_flags(assert_refused, line, words):
    assert_refused("learn", line, words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (LEARN + "--evaluate_on=validation", ["evaluate_on=validation", "validation_fraction"]),
        (LEARN + "--evaluate_on=train", ["evaluate_on", "test"]),
        (LEARN + "--validation_fraction=1", ["validation_fraction", "below 1"]),
        (LEARN + "--validation_fraction=-0.1", ["validation_fraction", "at least 0"]),
        (LEARN + "--validation_fraction=nan", ["validation_fraction"]),
        (LEARN + "--validation_fraction=half", ["validation_fraction"]),
        (LEARN + "--validation_fraction=0.001", ["validation_fraction", "too few"]),
    ],
)
def test_learn_refuses_held_out_images(assert_refused, line, words):
    assert_refused("learn", line, words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--dataset=idx:{idx} --workdir={here}/occupied", ["{here}/occupied", "--resume"]),
        ("--dataset=idx:{idx} --workdir={run}", ["{run}", "--resume"]),
        ("--dataset=idx:{idx} --workdir={here}/text.txt", ["{here}/text.txt"]),
        ("--dataset=idx:{idx} --workdir={here}/text.txt/run --set=mixed_mode=none", ["{here}/text.txt/run"]),
        ("--resume --workdir={new}", ["{new}/config.json", "no such file"]),
        ("--resume --workdir={here}/empty", ["{here}/empty/config.json", "no such file"]),
        ("--resume --workdir={here}/occupied", ["{here}/occupied/config.json"]),
        ("--dataset=idx:{idx} --workdir=/proc/none/run", ["/proc/none"]),
        ("--resume --workdir={edited}", ["{edited}/config.json", "expected the file as it was written"]),
    ],
)
def test_learn_refuses_folders(assert_refused, line, words):
    assert_refused("learn", line, words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--resume --workdir={run} --categories=1,3", ["{run}", "3; 1", "got 1; 3"]),
        ("--resume --workdir={run} --categories=3", ["{run}", "3; 1", "got 3"]),
        ("--resume --workdir={run} --seed=1", ["recorded seed=0, got 1"]),
        ("--resume --workdir={run} --set=epochs=7", ["recorded epochs=1, got 7"]),
        ("--resume --workdir={run} --preset=default", ["{run}", "expected the recorded"]),
        (
            "--resume --workdir={run} --dataset=idx:{other}",
            ["{run}", "expected the recorded images of idx:{idx}, got other images"],
        ),
        ("--resume --workdir={run} --grayscale", ["grayscale", "leave it out"]),
        ("--resume --workdir={run} --validation_fraction=0.5", ["recorded validation_fraction=0.0, got 0.5"]),
    ],
)
def test_learn_refuses_changes_when_resuming(assert_refused, line, words):
    assert_refused("learn", line, words)
