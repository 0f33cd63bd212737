import jax
import numpy as np
import pytest

from lifelong_cvae.training.teacher import Teacher


@pytest.mark.parametrize(("groups", "remembered"), [(8, 3), (3, 3), (2, 2)])
def test_no_more_categories_are_stacked_than_are_remembered(learner, rng, groups, remembered):
    settings = {
        "mixed_mode": "playback",
        "memory_size": groups * 4,
        "memory_images": 4,
        "memory_categories": 1,
    }
    state = learner.replace(config=learner.config.with_settings(settings))
    state = state.replace(names=("new", *state.names), visits=(0, *state.visits))
    teacher = Teacher(state, ("new",), rng=rng)
    past = [teacher.remember(refresh) for refresh in (0, 0, 1, 2, 3)]
    assert {int(p.stack.count) for p in past} == {remembered}
    assert {int(p.earlier) for p in past} == {3}
    assert past[0].memory.x.shape == (groups, 4, 784)
    first, again, *others = ([np.asarray(leaf) for leaf in jax.tree.leaves(p.stack)] for p in past)
    assert all(map(np.array_equal, first, again))
    drawn = [all(map(np.array_equal, first, leaves)) for leaves in others]
    assert all(drawn) if remembered == 3 else not all(drawn)
