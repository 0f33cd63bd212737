"""Mixed modes: three tasks in each mode, and what changes in mixed part, earlier categories and priors."""

import itertools

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.config import REPLAY_TERMS
from lifelong_cvae.state import add_category
from lifelong_cvae.training import teacher
from lifelong_cvae.training.replay import sample_memory
from tests.conftest import SMALL_FEATURES, assert_trees_equal
from tests.training.conftest import config_in_mode, state_with_random_values

TASKS = ("0", "12", "34")
# By mode, for each task: whether the mixed part learns, and whether earlier categories are replayed.
MIXED_LEARNS = {"playback": (1, 1, 1), "free": (1, 1, 1), "frozen": (1, 1, 0)}
REPLAYED = {"playback": (0, 1, 1), "free": (0, 0, 0), "frozen": (0, 1, 0)}
TASK_NUMBERS = range(len(TASKS))
LONGER_TRAINING = {
    "min_steps": 90,
    "batch_size": 32,
    "steps_per_call": 30,
    "learning_rate": 3e-3,
    "memory_images": 16,
    "memory_size": 128,
}
GENERATE_ONLY = {"playback_weight": 0, "recognize_weight": 0, "circulate_weight": 0}
TERMS = {"playback": set(REPLAY_TERMS), "frozen": {"generate"}, "free": set()}


def state_and_report(state, names, digits, rng):
    return lifelong.learn(state, {name: digits[name] for name in names}, rng=rng)


@pytest.fixture(scope="module")
def lives_by_mode(small_config, digits, rng):
    """States before, between and after the tasks, and the reports of the tasks, by mode."""
    lives = {}
    for mode in MIXED_LEARNS:
        weights = GENERATE_ONLY if mode == "frozen" else {}
        config = config_in_mode(small_config, mode, **LONGER_TRAINING, **weights)
        states, reports = [lifelong.init(config, (28, 28), rng=rng)], []
        for names in TASKS:
            state, report = state_and_report(states[-1], names, digits, rng)
            states.append(state)
            reports.append(report)
        lives[mode] = states, reports
    return lives


@pytest.fixture(params=list(MIXED_LEARNS))
def life(request, lives_by_mode):
    """Mode, states and reports."""
    return request.param, *lives_by_mode[request.param]


@pytest.fixture
def memory_calls(monkeypatch):
    """List that grows by a pair (stack, memory) whenever memory is sampled."""
    calls = []

    def recording(mixed, stack, **settings):
        calls.append((stack, sample_memory(mixed, stack, **settings)))
        return calls[-1][1]

    monkeypatch.setattr(teacher, "sample_memory", recording)
    return calls


def changed_leaves(before, after):
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return [bool((np.asarray(a) != np.asarray(b)).any()) for a, b in pairs]


def test_learn_keeps_networks_and_scale_of_earlier_categories_bitwise(life):
    _, states, _ = life
    for before, after in itertools.pairwise(states):
        for name in before.names:
            for part in ("encoder", "decoder", "scale"):
                old, new = (state.params["categories"][name][part] for state in (before, after))
                assert_trees_equal(new, old)
    assert states[-1].names == tuple("01234")


def test_learn_shifts_priors_of_replayed_categories_only(life):
    mode, states, _ = life
    for task in TASK_NUMBERS:
        for name in states[task].names:
            old, new = (states[t].params["categories"][name]["prior"] for t in (task, task + 1))
            for part in ("means", "log_vars"):
                assert set(changed_leaves(old[part], new[part])) == {bool(REPLAYED[mode][task])}
            assert not any(changed_leaves(old["logits"], new["logits"]))
            # Shifted or not, all components stay in use and near the origin.
            assert np.asarray(new["logits"]).min() > -1e3
            assert np.abs(new["means"]).max() < 10


def test_learn_changes_mixed_part_while_it_learns_only(life):
    mode, states, _ = life
    for task in TASK_NUMBERS:
        changed = changed_leaves(states[task].params["mixed"], states[task + 1].params["mixed"])
        assert set(changed) == {bool(MIXED_LEARNS[mode][task])}


def test_learn_reports_terms_of_each_task(life):
    mode, _, reports = life
    for task in TASK_NUMBERS:
        expected = {"real"} | (TERMS[mode] if REPLAYED[mode][task] else set())
        assert set(reports[task].terms) == expected
        assert np.isfinite(list(reports[task].terms.values())).all()
        assert reports[task].names == tuple(TASKS[task])


def test_learn_trains_each_category_of_a_task(life, mnist5k):
    _, states, _ = life
    untrained = states[-2]
    images = {name: mnist5k.read("test", name) for name in "34"}
    for name in "34":
        untrained = add_category(untrained, name, rng=jax.random.key(0))
    for name in "34":
        column = states[-1].names.index(name)
        before = lifelong.evidence(untrained, images[name])[:, column].mean()
        assert lifelong.evidence(states[-1], images[name])[:, column].mean() > before + 50
        assert lifelong.imagine(states[-1], [name], 2, rng=jax.random.key(1))[name].shape == (2, 28, 28, 1)


def test_learn_depends_on_seed_and_leaves_input_state_unchanged(life, digits, rng):
    _, states, _ = life
    before = jax.tree.map(np.array, states[1])
    again, _ = state_and_report(states[1], "12", digits, rng)
    assert_trees_equal(jax.tree.map(np.array, states[1]), before)
    assert_trees_equal(again, states[2])
    other, _ = state_and_report(states[1], "12", digits, jax.random.key(1))
    assert any(changed_leaves(other.params["categories"]["1"], again.params["categories"]["1"]))


def test_learn_trains_revisited_categories_and_does_not_replay_them(life, digits, rng, memory_calls):
    mode, states, _ = life
    state, _ = state_and_report(states[3], "12", digits, rng)
    assert state.visits == (1, 2, 2, 1, 1)
    for name in "12":
        old, new = (s.params["categories"][name]["decoder"] for s in (states[3], state))
        assert all(changed_leaves(old, new))
    # One memory serves three chunks of 30 steps.
    assert len(memory_calls) == (mode == "playback")
    for stack, memory in memory_calls:
        assert memory.x.shape == (8, 16, 784)
        assert int(stack.count) == 3
        bias = stack.categories["decoder"]["params"]["pixels"]["bias"]
        for row, name in enumerate("034"):
            expected = states[3].params["categories"][name]["decoder"]["params"]["pixels"]["bias"]
            np.testing.assert_array_equal(bias[row], expected)


@pytest.mark.slow
def test_learn_samples_memory_again_after_replay_refresh_calls(small_config, digits, rng, memory_calls):
    settings = {"replay_refresh_calls": 2, "prior_components": 0, **GENERATE_ONLY}
    state = state_with_random_values(config_in_mode(small_config, "playback", **settings), ["old"])
    _, report = state_and_report(state, "0", digits, rng)
    # Three chunks of 10 steps: memory is sampled before the first and before the third.
    assert report.steps == 30
    (_, first), (_, second) = memory_calls
    assert not np.array_equal(first.x, second.x)
    assert set(report.terms) == {"real", "generate"}


@pytest.mark.slow
def test_mode_playback_without_replay_terms_equals_mode_free(small_config, digits, rng):
    weights = {f"{term}_weight": 0 for term in REPLAY_TERMS}
    modes = ("playback", "free")
    states = [state_with_random_values(config_in_mode(small_config, mode, **weights), ["old"]) for mode in modes]
    results = [state_and_report(state, "0", digits, rng) for state in states]
    assert_trees_equal(*(state.params for state, _ in results))
    assert [set(report.terms) for _, report in results] == [{"real"}, {"real"}]


def test_mode_playback_preserves_evidence_of_first_category(lives_by_mode, mnist5k):
    images = mnist5k.read("test", "0")
    lost = {}
    for mode in ("playback", "free"):
        states, _ = lives_by_mode[mode]
        before, after = (float(lifelong.evidence(s, images)[:, 0].mean()) for s in (states[1], states[-1]))
        lost[mode] = before - after
    assert lost["free"] > 10
    assert lost["playback"] < 0.3 * lost["free"]


def test_learn_after_load_equals_learn_without_checkpoint(lives_by_mode, digits, rng, tmp_path):
    states, reports = lives_by_mode["playback"]
    lifelong.save(states[2], tmp_path)
    state, report = state_and_report(lifelong.load(tmp_path), TASKS[2], digits, rng)
    assert_trees_equal(state, states[3])
    assert report.terms == reports[2].terms


@pytest.mark.parametrize("mode", [pytest.param("playback", marks=pytest.mark.slow), "frozen"])
def test_learn_does_not_depend_on_the_capacity(small_config, digits, mnist5k, rng, mode):
    quick = {"min_steps": "2", "steps_per_call": "2", "batch_size": "256"}
    config = config_in_mode(small_config, mode, **SMALL_FEATURES, **quick)
    images = mnist5k.read("test", "0")
    results = []
    for capacity in (0, 9):
        state = lifelong.init(config, (28, 28), rng=rng, capacity=capacity)
        for name in "01":
            state, _ = lifelong.learn(state, {name: digits[name]}, rng=rng)
        recognizer = lifelong.make_recognizer(state, "combined")
        imagined = lifelong.imagine(state, "01", 3, rng=rng)
        results.append(
            (state.params, lifelong.evidence(state, images), lifelong.recognize(recognizer, images)[1], imagined)
        )
    assert_trees_equal(*results)
