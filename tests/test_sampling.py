import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import sampling
from lifelong_cvae.model import cvae, mixture_prior
from lifelong_cvae.stacked import stack_categories
from lifelong_cvae.state import add_category, category_rng
from lifelong_cvae.training.replay import sample_memory
from tests.conftest import assert_trees_equal


@pytest.fixture
def state(learner):
    return learner


def test_imagined_images_have_the_promised_form(state, rng):
    images = lifelong.imagine(state, ["0", "1"], 7, rng=rng)
    assert list(images) == ["0", "1"]
    for values in images.values():
        assert (values.shape, values.dtype) == ((7, 28, 28, 1), jnp.float32)
        assert 0 <= float(values.min()) <= float(values.max()) <= 1
    assert lifelong.imagine(state, ["0"], 0, rng=rng)["0"].shape == (0, 28, 28, 1)


def test_imagined_images_look_like_their_category(state, digits, rng):
    images = lifelong.imagine(state, ["0", "1"], 200, rng=rng)
    means = {name: digits[name].mean(axis=0) / 255 for name in "01"}
    for name, other in (("0", "1"), ("1", "0")):
        drawn = np.asarray(images[name]).mean(axis=0)
        assert np.square(drawn - means[name]).mean() < 0.2 * np.square(drawn - means[other]).mean()


@pytest.mark.parametrize("cycles", [0, 2])
def test_what_a_category_imagines_does_not_depend_on_the_others(state, rng, cycles):
    both = lifelong.imagine(state, ["1", "0"], 5, rng=rng, cycles=cycles)
    alone = lifelong.imagine(state, ["0"], 5, rng=rng, cycles=cycles)
    assert_trees_equal(alone["0"], both["0"])
    reseeded = lifelong.imagine(state, ["0"], 5, rng=jax.random.key(5), cycles=cycles)
    assert not np.array_equal(reseeded["0"], alone["0"])


def test_imagining_follows_prior_decoder_and_circle(state, rng):
    path = state.model("0")
    own_rng = category_rng(rng, "0", 0)
    latent_rng, circle_rng = jax.random.split(own_rng)
    z = mixture_prior.sample(path.category["prior"], 3, rng=latent_rng)
    z_after, x_after = cvae.circulate(path, z, cvae.decode_mean(path, z), 1, rng=circle_rng)
    expected = cvae.sample_image(path, z_after, rng=jax.random.fold_in(own_rng, 2))
    np.testing.assert_allclose(cvae.decode_mean(path, z_after), x_after, rtol=1e-5, atol=1e-6)
    images = lifelong.imagine(state, ["0"], 3, rng=rng, cycles=1)["0"]
    np.testing.assert_allclose(images.reshape(3, -1), expected, rtol=1e-4, atol=1e-5)


def test_imagining_works_inside_the_users_jit(state, rng):
    inside = jax.jit(lambda s, key: lifelong.imagine(s, ["0", "1"], 3, rng=key))(state, rng)
    outside = lifelong.imagine(state, ["0", "1"], 3, rng=rng)
    for name, images in inside.items():
        np.testing.assert_allclose(images, outside[name], rtol=1e-4, atol=1e-5)


def test_reconstructions_are_nearer_than_the_mean_image(state, mnist5k):
    images = mnist5k.read("test", "0")
    reconstructed = np.asarray(sampling.reconstruct(state, "0", images))
    assert reconstructed.shape == images.shape
    x = images / np.float32(255)
    assert np.square(reconstructed - x).mean() < 0.8 * np.square(x.mean(axis=0) - x).mean()


def test_bad_requests_are_refused(state, rng):
    with pytest.raises(lifelong.InputError, match="unknown category '7': known are 2, 0, 1"):
        lifelong.imagine(state, ["7"], 1, rng=rng)
    with pytest.raises(lifelong.InputError, match="each one once is expected"):
        lifelong.imagine(state, ["1", "1"], 1, rng=rng)
    with pytest.raises(lifelong.InputError, match="numbers of at least 0 are expected"):
        lifelong.imagine(state, ["1"], -1, rng=rng)
    with pytest.raises(lifelong.InputError, match="no category: at least one is expected"):
        lifelong.imagine(state, [], 1, rng=rng)


GROUPS, IMAGES = 7, 5


def remembered(state, names, rng, cycles=1):
    stack = stack_categories(state, names)
    sizes = {"groups": GROUPS, "images": IMAGES, "cycles": cycles}
    return sample_memory(state.params["mixed"], stack, rng=rng, networks=state.networks, **sizes)


@pytest.fixture(scope="module")
def five(learner, rng):
    state = learner
    for name in ("a", "b"):
        state = add_category(state, name, rng=rng)
    return state


@pytest.mark.parametrize("count", [1, 3, 5])
def test_memory_has_a_fixed_size_and_is_shared_out_evenly(five, count):
    extra = set()
    for seed in range(8):
        memory = remembered(five, five.names[:count], jax.random.key(seed))
        assert memory.z.shape == (GROUPS, IMAGES, 4)
        assert memory.x.shape == (GROUPS, IMAGES, 784)
        assert [leaf.shape for leaf in memory.teacher] == [(GROUPS, IMAGES, 4)] * 2
        # Rows of padding would be those from `count` on.
        groups = np.bincount(np.asarray(memory.category))
        assert len(groups) == count
        assert groups.max() - groups.min() == (GROUPS % count > 0)
        extra |= set(np.flatnonzero(groups > GROUPS // count))
    assert len(extra) == (count if GROUPS % count else 0)


def test_with_fewer_groups_than_categories_no_category_is_remembered_twice(five, rng):
    stack = stack_categories(five, five.names)
    memory = sample_memory(five.params["mixed"], stack, rng=rng, networks=five.networks, groups=3, images=2, cycles=0)
    assert len(set(np.asarray(memory.category).tolist())) == 3


@pytest.mark.parametrize("cycles", [0, 2])
def test_remembered_pairs_are_those_of_the_circle_by_hand(five, rng, cycles):
    memory = remembered(five, five.names[:3], rng, cycles)
    assert 0 <= float(memory.x.min()) < float(memory.x.max()) <= 1
    keys = jax.random.split(jax.random.split(rng)[1], GROUPS)

    @jax.jit
    def by_hand(path, key):
        latent_rng, circle_rng = jax.random.split(key)
        z = mixture_prior.sample(path.prior, IMAGES, rng=latent_rng)
        z, x = cvae.circulate(path, z, cvae.decode_mean(path, z), cycles, rng=circle_rng)
        return z, x, cvae.encode(path, x)

    for index in range(4):
        expected = by_hand(five.model(five.names[int(memory.category[index])]), keys[index])
        ours = jax.tree.map(lambda leaf, i=index: leaf[i], (memory.z, memory.x, memory.teacher))
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("cycles", [0, 1])
def test_a_remembered_image_is_what_the_decoder_makes_of_its_latent(five, rng, cycles):
    memory = remembered(five, five.names[:1], rng, cycles)
    drawn = cvae.decode_mean(five.model(five.names[0]), memory.z.reshape(-1, 4))
    np.testing.assert_allclose(memory.x.reshape(-1, 784), drawn, rtol=1e-4, atol=1e-5)


def test_the_seed_decides_what_is_remembered(five, rng):
    first, again = (remembered(five, five.names[:3], rng) for _ in range(2))
    assert_trees_equal(first, again)
    other = remembered(five, five.names[:3], jax.random.key(9))
    assert not np.array_equal(first.x, other.x)
    # Nor does any group repeat another one.
    assert len({np.asarray(z).tobytes() for z in first.z}) == GROUPS
