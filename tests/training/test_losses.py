"""Loss terms: each agrees with a second computation, and reaches the parameters that it trains."""

from dataclasses import replace
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
from tests.compiled import decode_mean, encode

GROUPS, IMAGES = 5, 6
NO_NOISE = np.float32(0)
jitted_replay_terms = jax.jit(replay_terms, static_argnums=3)
jitted_replay_loss = jax.jit(replay_loss, static_argnames="networks")
jitted_real_loss = jax.jit(real_loss, static_argnames="networks")


@pytest.fixture(scope="module")
def replay(learner):
    """Replayed pairs of 2, 0 and 1, sampled from the learner."""
    stack = stack_categories(learner, learner.names, leave_out=NOT_USED_IN_TRAINING)
    sizes = {"groups": GROUPS, "images": IMAGES, "cycles": 1}
    rng = jax.random.key(4)
    memory = sample_memory(learner.params["mixed"], stack, rng=rng, networks=learner.networks, **sizes)
    return ReplayData(*jax.device_get((stack, memory)), rng, stack.count)


@pytest.fixture(scope="module")
def moved_mixed(learner):
    """Mixed parameters that differ from the teacher's."""
    rng = np.random.default_rng(8)
    return jax.tree.map(lambda leaf: leaf + np.float32(0.05 * rng.normal(size=leaf.shape)), learner.params["mixed"])


def memory_group(replay, index):
    return jax.tree.map(lambda leaf: leaf[index], replay.memory)


def group_model(mixed, replay, index, networks):
    row = replay.memory.category[index]
    return cvae.CategoryModel(mixed, jax.tree.map(lambda leaf: leaf[row], replay.stack.categories), networks)


def float64_arrays(*arrays):
    return [np.asarray(array, np.float64) for array in arrays]


def kl_divergence(mean, log_var, other_mean, other_log_var):
    """KL divergence of diagonal Gaussians, from traces, distances and determinants."""
    ratio = np.exp(log_var - other_log_var)
    distance = np.square(mean - other_mean) / np.exp(other_log_var)
    return 0.5 * (ratio + distance - 1 - np.log(ratio)).sum(axis=-1)


def test_replay_terms_agree_with_second_computation(learner, moved_mixed, replay):
    memory = memory_group(replay, 0)
    noise = np.float32(np.random.default_rng(11).normal(size=memory.z.shape))
    model = group_model(moved_mixed, replay, 0, learner.networks)
    terms = jitted_replay_terms(model, memory, noise, REPLAY_TERMS)
    assert set(terms) == set(REPLAY_TERMS)

    z, x, mean, log_var = float64_arrays(memory.z, memory.x, *encode(model, memory.x))
    decoded = decode_mean(model, memory.z)
    squared = ((float64_arrays(decoded)[0] - x) ** 2).sum() / IMAGES
    assert float(terms["generate"]) == pytest.approx(squared, rel=1e-4)

    recognize = kl_divergence(*float64_arrays(*memory.teacher), mean, log_var).mean()
    assert float(terms["recognize"]) == pytest.approx(recognize, rel=1e-3)

    decoded_mean, decoded_log_var = float64_arrays(*encode(model, decoded))
    circulate = -stats.norm.logpdf(z, decoded_mean, np.exp(0.5 * decoded_log_var)).sum(axis=1).mean()
    assert float(terms["circulate"]) == pytest.approx(circulate, rel=1e-3)

    sampled = mean + np.exp(0.5 * log_var) * noise
    pixels = float64_arrays(decode_mean(model, np.float32(sampled)))[0]
    scale = np.exp(learner.config.network.log_scale)
    logits, means, log_vars = float64_arrays(*(model.category["prior"][k] for k in ("logits", "means", "log_vars")))
    per_component = kl_divergence(mean[:, None], log_var[:, None], means, log_vars)
    divergence = -special.logsumexp(special.log_softmax(logits) - per_component, axis=1)
    elbo = stats.norm.logpdf(x, pixels, scale).sum(axis=1) - divergence
    assert float(terms["playback"]) == pytest.approx(-elbo.mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("names", "calls_of_halves"),
    [
        (("generate",), {"decode": 1}),
        (("recognize",), {"encode": 1}),
        (("circulate",), {"encode": 1, "decode": 1}),
        (("playback", "recognize"), {"encode": 1, "decode": 1}),
        (REPLAY_TERMS, {"encode": 2, "decode": 2}),
        ((), {}),
    ],
)
def test_replay_terms_compute_requested_terms_only(learner, replay, monkeypatch, names, calls_of_halves):
    calls = {}

    def counted_call(name, function, *arguments):
        calls[name] = calls.get(name, 0) + 1
        return function(*arguments)

    for name in ("encode", "decode"):
        monkeypatch.setattr(cvae, name, partial(counted_call, name, getattr(cvae, name)))
    model = group_model(learner.params["mixed"], replay, 0, learner.networks)
    terms = jax.eval_shape(lambda *data: replay_terms(*data, names), model, memory_group(replay, 0), NO_NOISE)
    assert set(terms) == set(names)
    assert calls == calls_of_halves


def test_replay_weights_leave_out_zero_weights():
    config = lifelong.Config().with_settings({"playback_weight": 0, "circulate_weight": 0.25})
    assert config.learning.replay_weights == {"generate": 1.0, "recognize": 1.0, "circulate": 0.25}


def terms_by_group(mixed, replay, networks, names):
    """Terms of each group. They must be terms that need no noise."""
    models = [group_model(mixed, replay, index, networks) for index in range(GROUPS)]
    groups = [memory_group(replay, index) for index in range(GROUPS)]
    return [jitted_replay_terms(*pair, NO_NOISE, names) for pair in zip(models, groups, strict=True)]


def test_replay_term_recognize_is_zero_for_teacher_itself(learner, moved_mixed, replay):
    for mixed, expected in ((learner.params["mixed"], True), (moved_mixed, False)):
        terms = [terms["recognize"] for terms in terms_by_group(mixed, replay, learner.networks, ("recognize",))]
        assert (np.abs(terms) < 1e-4).all() == expected
        assert (np.asarray(terms) > 0.01).all() != expected


def replay_loss_at_step(mixed, replay, networks, weights, groups=GROUPS, step=0):
    noise = sample_replay_noise(replay, jnp.int32(step), groups=groups)
    return jitted_replay_loss(mixed, replay, noise, networks=networks, weights=weights)


def test_replay_loss_is_weighted_mean_times_number_of_categories(learner, moved_mixed, replay):
    # Every group once, and no noise: the terms do not depend on the step.
    weights = {"generate": 2.0, "recognize": 0.5}
    total, terms = replay_loss_at_step(moved_mixed, replay, learner.networks, weights)
    by_group = terms_by_group(moved_mixed, replay, learner.networks, tuple(weights))
    assert set(terms) == set(weights)
    for name in weights:
        expected = np.mean([terms[name] for terms in by_group])
        assert float(terms[name]) == pytest.approx(expected, rel=1e-4)
    assert int(replay.stack.count) == 3
    weighted = 3 * (2.0 * float(terms["generate"]) + 0.5 * float(terms["recognize"]))
    assert float(total) == pytest.approx(weighted, rel=1e-5)


def test_sample_replay_noise_selects_other_groups_each_step_without_repetition(learner, moved_mixed, replay):
    by_group = terms_by_group(moved_mixed, replay, learner.networks, ("generate",))
    single = {g: float(terms["generate"]) for g, terms in enumerate(by_group)}

    def generate_term(step, groups):
        return float(
            replay_loss_at_step(moved_mixed, replay, learner.networks, {"generate": 1.0}, groups, step)[1]["generate"]
        )

    means = {(a, b): (single[a] + single[b]) / 2 for a in range(GROUPS) for b in range(a, GROUPS)}
    values = [generate_term(step, 1) for step in range(40)]
    selected = [min(single, key=lambda group, value=value: abs(single[group] - value)) for value in values]
    assert set(selected) == set(range(GROUPS))
    values = [generate_term(step, 2) for step in range(40)]
    pairs = [min(means, key=lambda pair, value=value: abs(means[pair] - value)) for value in values]
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
def test_replay_terms_have_gradients_in_halves_that_they_use(learner, moved_mixed, replay, term, reached):
    graph = jax.jit(
        jax.value_and_grad(lambda mixed: replay_loss_at_step(mixed, replay, learner.networks, {term: 1.0})[0])
    )
    gradient = graph(moved_mixed)[1]
    for half in ("encoder", "decoder"):
        # One hidden layer: its kernel and its bias.
        norms = [float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(gradient[half])]
        assert len(norms) == 2
        assert all(norm > 0 for norm in norms) == (half in reached)
        assert any(norm > 0 for norm in norms) == (half in reached)
    size = 1e-3 / np.sqrt(sum(float(jnp.square(leaf).sum()) for leaf in jax.tree.leaves(gradient)))
    ahead, behind = (
        float(graph(jax.tree.map(lambda p, g, s=s: p + s * size * g, moved_mixed, gradient))[0]) for s in (1, -1)
    )
    slope = sum(float(jnp.square(leaf).sum()) for leaf in jax.tree.leaves(gradient))
    assert ahead - behind == pytest.approx(2 * size * slope, rel=0.1)


def test_real_loss_sums_over_categories(learner, digits):
    names = ("2", "0", "1")
    images = jnp.stack([jnp.asarray(digits[name][:64].reshape(64, -1)) for name in names])
    data = TaskData(images, jnp.asarray([64, 10, 33]), jax.random.split(jax.random.key(1), 3), jnp.full(3, 9))
    params = {"mixed": learner.params["mixed"], "categories": {TASK: stack_subtrees(learner, names)}}
    learning = replace(learner.config.learning, batch_size=16)

    def loss(params, data):
        noise = sample_step_noise(data, jnp.int32(5), networks=learner.networks, learning=learning)
        return jitted_real_loss(params, data, noise, networks=learner.networks)

    total, terms = loss(params, data)
    alone = []
    for index, name in enumerate(names):
        one = TaskData(*(leaf[index : index + 1] for leaf in data[:4]))
        subtree = {TASK: stack_subtrees(learner, [name])}
        value, terms_of_one = loss({**params, "categories": subtree}, one)
        assert float(terms_of_one["real"][0]) == pytest.approx(float(value), rel=1e-6)
        alone.append(float(value))
    assert set(terms) == {"real"}
    assert float(total) == pytest.approx(sum(alone), rel=1e-4)
    np.testing.assert_allclose(terms["real"], alone, rtol=1e-4)
    assert len({round(value, 3) for value in alone}) == 3


def test_sample_step_noise_never_selects_padded_rows(learner, digits):
    images = np.zeros((1, 64, 784), np.float32)
    images[0, 3:] = np.nan
    images[0, :3] = digits["2"][:3].reshape(3, -1) / 255
    data = TaskData(jnp.asarray(images), jnp.asarray([3]), jax.random.split(jax.random.key(1), 1), jnp.full(1, 9))
    params = {"mixed": learner.params["mixed"], "categories": {TASK: stack_subtrees(learner, ["2"])}}
    learning = replace(learner.config.learning, batch_size=256)
    noise = sample_step_noise(data, jnp.int32(0), networks=learner.networks, learning=learning)
    total, _ = jitted_real_loss(params, data, noise, networks=learner.networks)
    assert np.isfinite(total)
