"""Shared fixtures: strict JAX, real images, a small learner."""

import contextlib
import gc
import json
import os
import resource
import shutil
import tempfile

# There are as many processes as cores: threads that wait for each other make them slower. NumPy reads the first
# variable when it is imported, and JAX imports it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PJRT_NPROC", "1")

import hypothesis
import jax
import numpy as np
import pytest
from scipy import special, stats

import lifelong_cvae as lifelong
from lifelong_cvae.data import open_source
from lifelong_cvae.evaluation.reference_classifier import ClassifierNetwork, ReferenceClassifier
from lifelong_cvae.runs import runner
from lifelong_cvae.runs.workdir import load_state

# The first example compiles, and machines are of all speeds.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests compile much and compute little: without this part of the compiler, and with programs in one piece, they take
# half as long. XLA reads the variable when the first device is asked for, and dies of a flag that it does not know.
LEAN = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__[:2] == (0, 10) and LEAN not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {LEAN}".strip()
jax.config.update("jax_disable_most_optimizations", True)
# Garbage is collected less often: each collection walks all that JAX has traced.
gc.set_threshold(100_000, 20, 20)
# What one of their processes has compiled, the other finds.
OWNER = "LIFELONG_CVAE_COMPILED" not in os.environ
if OWNER:
    os.environ["LIFELONG_CVAE_COMPILED"] = tempfile.mkdtemp(prefix="lifelong_cvae_")
COMPILED = os.environ["LIFELONG_CVAE_COMPILED"]
jax.config.update("jax_compilation_cache_dir", COMPILED)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.03)
# For processes that tests start: they reuse programs that others compiled, those of the tests among them.
CACHE_VARIABLES = {
    "JAX_COMPILATION_CACHE_DIR": COMPILED,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.03",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
}

# What may differ between a resumed run and an uninterrupted one.
TIMES = {"seconds", "seconds_total", "seconds_learning", "images_per_second", "compilations"}
# Small enough that a task takes a second, large enough that digits are learned.
SMALL = {
    "mixed_widths": "32",
    "category_widths": "16",
    "output_rank": "12",
    "latent_size": "4",
    "epochs": "1",
    "min_steps": "20",
    "steps_per_call": "10",
    "batch_size": "16",
    "learning_rate": "0.004",
    "full_rate_steps": "1",
    "adam_b2": "0.999",
    "prior_components": "3",
    "noise_rank": "0",
    "memory_size": "64",
    "memory_categories": "2",
    "memory_images": "8",
    "random_features": "0",
    "recognizer": "elbo",
}
# Features for the closed-form recognizer, as small.
SMALL_FEATURES = {
    "num_filters": "12",
    "filter_size": "3",
    "pool_grid": "3",
    "random_features": "80",
    "recognizer": "closed_form",
}


def pytest_sessionfinish():
    if OWNER:
        shutil.rmtree(COMPILED, ignore_errors=True)


@pytest.fixture(scope="session")
def small_config():
    """A tiny network and short tasks."""
    return lifelong.Config().with_settings(SMALL)


@pytest.fixture(scope="session")
def rng():
    """The seed's key."""
    return jax.random.key(0)


@pytest.fixture(scope="session")
def mnist5k():
    """5,000 real MNIST digits."""
    return open_source("mnist5k")


@pytest.fixture(scope="session")
def digits(mnist5k):
    """Training images of each digit, uint8 [400, 28, 28, 1]."""
    return {name: mnist5k.read("train", name) for name in mnist5k.categories}


@pytest.fixture(scope="session")
def learner(small_config, digits, rng):
    """A tiny network that has learned 2, 0 and 1, one after another, well enough to recognize them."""
    config = small_config.with_settings({"min_steps": 300, "batch_size": 64, "steps_per_call": 100, "noise_rank": 3})
    state = lifelong.init(config, (28, 28), rng=rng)
    for name in "201":
        state, _ = lifelong.learn(state, {name: digits[name]}, rng=rng)
    return state


@pytest.fixture(scope="session")
def stranger(mnist5k):
    """A classifier that has learned nothing: enough where what it says does not matter."""
    network = ClassifierNetwork(10)
    params = jax.jit(network.init)(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    return ReferenceClassifier(params, mnist5k.categories, (28, 28, 1))


QUIET = {"draw": False, "tensorboard": False, "write_report": False, "log_fn": lambda _: None, "compile_ahead": False}


def run_quietly(workdir, config, source, *, resume=False, **options):
    """Runs without figures, report, events and log unless options say otherwise."""
    return runner.run(workdir, config, source, runner.RunOptions(**{**QUIET, **options}), resume=resume)


def one_line(error, *words):
    """The message of a caught error is one line and holds the words."""
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message


def snapshot(folder):
    """Every file and folder in a folder, files with their content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def assert_trees_equal(first, second):
    """Same structure, and every leaf the same bit for bit."""
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def mixture_log_density(prior, z):
    """Log p(z|c) of a mixture at z [n, latent], by scipy in float64; unused components count for nothing."""
    weights, means, log_vars = (np.asarray(prior[k], np.float64) for k in ("logits", "means", "log_vars"))
    per_component = stats.norm.logpdf(np.asarray(z)[:, None], means, np.exp(0.5 * log_vars)).sum(axis=-1)
    return special.logsumexp(per_component + special.log_softmax(weights), axis=1)


def lines_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text("utf-8").splitlines()]


def result_of(workdir):
    return json.loads((workdir / "result.json").read_text("utf-8"))


def without_times(values):
    return {key: value for key, value in values.items() if key not in TIMES}


def assert_runs_equal(first, second):
    """The same state bit for bit, the same lines and result but for times."""
    states = [load_state(workdir) for workdir in (first, second)]
    assert states[0].names == states[1].names
    assert states[0].visits == states[1].visits
    assert states[0].base_categories_left == states[1].base_categories_left
    assert states[0].config == states[1].config
    assert_trees_equal(states[0].params, states[1].params)
    assert [*map(without_times, lines_of(first))] == [*map(without_times, lines_of(second))]
    assert without_times(result_of(first)) == without_times(result_of(second))
    assert (first / "config.json").read_bytes() == (second / "config.json").read_bytes()


@contextlib.contextmanager
def full_disk(size):
    """Within it, writing past `size` bytes of a file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
