"""Session of the live page: its answers equal those of the library, and changes exclude each other."""

import threading
import time

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import InputError, checkpoints, sampling
from lifelong_cvae.model import mixture_prior
from lifelong_cvae.runs.lock import lock_workdir
from lifelong_cvae.webapp import session as session_module
from lifelong_cvae.webapp.session import TURNS, BusyError, Session
from tests.compiled import circulate, sample_image
from tests.conftest import assert_trees_equal, one_line


@pytest.fixture
def session(learner, tmp_path):
    return Session(learner, tmp_path)


def teach_and_wait(session, name, images):
    """Teaches a category, and returns the progress at the end."""
    session.teach(name, images)
    start = time.monotonic()
    while not session.teaching.result:
        assert time.monotonic() - start < 120
        time.sleep(0.02)
    return session.teaching


def test_answer_equals_library(session, learner, mnist5k, rng):
    for name in learner.names:
        image = mnist5k.read("test", name)[3]
        answer = session.answer(image)
        names, probabilities = lifelong.recognize(learner, image[None])
        assert (answer.names, answer.best) == (learner.names, names[0])
        np.testing.assert_allclose(answer.probabilities, probabilities[0], rtol=1e-5)
        expected = [sampling.reconstruct(learner, known, image[None])[0] for known in learner.names]
        np.testing.assert_allclose(answer.reconstructions, expected, atol=1e-5)
        evidence = lifelong.evidence(learner, image[None])
        assert answer.unknown == lifelong.unknown(learner, evidence, names)[0]


def test_answer_circle_starts_at_image(session, learner, mnist5k, rng):
    image = mnist5k.read("test", "0")[0]
    answer = session.answer(image)
    model = learner.model(answer.best)
    assert answer.turns.shape == (TURNS, 28, 28, 1)
    x = image.reshape(1, -1) / np.float32(255)
    keys = jax.random.split(rng, TURNS)
    for turn in range(2):
        z, x = circulate(model, np.zeros((1, 4), np.float32), x, 1, rng=keys[turn])
        np.testing.assert_allclose(answer.turns[turn].reshape(1, -1), sample_image(model, z), atol=1e-4)


def test_answer_shows_most_probable_categories_in_order_of_learning(session, mnist5k, monkeypatch):
    monkeypatch.setattr(session_module, "MAX_SHOWN", 2)
    image = mnist5k.read("test", "1")[0]
    answer = session.answer(image)
    probabilities = lifelong.recognize(session.state, image[None])[1][0]
    kept = sorted(np.argsort(-probabilities)[:2])
    assert answer.names == tuple(session.state.names[index] for index in kept)
    np.testing.assert_allclose(answer.probabilities, probabilities[kept], rtol=1e-5)


def test_answer_rejects_noise_as_unknown(session):
    noise = np.random.default_rng(0).integers(0, 256, (28, 28, 1), np.uint8)
    assert session.answer(noise).unknown


def test_image_at_origin_is_mean_of_prior(session, learner):
    model = learner.model("2")
    mean, _ = mixture_prior.mean_and_covariance(model.prior)
    expected = sample_image(model, mean[None].astype(np.float32)).reshape(28, 28, 1)
    np.testing.assert_allclose(session.image_at("2", [0, 0]), expected, atol=1e-5)
    np.testing.assert_allclose(session.image_at("2", []), expected, atol=1e-5)


def test_image_at_follows_widest_directions_first(session, learner):
    model = learner.model("0")
    z = np.asarray(mixture_prior.sample(model.prior, 20_000, rng=jax.random.key(1)))
    mean, directions = z.mean(axis=0), np.linalg.svd(np.cov(z, rowvar=False))[0]
    for index in range(2):
        reach = 2 * np.std(z @ directions[:, index]) * directions[:, index]
        ends = [sample_image(model, (mean + sign * reach)[None].astype(np.float32)) for sign in (1, -1)]
        image = session.image_at("0", [0] * index + [2]).reshape(1, -1)
        # The sign of a direction is arbitrary.
        forward, backward = (np.abs(image - end).mean() for end in ends)
        assert min(forward, backward) < 0.03 < max(forward, backward)


@pytest.mark.parametrize("positions", [[0] * 5, [3.5], [float("nan")], [float("inf")]])
def test_image_at_rejects_positions_out_of_range(session, positions):
    with pytest.raises(InputError) as error:
        session.image_at("0", positions)
    one_line(error, "expected at most 4 numbers from -3.0 to 3.0, got", positions[-1])


def test_imagine_equals_library(session, learner):
    expected = lifelong.imagine(learner, ["1"], 3, rng=jax.random.key(5))["1"]
    np.testing.assert_array_equal(session.imagine("1", 3, seed=5), expected)


def test_unknown_category_is_rejected(session):
    for call in (lambda: session.image_at("7", []), lambda: session.imagine("7", 1, seed=0)):
        with pytest.raises(InputError, match="unknown category: expected one of 2, 0, 1, got '7'"):
            call()


def test_teach_equals_learn_and_drop_undoes_it(session, learner, digits, rng):
    images = digits["7"][:20]
    assert session.saved
    teaching = teach_and_wait(session, "seven", images)
    assert teaching[:2] == ("seven", 1.0)
    assert teaching.result.startswith("seven was learned from 20 examples in ")
    assert not teaching.failed
    assert not session.saved
    expected, _ = lifelong.learn(learner, {"seven": images}, rng=rng)
    assert session.state.names == ("2", "0", "1", "seven")
    assert_trees_equal(session.state.params, expected.params)
    session.drop("seven")
    assert_trees_equal(session.state.params, learner.params)


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("", 12, "category name: expected a non-empty string of printable characters, got ''"),
        ("a\nb", 12, "expected a non-empty string of printable characters, got"),
        ("2", 12, "category name: expected a new one, got '2', which is known"),
        ("7", 9, "category '7': expected at least 10 examples, got 9"),
    ],
)
def test_teach_rejects_bad_input_and_releases_lock(session, learner, digits, name, count, message):
    with pytest.raises(InputError, match=message):
        session.teach(name, digits["7"][:count])
    assert session.teaching is None
    assert session.state is learner
    session.drop("0")  # the lock is free


def test_session_answers_and_refuses_changes_during_teach(session, digits, monkeypatch, learner):
    started, may_end = threading.Event(), threading.Event()

    def learn(state, images, *, rng, progress):
        started.set()
        may_end.wait(60)
        raise FloatingPointError("loss is not finite")

    monkeypatch.setattr(session_module, "learn", learn)
    session.teach("7", digits["7"][:10])
    started.wait(60)
    assert session.answer(digits["0"][0]).best in learner.names
    for change in (lambda: session.teach("8", digits["8"][:10]), lambda: session.drop("2"), session.save):
        with pytest.raises(BusyError, match="7 is being learned: wait until it is done"):
            change()
    may_end.set()
    while not session.teaching.result:
        time.sleep(0.01)
    assert session.teaching == ("7", 1.0, "loss is not finite", True)
    assert session.state is learner
    monkeypatch.undo()
    assert not teach_and_wait(session, "7", digits["7"][:10]).failed


def test_drop_keeps_last_category(session):
    session.drop("2")
    session.drop("0")
    with pytest.raises(InputError, match="drop: expected another category to remain, got '1', the only one"):
        session.drop("1")
    with pytest.raises(InputError, match="unknown category: expected one of 1, got '0'"):
        session.drop("0")
    assert session.state.names == ("1",)


def test_save_writes_state_only_when_called(session, tmp_path):
    session.drop("0")
    assert list(tmp_path.iterdir()) == []
    folder = session.save()
    assert session.saved
    loaded = checkpoints.load(folder)
    assert loaded.names == ("2", "1")
    assert_trees_equal(loaded.params, session.state.params)
    session.drop("2")
    session.save()
    assert lifelong.load(folder).names == ("1",)


def test_save_fails_while_another_process_writes(session, tmp_path):
    with lock_workdir(tmp_path), pytest.raises(InputError, match="another process is writing there"):
        session.save()
    session.save()


def test_answer_and_teach_scale_pixels_to_the_range_of_the_state(learner, tmp_path, mnist5k):
    image = mnist5k.read("test", "0")[0]
    session = Session(learner.replace(max_value=16.0), tmp_path)
    expected = Session(learner, tmp_path).answer(image)
    np.testing.assert_allclose(session.answer(image).probabilities, expected.probabilities, rtol=1e-4)
    assert not teach_and_wait(session, "dark", np.full((12, 28, 28, 1), 3, np.uint8)).failed
    assert not teach_and_wait(Session(learner, tmp_path), "dark", np.full((12, 28, 28, 1), 3, np.uint8)).failed
