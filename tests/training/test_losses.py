from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import lifelong_cvae as lifelong
from lifelong_cvae.config import REPLAY_TERMS
from lifelong_cvae.model import cvae
from lifelong_cvae.stacked import NOT_USED_IN_TRAINING, stack_categories, stack_subtrees
from lifelong_cvae.training.losses import (
    TASK,
    ReplayData,
    TaskData,
    real_loss,
    replay_loss,
    replay_terms,
    sample_replay_noise,
    sample_step_noise,
)
from lifelong_cvae.training.replay import sample_memory

GROUPS, IMAGES = 5, 6
NO_NOISE = jnp.zeros(())
memory_terms = jax.jit(replay_terms, static_argnums=3)
past_loss = jax.jit(replay_loss, static_argnames="networks")
task_loss = jax.jit(real_loss, static_argnames="networks")


@pytest.fixture(scope="module")
def past(learner):
    """Memory of 2, 0 and 1, by the learner as it is."""
    stack = stack_categories(learner, learner.names, leave_out=NOT_USED_IN_TRAINING)
    sizes = {"groups": GROUPS, "images": IMAGES, "cycles": 1}
    rng = jax.random.key(4)
    memory = sample_memory(learner.params["mixed"], stack, rng=rng, networks=learner.networks, **sizes)
    return ReplayData(stack, memory, rng, stack.count)


@pytest.fixture(scope="module")
def student(learner):
    """A mixed part that has moved away from the teacher's."""
    leaves, structure = jax.tree.flatten(learner.params["mixed"])
    keys = jax.random.split(jax.random.key(8), len(leaves))
    moved = [leaf + 0.05 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return structure.unflatten(moved)


def group(past, index):
    return jax.tree.map(lambda leaf: leaf[index], past.memory)


def path_of(mixed, past, index, networks):
    row = past.memory.category[index]
    return cvae.CategoryModel(mixed, jax.tree.map(lambda leaf: leaf[row], past.stack.categories), networks)


def float64(*arrays):
    return [np.asarray(array, np.float64) for array in arrays]


def kl(mean, log_var, other_mean, other_log_var):
    """Between Gaussians with diagonal covariances: from traces, distances and determinants."""
    ratio = np.exp(log_var - other_log_var)
    distance = np.square(mean - other_mean) / np.exp(other_log_var)
    return 0.5 * (ratio + distance - 1 - np.log(ratio)).sum(axis=-1)


def test_each_memory_term_agrees_with_a_second_computation(learner, student, past):
    memory = group(past, 0)
    noise = jax.random.normal(jax.random.key(11), memory.z.shape)
    path = path_of(student, past, 0, learner.networks)
    terms = memory_terms(path, memory, noise, REPLAY_TERMS)
    assert set(terms) == set(REPLAY_TERMS)

    z, x, mean, log_var = float64(memory.z, memory.x, *cvae.encode(path, memory.x))
    drawn = cvae.decode_mean(path, memory.z)
    squared = ((float64(drawn)[0] - x) ** 2).sum() / IMAGES
    assert float(terms["generate"]) == pytest.approx(squared, rel=1e-4)

    seen = kl(*float64(*memory.teacher), mean, log_var).mean()
    assert float(terms["recognize"]) == pytest.approx(seen, rel=1e-3)

    back_mean, back_log_var = float64(*cvae.encode(path, drawn))
    back = -stats.norm.logpdf(z, back_mean, np.exp(0.5 * back_log_var)).sum(axis=1).mean()
    assert float(terms["circulate"]) == pytest.approx(back, rel=1e-3)

    noisy = mean + np.exp(0.5 * log_var) * np.asarray(noise)
    pixels = float64(cvae.decode_mean(path, jnp.asarray(noisy, jnp.float32)))[0]
    scale = np.exp(learner.config.network.log_scale)
    logits, means, log_vars = float64(*(path.category["prior"][k] for k in ("logits", "means", "log_vars")))
    per_component = kl(mean[:, None], log_var[:, None], means, log_vars)
    divergence = -special.logsumexp(special.log_softmax(logits) - per_component, axis=1)
    elbo = stats.norm.logpdf(x, pixels, scale).sum(axis=1) - divergence
    assert float(terms["playback"]) == pytest.approx(-elbo.mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("names", "halves"),
    [
        (("generate",), {"decode": 1}),
        (("recognize",), {"encode": 1}),
        (("circulate",), {"encode": 1, "decode": 1}),
        (("playback", "recognize"), {"encode": 1, "decode": 1}),
        (REPLAY_TERMS, {"encode": 2, "decode": 2}),
        ((), {}),
    ],
)
def test_what_no_term_asks_for_is_neither_computed_nor_returned(learner, past, monkeypatch, names, halves):
    calls = {}

    def counting(name, function, *arguments):
        calls[name] = calls.get(name, 0) + 1
        return function(*arguments)

    for name in ("encode", "decode"):
        monkeypatch.setattr(cvae, name, partial(counting, name, getattr(cvae, name)))
    path = path_of(learner.params["mixed"], past, 0, learner.networks)
    terms = replay_terms(path, group(past, 0), NO_NOISE, names)
    assert set(terms) == set(names)
    assert calls == halves


def test_a_weight_of_zero_drops_its_term_from_the_weights():
    config = lifelong.Config().with_settings({"playback_weight": 0, "circulate_weight": 0.25})
    assert config.learning.replay_weights == {"generate": 1.0, "recognize": 1.0, "circulate": 0.25}


def terms_by_group(mixed, past, networks, names):
    """The terms called `names` of each group, which need no noise."""
    paths = [path_of(mixed, past, g, networks) for g in range(GROUPS)]
    return [memory_terms(path, group(past, g), NO_NOISE, names) for g, path in enumerate(paths)]


def test_the_teacher_itself_recognises_what_it_remembered(learner, student, past):
    for mixed, expected in ((learner.params["mixed"], True), (student, False)):
        terms = [terms["recognize"] for terms in terms_by_group(mixed, past, learner.networks, ("recognize",))]
        assert (np.abs(terms) < 1e-4).all() == expected
        assert (np.asarray(terms) > 0.01).all() != expected


def all_past(mixed, past, networks, weights, groups=GROUPS, step=0):
    drawn = sample_replay_noise(past, jnp.int32(step), groups=groups)
    return past_loss(mixed, past, drawn, networks=networks, weights=weights)


def test_past_loss_weights_the_mean_over_groups_by_the_number_of_categories(learner, student, past):
    # All groups, each of them once: terms without noise do not depend on the step.
    weights = {"generate": 2.0, "recognize": 0.5}
    total, terms = all_past(student, past, learner.networks, weights)
    by_group = terms_by_group(student, past, learner.networks, tuple(weights))
    assert set(terms) == set(weights)
    for name in weights:
        expected = np.mean([terms[name] for terms in by_group])
        assert float(terms[name]) == pytest.approx(expected, rel=1e-4)
    assert int(past.stack.count) == 3
    weighted = 3 * (2.0 * float(terms["generate"]) + 0.5 * float(terms["recognize"]))
    assert float(total) == pytest.approx(weighted, rel=1e-5)


def test_each_step_draws_groups_without_repetition_and_other_ones(learner, student, past):
    by_group = terms_by_group(student, past, learner.networks, ("generate",))
    single = {g: float(terms["generate"]) for g, terms in enumerate(by_group)}

    def drawn_at(step, groups):
        return float(all_past(student, past, learner.networks, {"generate": 1.0}, groups, step)[1]["generate"])

    means = {(a, b): (single[a] + single[b]) / 2 for a in range(GROUPS) for b in range(a, GROUPS)}
    drawn = [min(single, key=lambda g, v=v: abs(single[g] - v)) for v in (drawn_at(s, 1) for s in range(40))]
    assert set(drawn) == set(range(GROUPS))
    pairs = [min(means, key=lambda p, v=v: abs(means[p] - v)) for v in (drawn_at(s, 2) for s in range(40))]
    assert len(set(pairs)) > 5
    assert all(a != b for a, b in pairs)


@pytest.mark.parametrize(
    ("term", "reached"),
    [
        ("playback", {"encoder", "decoder"}),
        ("generate", {"decoder"}),
        ("recognize", {"encoder"}),
        ("circulate", {"encoder", "decoder"}),
    ],
)
def test_each_term_teaches_the_halves_of_the_mixed_part_that_it_uses(learner, student, past, term, reached):
    graph = jax.jit(jax.value_and_grad(lambda mixed: all_past(mixed, past, learner.networks, {term: 1.0})[0]))
    gradient = graph(student)[1]
    for half in ("encoder", "decoder"):
        # One hidden layer: its kernel and its bias.
        norms = [float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(gradient[half])]
        assert len(norms) == 2
        assert all(norm > 0 for norm in norms) == (half in reached)
        assert any(norm > 0 for norm in norms) == (half in reached)
    size = 1e-3 / np.sqrt(sum(float(jnp.square(leaf).sum()) for leaf in jax.tree.leaves(gradient)))
    ahead, behind = (
        float(graph(jax.tree.map(lambda p, g, s=s: p + s * size * g, student, gradient))[0]) for s in (1, -1)
    )
    slope = sum(float(jnp.square(leaf).sum()) for leaf in jax.tree.leaves(gradient))
    assert ahead - behind == pytest.approx(2 * size * slope, rel=0.1)


def test_task_loss_sums_over_the_categories_and_reports_their_mean(learner, digits):
    names = ("2", "0", "1")
    images = jnp.stack([jnp.asarray(digits[name][:64].reshape(64, -1)) for name in names])
    data = TaskData(images, jnp.asarray([64, 10, 33]), jax.random.split(jax.random.key(1), 3), jnp.int32(9))
    params = {
        "mixed": learner.params["mixed"],
        "categories": {TASK: stack_subtrees(learner, names)},
    }

    def loss(params, data):
        drawn = sample_step_noise(data, jnp.int32(5), batch_size=16, latent_size=4)
        return task_loss(params, data, drawn, networks=learner.networks)

    total, terms = loss(params, data)
    alone = []
    for index, name in enumerate(names):
        one = TaskData(*(leaf[index : index + 1] for leaf in data[:3]), data.total_steps)
        subtree = {TASK: stack_subtrees(learner, [name])}
        value, own_terms = loss({**params, "categories": subtree}, one)
        assert float(own_terms["real"]) == pytest.approx(float(value), rel=1e-6)
        alone.append(float(value))
    assert set(terms) == {"real"}
    assert float(total) == pytest.approx(sum(alone), rel=1e-4)
    assert float(terms["real"]) == pytest.approx(np.mean(alone), rel=1e-4)
    assert len({round(value, 3) for value in alone}) == 3


def test_rows_of_padding_are_never_a_real_image(learner, digits):
    images = np.zeros((1, 64, 784), np.float32)
    images[0, 3:] = np.nan
    images[0, :3] = digits["2"][:3].reshape(3, -1) / 255
    data = TaskData(jnp.asarray(images), jnp.asarray([3]), jax.random.split(jax.random.key(1), 1), jnp.int32(9))
    params = {"mixed": learner.params["mixed"], "categories": {TASK: stack_subtrees(learner, ["2"])}}
    drawn = sample_step_noise(data, jnp.int32(0), batch_size=256, latent_size=4)
    total, _ = task_loss(params, data, drawn, networks=learner.networks)
    assert np.isfinite(total)
