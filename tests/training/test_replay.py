"""Memory playback: replayed pairs (z*, x*) of earlier categories."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lifelong_cvae.config import REPLAY_TERMS
from lifelong_cvae.model import cvae, elbo, mixture_prior
from lifelong_cvae.stacked import stack_categories
from lifelong_cvae.state import add_category
from lifelong_cvae.training.losses import TASK, ReplayData, replay_terms
from lifelong_cvae.training.optimizer import make_optimizer
from lifelong_cvae.training.replay import sample_memory
from lifelong_cvae.training.task_data import make_task_data
from lifelong_cvae.training.train import init_carry, train_chunk
from tests.compiled import decode_mean
from tests.conftest import assert_trees_equal
from tests.training.conftest import config_in_mode, state_with_random_values

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
    decoded = decode_mean(five_categories.model(five_categories.names[0]), memory.z.reshape(-1, 4))
    np.testing.assert_allclose(memory.x.reshape(-1, 784), decoded, rtol=1e-4, atol=1e-5)


def test_sample_memory_depends_on_seed_and_repeats_no_group(five_categories, rng):
    first, again = (replay_memory(five_categories, five_categories.names[:3], rng) for _ in range(2))
    assert_trees_equal(first, again)
    other = replay_memory(five_categories, five_categories.names[:3], jax.random.key(9))
    assert not np.array_equal(first.x, other.x)
    assert len({np.asarray(z).tobytes() for z in first.z}) == GROUPS


def test_train_chunk_with_replay_equals_masked_step_over_whole_dict(small_config, digits, rng):
    settings = {"steps_per_call": 1, "generate_weight": 0.3, "circulate_weight": 0.7}
    config = config_in_mode(small_config, "playback", **settings)
    state = add_category(state_with_random_values(config, ["b", "a"]), "new", rng=rng)
    learning, networks = config.learning, state.networks
    data = make_task_data(state, {"new": digits["2"].reshape(-1, 784)}, rng=rng)
    earlier = stack_categories(state, ("b", "a"))
    sizes = {"groups": 2, "images": learning.memory_images, "cycles": 1}
    memory = sample_memory(state.params["mixed"], earlier, rng=rng, networks=networks, **sizes)
    group_names = ["ba"[row] for row in memory.category]
    assert sorted(group_names) == ["a", "b"]
    replay = ReplayData(earlier, memory, jax.random.key(6), earlier.count)
    group_rng = jax.random.split(jax.random.fold_in(replay.rng, 0))[0]
    groups = np.asarray(jax.random.choice(group_rng, 2, (2,), replace=False))

    def whole_dict_loss(params):
        def model(name):
            return cvae.CategoryModel(params["mixed"], params["categories"][name], networks)

        index_rng, noise_rng = jax.random.split(jax.random.fold_in(data.rngs[0], 0))
        rows = jax.random.randint(index_rng, (learning.batch_size,), 0, data.counts[0])
        x = data.images[0][rows].astype(jnp.float32) / 255
        total = -jnp.mean(elbo.sampled_elbo(model("new"), x, cvae.encode(model("new"), x), rng=noise_rng))
        noise_rng = jax.random.split(jax.random.fold_in(replay.rng, 0))[1]
        for group, key in zip(groups, jax.random.split(noise_rng, 2), strict=True):
            pairs = jax.tree.map(lambda leaf, g=group: leaf[g], memory)
            noise = jax.random.normal(key, pairs.z.shape)
            terms = replay_terms(model(group_names[group]), pairs, noise, REPLAY_TERMS)
            weighted = terms["playback"] + 0.3 * terms["generate"] + terms["recognize"] + 0.7 * terms["circulate"]
            # Two earlier categories, two groups.
            total += 2 * weighted / 2
        return total

    optimizer = make_optimizer(learning, state.params, ("new",), data.total_steps, train_mixed=True)

    @jax.jit
    def masked_step(params):
        gradients = jax.grad(whole_dict_loss)(params)
        updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        return optax.apply_updates(params, updates), gradients

    params, gradients = masked_step(state.params)
    carry = init_carry(state, ("new",), train_mixed=True)
    carry, terms, _ = train_chunk(carry, data, replay, networks=networks, learning=learning, train_mixed=True)
    assert set(terms) == {"real", *REPLAY_TERMS}
    trained = {
        "mixed": carry.params["mixed"],
        "new": jax.tree.map(lambda leaf: leaf[0], carry.params["categories"][TASK]),
    }
    for tree in (params, gradients):
        del tree["categories"]["new"]["low_rank_noise"]
    expected, slopes = ({"mixed": t["mixed"], "new": t["categories"]["new"]} for t in (params, gradients))
    leaves = (jax.tree.leaves(tree) for tree in (trained, expected, slopes))
    for a, b, slope in zip(*leaves, strict=True):
        # Adam's first step is the sign of the gradient, which is arbitrary where the gradient is rounding noise.
        clear = np.abs(slope) > 1e-4 * np.abs(slope).max()
        np.testing.assert_allclose(np.asarray(a)[clear], np.asarray(b)[clear], rtol=1e-3, atol=1e-5)
    for name in ("a", "b"):
        assert_trees_equal(params["categories"][name], state.params["categories"][name])
        # The mask freezes them: their gradients are not zero.
        assert any(bool((leaf != 0).any()) for leaf in jax.tree.leaves(gradients["categories"][name]["decoder"]))
