import jax
import numpy as np
import pytest

from lifelong_cvae.training.teacher import make_teacher, sample_replay


@pytest.mark.parametrize(("groups", "stacked"), [(8, 3), (3, 3), (2, 2)])
def test_sample_replay_stacks_at_most_one_category_per_group(learner, rng, groups, stacked):
    settings = {"mixed_mode": "playback", "memory_size": groups * 4, "memory_images": 4, "memory_categories": 1}
    state = learner.replace(config=learner.config.with_settings(settings))
    state = state.replace(names=("new", *state.names), visits=(0, *state.visits))
    teacher = make_teacher(state, ("new",), rng=rng)
    assert teacher.names == learner.names
    replays = [sample_replay(teacher, refresh) for refresh in (0, 0, 1, 2, 3)]
    assert {int(replay.stack.count) for replay in replays} == {stacked}
    assert {int(replay.earlier) for replay in replays} == {3}
    assert replays[0].memory.x.shape == (groups, 4, 784)
    first, again, *others = ([np.asarray(leaf) for leaf in jax.tree.leaves(replay.stack)] for replay in replays)
    assert all(map(np.array_equal, first, again))
    same_stack = [all(map(np.array_equal, first, leaves)) for leaves in others]
    assert all(same_stack) if stacked == 3 else not all(same_stack)


@pytest.mark.parametrize(
    "settings",
    [
        {"mixed_mode": "free"},
        {"mixed_mode": "frozen"},
        {"mixed_mode": "playback", **{f"{t}_weight": 0 for t in ("playback", "generate", "recognize", "circulate")}},
    ],
    ids=["free", "frozen", "no terms"],
)
def test_make_teacher_replays_nothing_without_need(learner, rng, settings):
    state = learner.replace(config=learner.config.with_settings(settings))
    teacher = make_teacher(state, ("1",), rng=rng)
    assert (teacher.names, teacher.mixed, teacher.stack) == ((), None, None)
    assert sample_replay(teacher, 0) is None
