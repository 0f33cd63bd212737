import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.config import REPLAY_TERMS
from lifelong_cvae.model import cvae
from lifelong_cvae.stacked import stack_categories
from lifelong_cvae.state import add_category
from lifelong_cvae.training import compilations, teacher
from lifelong_cvae.training.learn import TASK, make_task_data
from lifelong_cvae.training.losses import ReplayData, replay_terms
from lifelong_cvae.training.replay import sample_memory
from lifelong_cvae.training.train import init_carry, make_optimizer, train_chunk
from tests.conftest import assert_trees_equal, one_line

TASKS = ("0", "12", "34")
# During which of them the mixed part learns, and during which it is protected.
LEARNS = {"playback": (1, 1, 1), "free": (1, 1, 1), "frozen": (1, 1, 0)}
PROTECTED = {"playback": (0, 1, 1), "free": (0, 0, 0), "frozen": (0, 1, 0)}
STEPS = range(len(TASKS))
LONGER = {
    "min_steps": 150,
    "batch_size": 32,
    "steps_per_call": 50,
    "learning_rate": 3e-3,
    "memory_images": 16,
    "memory_size": 128,
}
ONE_TERM = {"playback_weight": 0, "recognize_weight": 0, "circulate_weight": 0}
TERMS = {"playback": set(REPLAY_TERMS), "frozen": {"generate"}, "free": set()}


def in_mode(config, mode, **settings):
    return config.with_settings({"mixed_mode": mode, "base_categories": 3, **settings})


def learn_task(state, names, digits, rng):
    return lifelong.learn(state, {name: digits[name] for name in names}, rng=rng)


def knowing(config, names, shape=(28, 28)):
    """A learner of `names` with random values everywhere, also where a layer starts with zeros."""
    state = lifelong.init(config, shape, rng=jax.random.key(0))
    for name in names:
        state = add_category(state, name, rng=jax.random.key(0))
    leaves, structure = jax.tree.flatten(state.params)
    noise = np.random.default_rng(0)
    values = [leaf + 0.1 * noise.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    return state.replace(params=structure.unflatten(values))


@pytest.fixture(scope="module")
def all_lives(small_config, digits, rng):
    """Mode to a learner's states before, between and after the tasks, and its reports."""
    lives = {}
    for mode in LEARNS:
        weights = ONE_TERM if mode == "frozen" else {}
        config = in_mode(small_config, mode, **LONGER, **weights)
        states, reports = [lifelong.init(config, (28, 28), rng=rng)], []
        for names in TASKS:
            state, report = learn_task(states[-1], names, digits, rng)
            states.append(state)
            reports.append(report)
        lives[mode] = states, reports
    return lives


@pytest.fixture(params=list(LEARNS))
def lives(request, all_lives):
    """Mode, states and reports."""
    return request.param, *all_lives[request.param]


def changed(before, after):
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return [bool((np.asarray(a) != np.asarray(b)).any()) for a, b in pairs]


def test_networks_and_scale_of_old_categories_are_bitwise_unchanged(lives):
    _, states, _ = lives
    for before, after in itertools.pairwise(states):
        for name in before.names:
            for part in ("encoder", "decoder", "scale"):
                old, new = (state.params["categories"][name][part] for state in (before, after))
                assert_trees_equal(new, old)
    assert states[-1].names == tuple("01234")


def test_priors_of_old_categories_change_where_they_are_played_back_and_nowhere_else(lives):
    mode, states, _ = lives
    for task in STEPS:
        for name in states[task].names:
            old, new = (states[t].params["categories"][name]["prior"] for t in (task, task + 1))
            for part in ("means", "log_vars"):
                assert set(changed(old[part], new[part])) == {bool(PROTECTED[mode][task])}
            assert not any(changed(old["logits"], new["logits"]))
            # Refitted or not, as many components are in use, and none has run away.
            assert np.asarray(new["logits"]).min() > -1e3
            assert np.abs(new["means"]).max() < 10


def test_the_mixed_part_moves_while_it_learns_and_only_then(lives):
    mode, states, _ = lives
    for task in STEPS:
        moved = changed(states[task].params["mixed"], states[task + 1].params["mixed"])
        assert set(moved) == {bool(LEARNS[mode][task])}


def test_each_task_logs_the_terms_it_learned_from(lives):
    mode, _, reports = lives
    for task in STEPS:
        expected = {"real"} | (TERMS[mode] if PROTECTED[mode][task] else set())
        assert set(reports[task].terms) == expected
        assert np.isfinite(list(reports[task].terms.values())).all()
        assert reports[task].names == tuple(TASKS[task])


def test_a_task_of_several_categories_teaches_each_of_them(lives, mnist5k):
    _, states, _ = lives
    fresh = states[-2]
    images = {name: mnist5k.read("test", name) for name in "34"}
    for name in "34":
        fresh = add_category(fresh, name, rng=jax.random.key(0))
    for name in "34":
        column = states[-1].names.index(name)
        untaught = lifelong.evidence(fresh, images[name])[:, column].mean()
        assert lifelong.evidence(states[-1], images[name])[:, column].mean() > untaught + 50
        assert lifelong.imagine(states[-1], [name], 2, rng=jax.random.key(1))[name].shape == (2, 28, 28, 1)


def test_the_state_passed_in_stays_and_the_seed_decides(lives, digits, rng):
    _, states, _ = lives
    before = jax.tree.map(np.array, states[1])
    again, _ = learn_task(states[1], "12", digits, rng)
    assert_trees_equal(jax.tree.map(np.array, states[1]), before)
    assert_trees_equal(again, states[2])
    other, _ = learn_task(states[1], "12", digits, jax.random.key(1))
    assert any(changed(other.params["categories"]["1"], again.params["categories"]["1"]))


def recorded(monkeypatch):
    """What is remembered from now on: pairs of a stack and a memory."""
    calls, remember = [], sample_memory

    def recording(mixed, stack, **settings):
        calls.append((stack, remember(mixed, stack, **settings)))
        return calls[-1][1]

    monkeypatch.setattr(teacher, "sample_memory", recording)
    return calls


def test_categories_that_return_learn_and_are_not_played_back(lives, digits, rng, monkeypatch):
    mode, states, _ = lives
    calls = recorded(monkeypatch)
    state, _ = learn_task(states[3], "12", digits, rng)
    assert state.visits == (1, 2, 2, 1, 1)
    for name in "12":
        old, new = (s.params["categories"][name]["decoder"] for s in (states[3], state))
        assert all(changed(old, new))
    # One memory serves three chunks of 50 steps.
    assert len(calls) == (mode == "playback")
    for stack, memory in calls:
        assert memory.x.shape == (8, 16, 784)
        assert int(stack.count) == 3
        bias = stack.categories["decoder"]["params"]["pixels"]["bias"]
        for row, name in enumerate("034"):
            expected = states[3].params["categories"][name]["decoder"]["params"]["pixels"]["bias"]
            np.testing.assert_array_equal(bias[row], expected)


@pytest.mark.slow
def test_the_memory_is_imagined_anew_every_so_many_chunks(small_config, digits, rng, monkeypatch):
    calls = recorded(monkeypatch)
    state = knowing(in_mode(small_config, "playback", replay_refresh_calls=2, prior_components=0, **ONE_TERM), ["old"])
    _, report = learn_task(state, "0", digits, rng)
    # Three chunks of 10 steps: before the first and before the third.
    assert report.steps == 30
    (_, first), (_, second) = calls
    assert not np.array_equal(first.x, second.x)
    assert set(report.terms) == {"real", "generate"}


@pytest.mark.slow
def test_without_any_memory_term_mode_playback_is_mode_free(small_config, digits, rng):
    none = {f"{term}_weight": 0 for term in REPLAY_TERMS}
    states = [knowing(in_mode(small_config, mode, **none), ["old"]) for mode in ("playback", "free")]
    ends = [learn_task(state, "0", digits, rng) for state in states]
    assert_trees_equal(*(state.params for state, _ in ends))
    assert [set(report.terms) for _, report in ends] == [{"real"}, {"real"}]


def test_playback_protects_what_the_first_category_knows(all_lives, mnist5k):
    images = mnist5k.read("test", "0")
    lost = {}
    for mode in ("playback", "free"):
        states, _ = all_lives[mode]
        before, after = (float(lifelong.evidence(s, images)[:, 0].mean()) for s in (states[1], states[-1]))
        lost[mode] = before - after
    assert lost["free"] > 10
    assert lost["playback"] < 0.3 * lost["free"]


def test_the_engines_step_with_memory_equals_a_step_over_the_whole_dict(small_config, digits, rng):
    config = in_mode(small_config, "playback", steps_per_call=1, generate_weight=0.3, circulate_weight=0.7)
    state = add_category(knowing(config, ["b", "a"]), "new", rng=rng)
    settings, networks = config.learning, state.networks
    data = make_task_data(state, {"new": digits["2"].reshape(-1, 784)}, rng=rng)
    old = stack_categories(state, ("b", "a"))
    sizes = {"groups": 2, "images": settings.memory_images, "cycles": 1}
    memory = sample_memory(state.params["mixed"], old, rng=rng, networks=networks, **sizes)
    owners = ["ba"[row] for row in memory.category]
    assert sorted(owners) == ["a", "b"]
    past = ReplayData(old, memory, jax.random.key(6), old.count)
    group_rng = jax.random.split(jax.random.fold_in(past.rng, 0))[0]
    chosen = np.asarray(jax.random.choice(group_rng, 2, (2,), replace=False))

    def whole_dict_loss(params):
        def path(name):
            return cvae.CategoryModel(params["mixed"], params["categories"][name], networks)

        index_rng, noise_rng = jax.random.split(jax.random.fold_in(data.rngs[0], 0))
        rows = jax.random.randint(index_rng, (settings.batch_size,), 0, data.counts[0])
        x = data.images[0][rows].astype(jnp.float32) / 255
        total = -jnp.mean(cvae.elbo(path("new"), x, cvae.encode(path("new"), x), rng=noise_rng))
        noise_rng = jax.random.split(jax.random.fold_in(past.rng, 0))[1]
        for group, key in zip(chosen, jax.random.split(noise_rng, 2), strict=True):
            pairs = jax.tree.map(lambda leaf, g=group: leaf[g], memory)
            noise = jax.random.normal(key, pairs.z.shape)
            terms = replay_terms(path(owners[group]), pairs, noise, REPLAY_TERMS)
            weighted = terms["playback"] + 0.3 * terms["generate"] + terms["recognize"] + 0.7 * terms["circulate"]
            # Two categories, two groups.
            total += 2 * weighted / 2
        return total

    transform = make_optimizer(settings, state.params, ("new",), data.total_steps, train_mixed=True)

    @jax.jit
    def step(params):
        gradients = jax.grad(whole_dict_loss)(params)
        updates, _ = transform.update(gradients, transform.init(params), params)
        return optax.apply_updates(params, updates), gradients

    whole, gradients = step(state.params)
    carry = init_carry(state, ("new",), train_mixed=True)
    carry, terms = train_chunk(carry, data, past, networks=networks, learning=settings, train_mixed=True)
    assert set(terms) == {"real", *REPLAY_TERMS}
    ours = {
        "mixed": carry.params["mixed"],
        "new": jax.tree.map(lambda leaf: leaf[0], carry.params["categories"][TASK]),
    }
    for tree in (whole, gradients):
        del tree["categories"]["new"]["low_rank_noise"]
    expected = {"mixed": whole["mixed"], "new": whole["categories"]["new"]}
    slopes = {"mixed": gradients["mixed"], "new": gradients["categories"]["new"]}
    leaves = (jax.tree.leaves(tree) for tree in (ours, expected, slopes))
    for a, b, slope in zip(*leaves, strict=True):
        # Adam's first step is the sign of the gradient: where that is nothing but rounding, so is the step.
        clear = np.abs(slope) > 1e-4 * np.abs(slope).max()
        np.testing.assert_allclose(np.asarray(a)[clear], np.asarray(b)[clear], rtol=1e-3, atol=1e-5)
    for name in ("a", "b"):
        assert_trees_equal(whole["categories"][name], state.params["categories"][name])
        # Frozen by their labels, not for want of a gradient.
        assert any(bool((leaf != 0).any()) for leaf in jax.tree.leaves(gradients["categories"][name]["decoder"]))


@pytest.mark.slow
def test_nine_categories_in_mode_playback_compile_as_often_as_their_stack_doubles(small_config, rng):
    config = in_mode(small_config, "playback", min_steps=1, steps_per_call=1, prior_components=0, **ONE_TERM)
    state = lifelong.init(config, (8, 8), rng=rng)
    sizes = np.random.default_rng(0).integers(20, 900, 9)
    with (
        compilations.count_compilations("train_chunk") as trained,
        compilations.count_compilations("remember") as remembered,
    ):
        for index, size in enumerate(sizes):
            images = np.random.default_rng(index).integers(0, 256, (size, 8, 8), np.uint8)
            state, _ = lifelong.learn(state, {f"category {index}": images}, rng=rng)
    # Stacks of 4 and of 8, and the first task, which has none.
    assert trained.count == 3
    assert remembered.count == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"memory_size": 127}, ["memory_size=127", "128"]),
        ({"memory_size": 200, "memory_categories": 10, "memory_images": 21}, ["memory_size=200", "210"]),
        ({"memory_images": 0}, ["memory_images", "above 0"]),
        ({"memory_categories": -1}, ["memory_categories", "above 0"]),
        ({"replay_refresh_calls": 0}, ["replay_refresh_calls", "above 0"]),
        ({"cycles": -1}, ["cycles=-1", "at least 0"]),
        ({"mixed_mode": "frosen"}, ["mixed_mode='frosen'", "frozen, playback, free, none"]),
        *[({f"{t}_weight": -0.1}, [f"{t}_weight=-0.1", "at least 0"]) for t in REPLAY_TERMS],
        ({"playback_weight": "much"}, ["playback_weight='much'", "a number"]),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, words):
    with pytest.raises(lifelong.InputError) as caught:
        lifelong.Config().with_settings(settings)
    one_line(caught, *words)


def test_a_memory_that_a_step_just_takes_is_allowed():
    config = lifelong.Config().with_settings({"memory_size": 128, "cycles": 0, "playback_weight": 0})
    assert config.learning.memory_size == 128


def test_a_saved_learner_goes_on_as_if_it_had_never_stopped(all_lives, digits, rng, tmp_path):
    states, reports = all_lives["playback"]
    lifelong.save(states[2], tmp_path)
    resumed, report = learn_task(lifelong.load(tmp_path), TASKS[2], digits, rng)
    assert_trees_equal(resumed, states[3])
    assert report.terms == reports[2].terms
