import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import checkpoints
from lifelong_cvae.checkpoints.task import load_task, save_task
from lifelong_cvae.images import mean_image
from lifelong_cvae.model import cvae
from lifelong_cvae.state import add_category, category_rng, freeze_mask, parameters_per_category
from lifelong_cvae.training import compilations, train
from lifelong_cvae.training.learn import TASK, make_task_data
from lifelong_cvae.training.train import init_carry, train_chunk
from tests.conftest import assert_trees_equal, one_line

FROZEN_PARTS = ("encoder", "decoder", "scale")


def learned(config, tasks, rng):
    state = lifelong.init(config, (28, 28), rng=rng)
    for images in tasks:
        state, _ = lifelong.learn(state, images, rng=rng)
    return state


@pytest.fixture(scope="module", params=["frozen", "none"])
def three(request, small_config, digits, rng):
    """A learner of 0, 1 and 2, in both mixed modes."""
    config = small_config.with_settings({"mixed_mode": request.param, "noise_scale": "own"})
    return learned(config, [{name: digits[name]} for name in "012"], rng)


def test_old_categories_are_bitwise_unchanged_and_imagine_the_same(three, digits, rng):
    before = jax.tree.map(np.array, three.params)
    imagined = lifelong.imagine(three, ["1"], 5, rng=rng, cycles=1)
    after, _ = lifelong.learn(three, {"7": digits["7"]}, rng=rng)
    for name in "012":
        assert_trees_equal(after.params["categories"][name], before["categories"][name])
    assert_trees_equal(after.params["mixed"], before["mixed"])
    assert_trees_equal(lifelong.imagine(after, ["1"], 5, rng=rng, cycles=1), imagined)
    fresh = add_category(three, "7", rng=rng).params["categories"]["7"]
    for part in FROZEN_PARTS:
        changed = jax.tree.map(lambda a, b: bool((a != b).any()), after.params["categories"]["7"][part], fresh[part])
        assert any(jax.tree.leaves(changed))


def test_the_state_passed_in_stays_usable_and_unchanged(three, digits, rng):
    before = jax.tree.map(np.array, three)
    lifelong.learn(three, {"7": digits["7"]}, rng=rng)
    lifelong.learn(three, {"1": digits["1"]}, rng=rng)
    assert_trees_equal(jax.tree.map(np.array, three), before)
    assert three.names == ("0", "1", "2")


@pytest.mark.slow
def test_the_mixed_part_learns_during_the_childhood_only(small_config, digits, rng):
    config = small_config.with_settings({"base_categories": 2})
    state = lifelong.init(config, (28, 28), rng=rng)
    moved = []
    for name in "0123":
        before, left = state.params["mixed"], state.base_categories_left
        state, _ = lifelong.learn(state, {name: digits[name]}, rng=rng)
        moved.append((left, not np.array_equal(*(_kernel(m) for m in (before, state.params["mixed"])))))
    assert moved == [(2, True), (1, True), (0, False), (0, False)]


def _kernel(mixed):
    return mixed["encoder"]["params"]["hidden_0"]["kernel"]


@pytest.mark.parametrize("train_mixed", [pytest.param(True, marks=pytest.mark.slow), False])
def test_the_engines_step_equals_a_step_over_the_whole_dict_with_labels(small_config, digits, rng, train_mixed):
    config = small_config.with_settings({"steps_per_call": 1, "base_categories": 9 if train_mixed else 1})
    state = learned(config, [{"b": digits["0"]}, {"a": digits["1"]}], rng)
    state = add_category(state, "new", rng=rng)
    data = make_task_data(state, {"new": digits["2"].reshape(-1, 784)}, rng=rng)
    total = int(data.total_steps)

    def whole_dict_loss(params):
        index_rng, noise_rng = jax.random.split(jax.random.fold_in(data.rngs[0], 0))
        batch = data.images[0][jax.random.randint(index_rng, (config.learning.batch_size,), 0, data.counts[0])]
        x = batch.astype(jnp.float32) / 255
        path = cvae.CategoryModel(params["mixed"], params["categories"]["new"], state.networks)
        return -jnp.mean(cvae.elbo(path, x, cvae.encode(path, x), rng=noise_rng))

    labels = freeze_mask(state.params, ["new"], train_mixed=train_mixed)
    schedule = optax.cosine_decay_schedule(config.learning.learning_rate, total)
    transform = optax.partition({"train": optax.adam(schedule), "freeze": optax.set_to_zero()}, labels)

    @jax.jit
    def step(params):
        updates, _ = transform.update(jax.grad(whole_dict_loss)(params), transform.init(params), params)
        return optax.apply_updates(params, updates)

    whole = step(state.params)
    carry = init_carry(state, ("new",), train_mixed=train_mixed)
    carry, _ = train_chunk(carry, data, networks=state.networks, learning=config.learning, train_mixed=train_mixed)
    ours = jax.tree.map(lambda leaf: leaf[0], carry.params["categories"][TASK])
    for part in FROZEN_PARTS:
        for a, b in zip(jax.tree.leaves(ours[part]), jax.tree.leaves(whole["categories"]["new"][part]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for a, b in zip(jax.tree.leaves(carry.params["mixed"]), jax.tree.leaves(whole["mixed"]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for name in ("a", "b"):
        assert_trees_equal(whole["categories"][name], state.params["categories"][name])
    if not train_mixed:
        assert_trees_equal(whole["mixed"], state.params["mixed"])


def test_frozen_leaves_have_no_moments(small_config, rng):
    state = add_category(lifelong.init(small_config, (28, 28), rng=rng), "a", rng=rng)
    sizes = {}
    for train_mixed in (True, False):
        carry = init_carry(state, ("a",), train_mixed=train_mixed)
        sizes[train_mixed] = sum(leaf.size for leaf in jax.tree.leaves(carry.optimizer))
    trained = sum(leaf.size for part in FROZEN_PARTS for leaf in jax.tree.leaves(state.params["categories"]["a"][part]))
    mixed = sum(leaf.size for leaf in jax.tree.leaves(state.params["mixed"]))
    counters = sizes[False] - 2 * trained
    assert 0 <= counters <= 4
    assert sizes[True] - sizes[False] == 2 * mixed


def test_learning_does_not_depend_on_the_order_of_other_categories(three, digits, rng):
    orders = []
    for order in ("56", "65"):
        state = three
        for name in order:
            state, _ = lifelong.learn(state, {name: digits[name]}, rng=rng)
        orders.append(state.params["categories"])
    assert_trees_equal(*orders)


def test_a_dropped_category_leaves_no_trace(three, digits, rng):
    never, _ = lifelong.learn(three, {"6": digits["6"]}, rng=rng)
    state, _ = lifelong.learn(three, {"5": digits["5"]}, rng=rng)
    state, _ = lifelong.learn(state, {"6": digits["6"]}, rng=rng)
    assert_trees_equal(lifelong.drop(state, "5"), never)


@pytest.mark.slow
def test_several_categories_at_once_equal_one_by_one_where_nothing_is_shared(small_config, digits, rng):
    config = small_config.with_settings({"mixed_mode": "none"})
    together = learned(config, [{"3": digits["3"], "4": digits["4"]}], rng)
    apart = learned(config, [{"4": digits["4"]}, {"3": digits["3"]}], rng)
    assert together.names == ("3", "4")
    pairs = zip(*(jax.tree.leaves(s.params["categories"]) for s in (together, apart)), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_a_category_that_returns_still_knows_what_it_looked_like(learner, digits, mnist5k, rng):
    """The category 1 returns with sevens: without its own memory it would be a category of sevens."""
    columns = {}
    for weight in (1.0, 0.0):
        config = learner.config.with_settings({"playback_weight": weight})
        state, _ = lifelong.learn(learner.replace(config=config), {"1": digits["7"]}, rng=rng)
        assert int(state.params["categories"]["1"]["images"]) == 800
        columns[weight] = {
            name: float(lifelong.evidence(state, mnist5k.read("test", name))[:, state.names.index("1")].mean())
            for name in "17"
        }
    index = learner.names.index("1")
    before = {n: float(lifelong.evidence(learner, mnist5k.read("test", n))[:, index].mean()) for n in "17"}
    assert columns[1.0]["7"] > before["7"] + 20, "sevens are learned"
    kept, lost = (before["1"] - columns[weight]["1"] for weight in (1.0, 0.0))
    assert kept < 0.5 * lost


def test_few_new_images_change_little_of_what_many_have_taught(three, digits, mnist5k, rng):
    state, _ = lifelong.learn(three, {"1": digits["7"][:5]}, rng=rng)
    names, _ = lifelong.recognize(state, mnist5k.read("test", "1"))
    then, _ = lifelong.recognize(three, mnist5k.read("test", "1"))
    assert (names == "1").mean() > (then == "1").mean() - 0.1
    thresholds = [s.params["categories"]["1"]["thresholds"] for s in (three, state)]
    assert (thresholds[1] <= thresholds[0]).all()


def test_a_known_category_goes_on_learning_with_fresh_randomness(three, digits, rng):
    state, report = lifelong.learn(three, {"1": digits["1"]}, rng=rng)
    assert state.names == three.names
    assert state.visits == (1, 2, 1)
    assert not np.array_equal(*(_posterior(s.params["categories"]["1"]) for s in (state, three)))
    assert_trees_equal(state.params["categories"]["2"], three.params["categories"]["2"])
    assert report.names == ("1",)
    # Visit 1 draws other batches than visit 0 did.
    keys = [category_rng(rng, "1", visit) for visit in (0, 1)]
    assert not np.array_equal(*(jax.random.key_data(key) for key in keys))


def _posterior(category):
    return category["encoder"]["params"]["posterior"]["kernel"]


def test_three_digits_are_learned_one_after_another(learner, mnist5k):
    for name in "201":
        answers, _ = lifelong.recognize(learner, mnist5k.read("test", name))
        assert (answers == name).mean() >= 0.9


@pytest.mark.parametrize(("count", "shown"), [(1, False), (49, False), (50, True)])
def test_the_mean_image_that_a_decoder_starts_with_is_an_average_of_many(digits, count, shown):
    rows = digits["3"][:count].reshape(count, -1)
    mean = mean_image(rows)
    expected = rows.mean(axis=0) / 255 if shown else np.full(784, rows.mean() / 255)
    np.testing.assert_allclose(mean, expected, rtol=1e-4)


def test_the_seed_decides(small_config, digits):
    first, again, other = (
        learned(small_config, [{"3": digits["3"]}], jax.random.key(seed)).params for seed in (0, 0, 1)
    )
    assert_trees_equal(first, again)
    assert not np.array_equal(_kernel(first["mixed"]), _kernel(other["mixed"]))


@pytest.mark.slow
def test_float_images_give_what_uint8_gives(small_config, digits, rng):
    small = digits["3"][:50]
    as_float = small.astype(np.float32) / np.float32(255)
    first, second = (learned(small_config, [{"3": images}], rng) for images in (small, as_float))
    pairs = zip(*(jax.tree.leaves(s.params) for s in (first, second)), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_32_categories_of_unequal_size_compile_the_train_step_at_most_7_times(small_config, rng):
    config = small_config.with_settings({"min_steps": 1, "steps_per_call": 1})
    sizes = np.random.default_rng(0).integers(1, 600, 32)
    state = lifelong.init(config, (8, 8), rng=rng)
    with compilations.count_compilations("train_chunk") as compiled:
        for index, size in enumerate(sizes):
            images = np.full((size, 8, 8), index, np.uint8)
            state, _ = lifelong.learn(state, {f"category {index}": images}, rng=rng)
    assert 1 <= compiled.count <= 7
    assert len(state.names) == 32


@pytest.mark.slow
def test_ten_categories_of_mnists_sizes_compile_the_train_step_at_most_6_times(small_config, rng):
    config = small_config.with_settings({"min_steps": 1, "steps_per_call": 1, "batch_size": 6000})
    state = lifelong.init(config, (8, 8), rng=rng)
    reported = 0
    with compilations.count_compilations("train_chunk") as compiled:
        for index, size in enumerate([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]):
            state, report = lifelong.learn(state, {str(index): np.zeros((size, 8, 8), np.uint8)}, rng=rng)
            reported += report.compilations
    assert 1 <= compiled.count <= 6
    assert reported == compiled.count


def test_the_state_does_not_grow_with_the_images_and_holds_none_of_them(small_config, digits, rng):
    few, many = (learned(small_config, [{"3": digits["3"][:n]}], rng) for n in (50, 400))
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


def test_a_report_tells_what_was_done(three, digits, rng):
    seen = []
    _, report = lifelong.learn(three, {"8": digits["8"]}, rng=rng, progress=lambda *call: seen.append(call))
    assert report.names == ("8",)
    # 400 images in batches of 16 are 25 steps, which 3 chunks of 10 hold.
    assert report.steps == 30
    assert [total for _, total in seen] == [30] * 3
    assert [at.names for at, _ in seen] == [("8",)] * 3
    assert report.terms == seen[-1][0].terms
    assert set(report.terms) == {"real"}
    assert report.images_per_second == pytest.approx(30 * 16 / report.seconds)
    assert report.parameters_per_category == parameters_per_category(three)


def test_a_loss_that_is_not_finite_names_term_step_and_task(small_config, digits, rng):
    config = small_config.with_settings({"learning_rate": 1e30})
    state = lifelong.init(config, (28, 28), rng=rng)
    with pytest.raises(FloatingPointError, match=r"loss term real is not finite at step [1-9] of task 3, 4"):
        lifelong.learn(state, {"3": digits["3"], "4": digits["4"]}, rng=rng)


def test_a_parameter_that_is_not_finite_is_named_with_step_and_task(three, digits, rng, monkeypatch):

    def broken(carry, *arguments, **settings):
        carry, terms = train_chunk(carry, *arguments, **settings)
        if int(carry.step) == 20:
            encoder = jax.tree.map(lambda leaf: leaf.at[0].set(np.inf), carry.params["categories"]["task"])
            carry = carry._replace(params={**carry.params, "categories": {"task": encoder}})
        return carry, terms

    monkeypatch.setattr(train, "train_chunk", broken)
    before = jax.tree.map(np.array, three)
    with pytest.raises(FloatingPointError, match=r"parameter categories/task/\S+ is not finite at step 20 of task 8"):
        lifelong.learn(three, {"8": digits["8"]}, rng=rng)
    assert_trees_equal(jax.tree.map(np.array, three), before)


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_a_task_goes_on_from_midway_as_if_nothing_had_been(three, digits, rng, tmp_path, chunk):
    images = {"8": digits["8"], "7": digits["7"]}
    whole, report = lifelong.learn(three, images, rng=rng)

    def save(at, _):
        if at.steps == 10 * chunk:
            save_task(tmp_path / "within", at, checkpoints.digest(three))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lifelong.learn(three, images, rng=rng, progress=save)
    there = load_task(tmp_path / "within", three, ("8", "7"), damaged=pytest.fail)
    assert there.steps == 10 * chunk
    for _ in range(2):  # what it goes on from stays usable
        resumed, again = lifelong.learn(three, images, rng=rng, resume_from=there)
        assert_trees_equal(resumed.params, whole.params)
        assert again.terms == report.terms
    with pytest.raises(lifelong.InputError, match="resume_from in the task 8, 7: got images of 8"):
        lifelong.learn(three, {"8": digits["8"]}, rng=rng, resume_from=there)


def test_learning_in_bfloat16_keeps_parameters_in_float32_and_learns_nearly_the_same(small_config, digits, rng):
    learned = {}
    for compute in ("float32", "bfloat16"):
        state = lifelong.init(small_config.with_settings({"compute_dtype": compute}), (28, 28), rng=rng)
        state, report = lifelong.learn(state, {"3": digits["3"]}, rng=rng)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))
        learned[compute] = report.terms["real"]
    assert learned["bfloat16"] != learned["float32"]
    assert learned["bfloat16"] == pytest.approx(learned["float32"], rel=0.05)


def test_what_was_saved_midway_belongs_to_its_state_and_task(three, digits, rng, tmp_path):
    def save(at, _):
        save_task(tmp_path / str(at.steps), at, checkpoints.digest(three))

    lifelong.learn(three, {"8": digits["8"]}, rng=rng, progress=save)
    assert load_task(tmp_path / "10", three, ("8",), damaged=pytest.fail).steps == 10
    assert load_task(tmp_path / "10", three, ("9",), damaged=pytest.fail) is None
    other = lifelong.drop(three, three.names[0])
    assert load_task(tmp_path / "10", other, ("8",), damaged=pytest.fail) is None
    assert load_task(tmp_path / "none", three, ("8",), damaged=pytest.fail) is None


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({}, "no category to learn"),
        ({"": np.zeros((2, 28, 28), np.uint8)}, "a non-empty text of printable characters"),
        ({"a\nb": np.zeros((2, 28, 28), np.uint8)}, "a non-empty text of printable characters"),
        ({"a\x00": np.zeros((2, 28, 28), np.uint8)}, "a non-empty text of printable characters"),
        ({9: np.zeros((2, 28, 28), np.uint8)}, "a non-empty text of printable characters"),
        ({"9": np.zeros((0, 28, 28), np.uint8)}, "category '9': at least 2 are expected, got 0"),
        ({"9": np.zeros((1, 28, 28), np.uint8)}, "category '9': at least 2 are expected, got 1"),
        ({"9": np.zeros((2, 28, 28), np.int32)}, "uint8, or float in .* is expected, got int32"),
        ({"9": np.zeros((2, 28, 28), bool)}, "uint8, or float in .* is expected, got bool"),
        ({"9": np.zeros((28, 28), np.uint8)}, r"shape \[n, 28, 28, 1\] is expected, got \(28, 28\)"),
        ({"9": np.zeros((2, 28, 28, 3), np.uint8)}, r"is expected, got \(2, 28, 28, 3\)"),
        ({"9": np.full((2, 28, 28), np.inf)}, "category '9': image 0 holds NaN or infinity"),
        ({"9": np.full((2, 28, 28), -0.1)}, "category '9': image 0 has values outside"),
        ({"9": np.full((2, 28, 28), np.nan)}, "category '9': image 0 holds NaN or infinity"),
        ({"9": np.full((2, 28, 28), 2.0)}, "category '9': image 0 has values outside"),
        ({"9": np.zeros((2, 27, 28), np.uint8)}, r"category '9': shape \[n, 28, 28, 1\] is expected"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_leaves_the_state(three, rng, images, message):
    before = jax.tree.map(np.array, three)
    with pytest.raises(lifelong.InputError, match=message) as caught:
        lifelong.learn(three, images, rng=rng)
    assert "\n" not in str(caught.value)
    assert_trees_equal(jax.tree.map(np.array, three), before)


@pytest.fixture(scope="module")
def one(small_config, digits, rng):
    return learned(small_config, [{"0": digits["0"][:40]}], rng)


class TestStreams:
    def test_are_learned_task_by_task_as_by_hand(self, one, digits, rng):
        state, by_hand = one, []
        for task in [{"7": digits["7"][:40]}, {"8": digits["8"][:40], "9": digits["9"][:40]}]:
            state, _ = lifelong.learn(state, task, rng=rng)
            by_hand.append(state)
        arriving = [("7", digits["7"][:40]), {"8": digits["8"][:40], "9": digits["9"][:40]}]
        arrived = list(lifelong.learn_stream(one, iter(arriving), rng=rng))
        assert [report.names for _, report in arrived] == [("7",), ("8", "9")]
        for (state, _), expected in zip(arrived, by_hand, strict=True):
            assert state.names == expected.names
            assert_trees_equal(state.params, expected.params)

    def test_are_read_only_as_far_as_they_are_learned(self, one, digits, rng):
        read = []

        def arriving():
            for name in "789":
                read.append(name)
                yield name, digits[name][:20]

        next(lifelong.learn_stream(one, arriving(), rng=rng))
        assert read == ["7"]

    @pytest.mark.parametrize("task", [3, ("7",), ("7", "8", "9"), None])
    def test_of_something_else_end_in_one_line(self, one, rng, task):
        with pytest.raises(lifelong.InputError) as error:
            next(lifelong.learn_stream(one, [task], rng=rng))
        one_line(error, "a pair (name, images)")
