"""Learning a task: earlier categories stay bitwise the same, and the result depends on seed and images alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.images import mean_image
from lifelong_cvae.model import cvae, elbo
from lifelong_cvae.state import add_category, freeze_mask, parameters_per_category
from lifelong_cvae.training.losses import TASK
from lifelong_cvae.training.task_data import make_task_data
from lifelong_cvae.training.train import init_carry, train_chunk
from tests.conftest import assert_trees_equal
from tests.training.conftest import TRAINED_PARTS, learned_state


def first_kernel(mixed):
    return mixed["encoder"]["params"]["hidden_0"]["kernel"]


def test_learn_keeps_earlier_categories_and_their_images_bitwise(three_digits, digits, rng):
    before = jax.tree.map(np.array, three_digits.params)
    imagined = lifelong.imagine(three_digits, ["1"], 5, rng=rng, cycles=1)
    after, _ = lifelong.learn(three_digits, {"7": digits["7"]}, rng=rng)
    for name in "012":
        assert_trees_equal(after.params["categories"][name], before["categories"][name])
    assert_trees_equal(after.params["mixed"], before["mixed"])
    assert_trees_equal(lifelong.imagine(after, ["1"], 5, rng=rng, cycles=1), imagined)
    fresh = add_category(three_digits, "7", rng=rng).params["categories"]["7"]
    for part in TRAINED_PARTS:
        changed = jax.tree.map(lambda a, b: bool((a != b).any()), after.params["categories"]["7"][part], fresh[part])
        assert any(jax.tree.leaves(changed))


def test_learn_leaves_input_state_unchanged(three_digits, digits, rng):
    before = jax.tree.map(np.array, three_digits)
    lifelong.learn(three_digits, {"7": digits["7"]}, rng=rng)
    lifelong.learn(three_digits, {"1": digits["1"]}, rng=rng)
    assert_trees_equal(jax.tree.map(np.array, three_digits), before)
    assert three_digits.names == ("0", "1", "2")


@pytest.mark.slow
def test_learn_trains_mixed_part_during_base_categories_only(small_config, digits, rng):
    config = small_config.with_settings({"base_categories": 2})
    state = lifelong.init(config, (28, 28), rng=rng)
    left_and_moved = []
    for name in "0123":
        before, left = state.params["mixed"], state.base_categories_left
        state, _ = lifelong.learn(state, {name: digits[name]}, rng=rng)
        moved = not np.array_equal(first_kernel(before), first_kernel(state.params["mixed"]))
        left_and_moved.append((left, moved))
    assert left_and_moved == [(2, True), (1, True), (0, False), (0, False)]


@pytest.mark.parametrize("train_mixed", [pytest.param(True, marks=pytest.mark.slow), False])
def test_train_chunk_equals_masked_steps_over_whole_dict(small_config, digits, rng, train_mixed):
    config = small_config.with_settings(
        {"steps_per_call": 2, "base_categories": 9 if train_mixed else 1, "adam_b2": 0.9}
    )
    state = learned_state(config, [{"b": digits["0"]}, {"a": digits["1"]}], rng)
    state = add_category(state, "new", rng=rng)
    data = make_task_data(state, {"new": digits["2"].reshape(-1, 784)}, rng=rng)

    def whole_dict_loss(params, step):
        index_rng, noise_rng = jax.random.split(jax.random.fold_in(data.rngs[0], step))
        batch = data.images[0][jax.random.randint(index_rng, (config.learning.batch_size,), 0, data.counts[0])]
        x = batch.astype(jnp.float32) / 255
        model = cvae.CategoryModel(params["mixed"], params["categories"]["new"], state.networks)
        return -jnp.mean(elbo.sampled_elbo(model, x, cvae.encode(model, x), rng=noise_rng))

    schedule = optax.cosine_decay_schedule(config.learning.learning_rate, int(data.total_steps[0]))
    mask = freeze_mask(state.params, ["new"], train_mixed=train_mixed)
    optimizer = optax.selective_transform(optax.adam(schedule, b2=config.learning.adam_b2), freeze_mask=mask)

    @jax.jit
    def masked_step(params, opt_state, step):
        updates, opt_state = optimizer.update(jax.grad(whole_dict_loss)(params, step), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params, opt_state = state.params, optimizer.init(state.params)
    for step in range(config.learning.steps_per_call):
        params, opt_state = masked_step(params, opt_state, step)
    carry = init_carry(state, ("new",), train_mixed=train_mixed)
    settings = {"learning": config.learning, "train_mixed": train_mixed}
    carry, _, finite = train_chunk(carry, data, networks=state.networks, **settings)
    assert finite.all()
    trained = jax.tree.map(lambda leaf: leaf[0], carry.params["categories"][TASK])
    for part in TRAINED_PARTS:
        pairs = zip(jax.tree.leaves(trained[part]), jax.tree.leaves(params["categories"]["new"][part]), strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for a, b in zip(jax.tree.leaves(carry.params["mixed"]), jax.tree.leaves(params["mixed"]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for name in ("a", "b"):
        assert_trees_equal(params["categories"][name], state.params["categories"][name])
    if not train_mixed:
        assert_trees_equal(params["mixed"], state.params["mixed"])


def test_init_carry_has_no_moments_of_frozen_leaves(small_config, rng):
    state = add_category(lifelong.init(small_config, (28, 28), rng=rng), "a", rng=rng)
    sizes = {}
    for train_mixed in (True, False):
        carry = init_carry(state, ("a",), train_mixed=train_mixed)
        sizes[train_mixed] = sum(leaf.size for leaf in jax.tree.leaves(carry.opt_state))
    subtree = state.params["categories"]["a"]
    trained = sum(leaf.size for part in TRAINED_PARTS for leaf in jax.tree.leaves(subtree[part]))
    mixed = sum(leaf.size for leaf in jax.tree.leaves(state.params["mixed"]))
    counters = sizes[False] - 2 * trained
    assert 0 <= counters <= 4
    assert sizes[True] - sizes[False] == 2 * mixed


def test_learn_does_not_depend_on_order_of_other_categories(three_digits, digits, rng):
    categories = []
    for order in ("56", "65"):
        state = three_digits
        for name in order:
            state, _ = lifelong.learn(state, {name: digits[name]}, rng=rng)
        categories.append(state.params["categories"])
    assert_trees_equal(*categories)


def test_drop_leaves_no_trace_in_later_tasks(three_digits, digits, rng):
    never, _ = lifelong.learn(three_digits, {"6": digits["6"]}, rng=rng)
    state, _ = lifelong.learn(three_digits, {"5": digits["5"]}, rng=rng)
    state, _ = lifelong.learn(state, {"6": digits["6"]}, rng=rng)
    assert_trees_equal(lifelong.drop(state, "5"), never)


@pytest.mark.slow
def test_learn_several_categories_equals_one_by_one_without_mixed_part(small_config, digits, rng):
    config = small_config.with_settings({"mixed_mode": "none"})
    together = learned_state(config, [{"3": digits["3"], "4": digits["4"]}], rng)
    apart = learned_state(config, [{"4": digits["4"]}, {"3": digits["3"]}], rng)
    assert together.names == ("3", "4")
    pairs = zip(*(jax.tree.leaves(s.params["categories"]) for s in (together, apart)), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4)


def test_learn_makes_three_digits_recognizable(learner, mnist5k):
    for name in "201":
        names, _ = lifelong.recognize(learner, mnist5k.read("test", name))
        assert (names == name).mean() >= 0.9


@pytest.mark.parametrize(("count", "keeps_pixels"), [(1, False), (49, False), (50, True)])
def test_mean_image_keeps_single_pixels_of_many_images_only(digits, count, keeps_pixels):
    rows = digits["3"][:count].reshape(count, -1)
    expected = rows.mean(axis=0) / 255 if keeps_pixels else np.full(784, rows.mean() / 255)
    np.testing.assert_allclose(mean_image(rows), expected, rtol=1e-4)


def test_learn_depends_on_seed(small_config, digits):
    first, again, other = (
        learned_state(small_config, [{"3": digits["3"]}], jax.random.key(seed)).params for seed in (0, 0, 1)
    )
    assert_trees_equal(first, again)
    assert not np.array_equal(first_kernel(first["mixed"]), first_kernel(other["mixed"]))


@pytest.mark.slow
def test_learn_from_float_images_equals_uint8(small_config, digits, rng):
    as_uint8 = digits["3"][:50]
    as_float = as_uint8.astype(np.float32) / np.float32(255)
    states = [learned_state(small_config, [{"3": images}], rng) for images in (as_uint8, as_float)]
    # Each type compiles a program of its own, whose sums may round differently.
    for a, b in zip(*(jax.tree.leaves(state.params) for state in states), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_learned_state_has_constant_size_and_contains_no_image(small_config, digits, rng):
    few, many = (learned_state(small_config, [{"3": digits["3"][:n]}], rng) for n in (50, 400))
    assert [leaf.shape for leaf in jax.tree.leaves(few)] == [leaf.shape for leaf in jax.tree.leaves(many)]
    images = digits["3"][:50].reshape(50, 784).astype(np.float64)
    images = (images - images.mean(1, keepdims=True)) / images.std(1, keepdims=True)
    compared = 0
    for leaf in jax.tree.leaves(few):
        for axis in [axis for axis, size in enumerate(leaf.shape) if size == 784]:
            rows = np.moveaxis(np.asarray(leaf, np.float64), axis, -1).reshape(-1, 784)
            rows = rows - rows.mean(1, keepdims=True)
            rows /= np.maximum(rows.std(1, keepdims=True), 1e-12)
            compared += len(rows)
            assert np.abs(rows @ images.T / 784).max() < 0.99
    assert compared > 50


def test_learn_reports_steps_terms_and_speed(three_digits, digits, rng):
    calls = []
    _, report = lifelong.learn(three_digits, {"8": digits["8"]}, rng=rng, progress=lambda *call: calls.append(call))
    assert report.names == ("8",)
    # 400 images in batches of 16 are 25 steps: three chunks of 10.
    assert report.steps == 30
    assert [total for _, total in calls] == [30] * 3
    assert [progress.names for progress, _ in calls] == [("8",)] * 3
    assert report.terms == calls[-1][0].terms
    assert set(report.terms) == {"real"}
    assert report.images_per_second == pytest.approx(30 * 16 / report.seconds)
    assert report.parameters_per_category == parameters_per_category(three_digits)


def test_learn_in_bfloat16_keeps_float32_parameters_and_similar_loss(small_config, digits, rng):
    losses = {}
    for dtype in ("float32", "bfloat16"):
        state = lifelong.init(small_config.with_settings({"compute_dtype": dtype}), (28, 28), rng=rng)
        state, report = lifelong.learn(state, {"3": digits["3"]}, rng=rng)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))
        losses[dtype] = report.terms["real"]
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


def test_learn_of_new_and_known_categories_is_that_of_each_alone(small_config, digits, rng):
    # Replayed images of the known one are floats, the new ones are bytes.
    config = small_config.with_settings({"mixed_mode": "none"})
    state = learned_state(config, [{"0": digits["0"]}], rng)
    visits = {"0": digits["0"][:200], "1": digits["1"][:200]}
    joint, report = lifelong.learn(state, visits, rng=rng)
    alone = [lifelong.learn(state, {name: images}, rng=rng) for name, images in visits.items()]
    assert report.terms["real"] == pytest.approx(np.mean([one.terms["real"] for _, one in alone]), rel=1e-2)
    new = joint.params["categories"]["1"], alone[1][0].params["categories"]["1"]
    for part in TRAINED_PARTS:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), new[0][part], new[1][part])
