"""What the live page asks of a state."""

import threading
import time

import jax
import numpy as np
import pytest

import lifelong_cvae as lifelong
from lifelong_cvae import InputError, checkpoints, sampling
from lifelong_cvae.model import cvae, mixture_prior
from lifelong_cvae.runs.workdir import lock_workdir
from lifelong_cvae.webapp import session as session_module
from lifelong_cvae.webapp.session import TURNS, BusyError, Session
from tests.conftest import assert_trees_equal, one_line


@pytest.fixture
def session(learner, tmp_path):
    return Session(learner, tmp_path)


def taught(session, name, images):
    """Teaches, and waits for the end."""
    session.teach(name, images)
    waited = time.monotonic()
    while not session.teaching.ended:
        assert time.monotonic() - waited < 120
        time.sleep(0.02)
    return session.teaching


class TestAnswer:
    def test_it_is_what_the_library_says(self, session, learner, mnist5k, rng):
        for name in learner.names:
            image = mnist5k.read("test", name)[3]
            answer = session.answer(image)
            names, probabilities = lifelong.recognize(learner, image[None])
            assert (answer.names, answer.best) == (learner.names, names[0])
            np.testing.assert_allclose(answer.probabilities, probabilities[0], rtol=1e-5)
            expected = [sampling.reconstruct(learner, known, image[None])[0] for known in learner.names]
            np.testing.assert_allclose(answer.redrawn, expected, atol=1e-5)
            evidence = lifelong.evidence(learner, image[None])
            assert answer.unknown == lifelong.unknown(learner, evidence, names)[0]

    def test_the_circle_starts_at_the_image(self, session, learner, mnist5k, rng):
        image = mnist5k.read("test", "0")[0]
        answer = session.answer(image)
        path = learner.model(answer.best)
        assert answer.turns.shape == (TURNS, 28, 28, 1)
        x = image.reshape(1, -1) / np.float32(255)
        keys = jax.random.split(rng, TURNS)
        for turn in range(2):
            z, x = cvae.circulate(path, np.zeros((1, 4), np.float32), x, 1, rng=keys[turn])
            np.testing.assert_allclose(answer.turns[turn].reshape(1, -1), cvae.sample_image(path, z), atol=1e-4)

    def test_of_many_categories_the_likeliest_are_shown_as_they_were_learned(self, session, mnist5k, monkeypatch):
        monkeypatch.setattr(session_module, "MAX_SHOWN", 2)
        image = mnist5k.read("test", "1")[0]
        answer = session.answer(image)
        everything = lifelong.recognize(session.state, image[None])[1][0]
        kept = sorted(np.argsort(-everything)[:2])
        assert answer.names == tuple(session.state.names[index] for index in kept)
        np.testing.assert_allclose(answer.probabilities, everything[kept], rtol=1e-5)

    def test_noise_is_unknown(self, session):
        noise = np.random.default_rng(0).integers(0, 256, (28, 28, 1), np.uint8)
        assert session.answer(noise).unknown


class TestImagining:
    def test_in_the_middle_is_the_mean_of_the_latent_space(self, session, learner):
        path = learner.model("2")
        mean, _ = mixture_prior.mean_and_covariance(path.prior)
        expected = cvae.sample_image(path, mean[None].astype(np.float32)).reshape(28, 28, 1)
        np.testing.assert_allclose(session.along("2", [0, 0]), expected, atol=1e-5)

    def test_the_first_direction_is_the_widest(self, session, learner):
        path = learner.model("0")
        z = np.asarray(mixture_prior.sample(path.prior, 20_000, rng=jax.random.key(1)))
        mean, axes = z.mean(axis=0), np.linalg.svd(np.cov(z, rowvar=False))[0]
        for index in range(2):
            reach = 2 * np.std(z @ axes[:, index]) * axes[:, index]
            ends = [cvae.sample_image(path, (mean + sign * reach)[None].astype(np.float32)) for sign in (1, -1)]
            drawn = session.along("0", [0] * index + [2]).reshape(1, -1)
            forth, back = (np.abs(drawn - end).mean() for end in ends)
            assert min(forth, back) < 0.03 < max(forth, back)

    @pytest.mark.parametrize("positions", [[0] * 5, [3.5], [float("nan")], [float("inf")]])
    def test_positions_out_of_reach_are_refused(self, session, positions):
        with pytest.raises(InputError) as error:
            session.along("0", positions)
        one_line(error, "at most 4 numbers from -3.0 to 3.0")

    def test_images_are_those_of_imagine(self, session, learner):
        expected = lifelong.imagine(learner, ["1"], 3, rng=jax.random.key(5))["1"]
        np.testing.assert_array_equal(session.imagine("1", 3, seed=5), expected)

    def test_an_unknown_category_is_refused(self, session):
        for ask in (lambda: session.along("7", []), lambda: session.imagine("7", 1, seed=0)):
            with pytest.raises(InputError, match="unknown category '7': known are 2, 0, 1"):
                ask()


class TestTeaching:
    def test_a_category_is_learned_as_the_library_learns_it_and_dropped(self, session, learner, digits, rng):
        images = digits["7"][:20]
        assert session.saved
        ended = taught(session, "seven", images)
        assert ended[:2] == ("seven", 1.0)
        assert ended.ended.startswith("seven was learned from 20 examples in ")
        assert not ended.failed
        assert not session.saved
        expected, _ = lifelong.learn(learner, {"seven": images}, rng=rng)
        assert session.state.names == ("2", "0", "1", "seven")
        assert_trees_equal(session.state.params, expected.params)
        session.drop("seven")
        assert_trees_equal(session.state.params, learner.params)

    @pytest.mark.parametrize(
        ("name", "count", "words"),
        [
            ("", 12, "a non-empty text"),
            ("a\nb", 12, "printable"),
            ("2", 12, "2 is known already: another name is expected"),
            ("7", 9, "7: at least 10 examples are expected, got 9"),
        ],
    )
    def test_what_cannot_be_taught_is_refused_and_nothing_is_held(self, session, learner, digits, name, count, words):
        with pytest.raises(InputError, match=words):
            session.teach(name, digits["7"][:count])
        assert session.teaching is None
        assert session.state is learner
        session.drop("0")  # nobody holds the turn

    def test_while_it_learns_it_answers_and_refuses_changes(self, session, digits, monkeypatch, learner):
        going, may_end = threading.Event(), threading.Event()

        def learn(state, images, *, rng, progress):
            going.set()
            may_end.wait(60)
            raise FloatingPointError("loss is not finite")

        monkeypatch.setattr(session_module, "learn", learn)
        session.teach("7", digits["7"][:10])
        going.wait(60)
        assert session.answer(digits["0"][0]).best in learner.names
        for change in (
            lambda: session.teach("8", digits["8"][:10]),
            lambda: session.drop("2"),
            session.save,
        ):
            with pytest.raises(BusyError, match="7 is being learned: wait until it is done"):
                change()
        may_end.set()
        while not session.teaching.ended:
            time.sleep(0.01)
        assert session.teaching == ("7", 1.0, "loss is not finite", True)
        assert session.state is learner
        monkeypatch.undo()
        assert not taught(session, "7", digits["7"][:10]).failed

    def test_the_last_category_stays(self, session):
        session.drop("2")
        session.drop("0")
        with pytest.raises(InputError, match="1 is the only category"):
            session.drop("1")
        with pytest.raises(InputError, match="unknown category '0'"):
            session.drop("0")
        assert session.state.names == ("1",)


class TestSaving:
    def test_what_is_known_is_saved_when_asked(self, session, tmp_path):
        session.drop("0")
        assert list(tmp_path.iterdir()) == []
        folder = session.save()
        assert session.saved
        again = checkpoints.load(folder)
        assert again.names == ("2", "1")
        assert_trees_equal(again.params, session.state.params)
        session.drop("2")
        session.save()
        assert lifelong.load(folder).names == ("1",)

    def test_not_while_another_process_writes_there(self, session, tmp_path):
        with lock_workdir(tmp_path), pytest.raises(InputError, match="another process is writing there"):
            session.save()
        session.save()
