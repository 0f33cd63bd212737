"""States with arbitrary values, and a checkpoint that a test may damage."""

import gc
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.state import add_category

# In the order of learning, neither alphabetical nor reversed.
NAMES = ("T-shirt/top", "ä 猫", "a", "Bag")
# -0, a denormal, infinity, two kinds of NaN.
SPECIAL_BITS = np.array([0x80000000, 0x00000001, 0x7F800000, 0x7FC01234, 0xFF800001], np.uint32)


def state_with_random_bits(state, seed):
    """The state with random bits for values, `SPECIAL_BITS` among them."""
    generator = np.random.default_rng(seed)

    def random_bits(leaf):
        bits = generator.integers(0, 2**32, leaf.shape, np.uint32)
        bits.ravel()[: SPECIAL_BITS.size] = SPECIAL_BITS[: bits.size]
        return jnp.asarray(bits.view(np.float32))

    return state.replace(params=jax.tree.map(random_bits, state.params))


def state_with_categories(config, names=NAMES, image_shape=(5, 4, 3)):
    state = lifelong.init(config, image_shape, rng=jax.random.key(3))
    for name in names:
        state = add_category(state, name, rng=jax.random.key(4))
    return state


def random_state(config, seed, **arguments):
    """A state of `state_with_categories` with random bits for values; compiles nothing."""
    return state_with_random_bits(jax.eval_shape(lambda: state_with_categories(config, **arguments)), seed)


def read_meta(folder, step=0):
    return json.loads((folder / str(step) / "meta" / "metadata").read_text())


def write_meta(folder, meta, step=0):
    (folder / str(step) / "meta" / "metadata").write_text(json.dumps(meta))


@pytest.fixture(scope="module")
def initial_state(small_config):
    """Four categories with initial values."""
    return state_with_categories(small_config)


@pytest.fixture(scope="session")
def state(small_config):
    """Four categories with random bits, visited unequally often, with base categories left."""
    config = small_config.with_settings({"base_categories": 7, "learning_rate": 0.1 + 0.2})
    return random_state(config, 0).replace(visits=(3, 0, 12, 1), base_categories_left=4)


@pytest.fixture(scope="session")
def saved(state, tmp_path_factory):
    """A folder with the state's checkpoint, which tests must not change."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    lifelong.save(state, folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of the checkpoint, which a test may damage."""
    yield shutil.copytree(saved, tmp_path / "copy")
    # Objects that Orbax leaves behind after an error warn when they are collected: here, not in another test.
    gc.collect()
