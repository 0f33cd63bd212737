"""The launcher `imagine`."""

import shutil

import jax
import numpy as np
from PIL import Image

from lifelong_cvae import sampling
from lifelong_cvae.runs.workdir import load_state
from tests.experiments.conftest import Ended


def test_imagine_equals_the_library(learned_run, launch, tmp_path):
    file = tmp_path / "imagined.npz"
    flags = (f"--workdir={learned_run}", f"--output={file}", "--per_category=3", "--seed=4", "--cycles=1")
    ended = launch("imagine", *flags, "--categories=1,3", without=["matplotlib", "mlxtend"])
    assert ended == Ended(0, "", "")
    with np.load(file, allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    assert images.shape == (6, 28, 28, 1)
    assert images.dtype == np.uint8
    assert labels.tolist() == ["1"] * 3 + ["3"] * 3
    state = load_state(learned_run)
    expected = sampling.imagine(state, ("1", "3"), 3, rng=jax.random.key(4), cycles=1)
    fractions = np.concatenate([np.asarray(expected[name]) for name in ("1", "3")])
    assert np.abs(images - 255 * fractions).max() < 0.51


def test_imagine_draws_a_grid(learned_run, launch, tmp_path):
    file = tmp_path / "imagined.png"
    ended = launch("imagine", f"--workdir={learned_run}", f"--output={file}")
    assert ended == Ended(0, "", "")
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        width, height = picture.size
    # Two rows of ten images
    assert width > 3 * height


def test_imagine_logs_nothing_about_unused_damaged_files(learned_run, launch, tmp_path):
    copy = shutil.copytree(learned_run, tmp_path / "copy")
    # Orbax logs an error about this file, which no result depends on.
    (copy / "checkpoints/2/_CHECKPOINT_METADATA").write_text("")
    flags = ("--per_category=1", f"--output={tmp_path / 'imagined.npz'}")
    assert launch("imagine", f"--workdir={copy}", *flags) == Ended(0, "", "")


def test_imagine_keeps_compiled_programs_in_the_given_folder(launch, learned_run, tmp_path):
    flags = (f"--workdir={learned_run}", f"--output={tmp_path / 'x.npz'}", "--per_category=2")
    for cache in (tmp_path / "cache", "none"):
        assert launch("imagine", *flags, f"--compilation_cache={cache}") == Ended(0, "", "")
    assert any((tmp_path / "cache").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "x.npz"]
