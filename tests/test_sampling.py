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


def test_imagine_returns_float_images_in_unit_range(state, rng):
    images = lifelong.imagine(state, ["0", "1"], 7, rng=rng)
    assert list(images) == ["0", "1"]
    for values in images.values():
        assert (values.shape, values.dtype) == ((7, 28, 28, 1), jnp.float32)
        assert 0 <= float(values.min()) <= float(values.max()) <= 1
    assert lifelong.imagine(state, ["0"], 0, rng=rng)["0"].shape == (0, 28, 28, 1)


def test_imagine_returns_images_like_their_category(state, digits, rng):
    images = lifelong.imagine(state, ["0", "1"], 200, rng=rng)
    means = {name: digits[name].mean(axis=0) / 255 for name in "01"}
    for name, other in (("0", "1"), ("1", "0")):
        imagined = np.asarray(images[name]).mean(axis=0)
        assert np.square(imagined - means[name]).mean() < 0.2 * np.square(imagined - means[other]).mean()


@pytest.mark.parametrize("cycles", [0, 2])
def test_imagine_does_not_depend_on_other_categories(state, rng, cycles):
    both = lifelong.imagine(state, ["1", "0"], 5, rng=rng, cycles=cycles)
    alone = lifelong.imagine(state, ["0"], 5, rng=rng, cycles=cycles)
    assert_trees_equal(alone["0"], both["0"])
    reseeded = lifelong.imagine(state, ["0"], 5, rng=jax.random.key(5), cycles=cycles)
    assert not np.array_equal(reseeded["0"], alone["0"])


def test_imagine_follows_prior_decoder_and_circle(state, rng):
    model = state.model("0")
    name_rng = category_rng(rng, "0", 0)
    latent_rng, circle_rng = jax.random.split(name_rng)
    z = mixture_prior.sample(model.category["prior"], 3, rng=latent_rng)
    z_after, x_after = cvae.circulate(model, z, cvae.decode_mean(model, z), 1, rng=circle_rng)
    expected = cvae.sample_image(model, z_after, rng=jax.random.fold_in(name_rng, 2))
    np.testing.assert_allclose(cvae.decode_mean(model, z_after), x_after, rtol=1e-5, atol=1e-6)
    images = lifelong.imagine(state, ["0"], 3, rng=rng, cycles=1)["0"]
    np.testing.assert_allclose(images.reshape(3, -1), expected, rtol=1e-4, atol=1e-5)


def test_imagine_works_inside_jit(state, rng):
    inside = jax.jit(lambda s, key: lifelong.imagine(s, ["0", "1"], 3, rng=key))(state, rng)
    outside = lifelong.imagine(state, ["0", "1"], 3, rng=rng)
    for name, images in inside.items():
        np.testing.assert_allclose(images, outside[name], rtol=1e-4, atol=1e-5)


def test_reconstruct_is_nearer_than_mean_image(state, mnist5k):
    images = mnist5k.read("test", "0")
    reconstructed = np.asarray(sampling.reconstruct(state, "0", images))
    assert reconstructed.shape == images.shape
    x = images / np.float32(255)
    assert np.square(reconstructed - x).mean() < 0.8 * np.square(x.mean(axis=0) - x).mean()


def test_imagine_refuses_bad_requests(state, rng):
    with pytest.raises(lifelong.InputError, match="unknown category: expected one of 2, 0, 1, got '7'"):
        lifelong.imagine(state, ["7"], 1, rng=rng)
    with pytest.raises(lifelong.InputError, match="categories: expected each one once, got 1, 1"):
        lifelong.imagine(state, ["1", "1"], 1, rng=rng)
    with pytest.raises(lifelong.InputError, match="count: expected at least 0, got -1"):
        lifelong.imagine(state, ["1"], -1, rng=rng)
    with pytest.raises(lifelong.InputError, match="cycles: expected at least 0, got -2"):
        lifelong.imagine(state, ["1"], 1, rng=rng, cycles=-2)
    with pytest.raises(lifelong.InputError, match="expected at least one category, got none"):
        lifelong.imagine(state, [], 1, rng=rng)


GROUPS, IMAGES = 7, 5


def replay_memory(state, names, rng, cycles=1):
    stack = stack_categories(state, names)
    sizes = {"groups": GROUPS, "images": IMAGES, "cycles": cycles}
    return sample_memory(state.params["mixed"], stack, rng=rng, networks=state.networks, **sizes)


@pytest.fixture(scope="module")
def five_categories(learner, rng):
    state = learner
    for name in ("a", "b"):
        state = add_category(state, name, rng=rng)
    return state


@pytest.mark.parametrize("count", [1, 3, 5])
def test_sample_memory_has_fixed_size_and_equal_shares(five_categories, count):
    extra = set()
    for seed in range(8):
        memory = replay_memory(five_categories, five_categories.names[:count], jax.random.key(seed))
        assert memory.z.shape == (GROUPS, IMAGES, 4)
        assert memory.x.shape == (GROUPS, IMAGES, 784)
        assert [leaf.shape for leaf in memory.teacher] == [(GROUPS, IMAGES, 4)] * 2
        # Rows of the stack from `count` on are padding.
        groups = np.bincount(np.asarray(memory.category))
        assert len(groups) == count
        assert groups.max() - groups.min() == (GROUPS % count > 0)
        extra |= set(np.flatnonzero(groups > GROUPS // count))
    assert len(extra) == (count if GROUPS % count else 0)


def test_sample_memory_with_few_groups_repeats_no_category(five_categories, rng):
    stack = stack_categories(five_categories, five_categories.names)
    memory = sample_memory(
        five_categories.params["mixed"], stack, rng=rng, networks=five_categories.networks, groups=3, images=2, cycles=0
    )
    assert len(set(np.asarray(memory.category).tolist())) == 3


@pytest.mark.parametrize("cycles", [0, 2])
def test_sample_memory_equals_circle_by_hand(five_categories, rng, cycles):
    memory = replay_memory(five_categories, five_categories.names[:3], rng, cycles)
    assert 0 <= float(memory.x.min()) < float(memory.x.max()) <= 1
    keys = jax.random.split(jax.random.split(rng)[1], GROUPS)

    @jax.jit
    def pairs_by_hand(model, key):
        latent_rng, circle_rng = jax.random.split(key)
        z = mixture_prior.sample(model.prior, IMAGES, rng=latent_rng)
        z, x = cvae.circulate(model, z, cvae.decode_mean(model, z), cycles, rng=circle_rng)
        return z, x, cvae.encode(model, x)

    for index in range(4):
        expected = pairs_by_hand(five_categories.model(five_categories.names[int(memory.category[index])]), keys[index])
        sampled = jax.tree.map(lambda leaf, i=index: leaf[i], (memory.z, memory.x, memory.teacher))
        for a, b in zip(jax.tree.leaves(sampled), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("cycles", [0, 1])
def test_sample_memory_images_are_decoded_latents(five_categories, rng, cycles):
    memory = replay_memory(five_categories, five_categories.names[:1], rng, cycles)
    decoded = cvae.decode_mean(five_categories.model(five_categories.names[0]), memory.z.reshape(-1, 4))
    np.testing.assert_allclose(memory.x.reshape(-1, 784), decoded, rtol=1e-4, atol=1e-5)


def test_sample_memory_depends_on_seed_and_repeats_no_group(five_categories, rng):
    first, again = (replay_memory(five_categories, five_categories.names[:3], rng) for _ in range(2))
    assert_trees_equal(first, again)
    other = replay_memory(five_categories, five_categories.names[:3], jax.random.key(9))
    assert not np.array_equal(first.x, other.x)
    assert len({np.asarray(z).tobytes() for z in first.z}) == GROUPS
